"""Torchvision networks, exported in two ways: conversion, operator counts, FLOPs, parameters.

    python scripts/export_torchvision.py FOLDER  # where torchvision is installed, see there
    python benchmarks/torchvision_models.py FOLDER --out benchmarks/results/torchvision.csv

Every network is there twice: as ``torch.onnx.export`` writes it with ``dynamo=True`` and with
``dynamo=False``. Each file is converted, timed and compared with a run as in ``convert.py``. Then

- the operators that are left after folding are counted in both, and differences are listed;
- FLOPs are compared with those of :class:`torch.utils.flop_counter.FlopCounterMode`, with
  ``counting="standard"``, which like torch counts 2 for each multiply-accumulate of convolutions
  and matrix products and nothing else: all of them, and convolutions and products apart;
- parameters are compared with those of the module, less what exporters fold into convolutions.

``--quick`` exports two small modules first, so that no folder is needed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import common
import torch
from common import create_parser, parse_args, settings
from convert import LIGHT, measure, summarise
from torch import nn

from narformer_pyg.convert import convert_onnx

log = logging.getLogger("torchvision_models")

EXPORTERS = ("dynamo", "legacy")
# What torch counts, under the names of this comparison.
TORCH_KINDS = {
    "aten.convolution": "convolutions",
    **dict.fromkeys(("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"), "products"),
}


def main() -> None:
    """Measures, reports and writes the results."""
    parser = create_parser(__doc__, repeats=3, threads=1, repeats_help="conversions of each model")
    parser.add_argument("folder", nargs="?", type=Path, help="what the script exported")
    args = parse_args(parser, {"repeats": 1})
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    convert_onnx(LIGHT / "light_squeezenet.onnx")  # imports are not measured
    if args.folder is not None:
        results = compare_folder(args.folder, args.repeats)
    elif args.quick:
        with tempfile.TemporaryDirectory() as folder:
            export_small(Path(folder))
            results = compare_folder(Path(folder), args.repeats)
    else:
        parser.error("Expected 'folder', which scripts/export_torchvision.py fills (got none)")
    args.folder = None  # of one machine
    versions = {name: metadata.version(name) for name in ("onnx", "onnxruntime")}
    common.write_results(args.out, {"settings": settings(args), "versions": versions, **results})


def compare_folder(folder: Path, repeats: int) -> dict[str, Any]:
    """Compares everything that the script has exported."""
    path = folder / "export.json"
    if not path.is_file():
        raise SystemExit(f"Expected {str(path)!r}, which scripts/export_torchvision.py writes")
    exported = json.loads(path.read_text("utf-8"))
    rows = {}
    log.info(
        "%-30s %18s %18s %10s %10s  %s", "network", "dynamo: s, rung", "legacy: s, rung", "FLOPs",
        "parameters", "operators that differ: dynamo/legacy",
    )  # fmt: skip
    for name, record in exported["models"].items():
        rows[name] = row = compare_network(folder, name, record, repeats)
        log.info("%s", _line(name, row))
    conversion = {
        exporter: summarise({n: r[exporter] for n, r in rows.items() if "converted" in r[exporter]})
        for exporter in EXPORTERS
    }
    summary = summarise_comparison(rows)
    for exporter, values in conversion.items():
        for key, value in values.items():
            log.info("%s: %-31s %s", exporter, key.replace("_", " "), value)
    for key, value in summary.items():
        log.info("%-39s %s", key.replace("_", " "), value)
    return {
        "exported_with": exported["versions"],
        "conversion": conversion,
        "summary": summary,
        "networks": rows,
    }


def compare_network(
    folder: Path, name: str, record: dict[str, Any], repeats: int
) -> dict[str, Any]:
    """Converts both files of a network and compares them with each other and with torch."""
    row: dict[str, Any] = {key: record[key] for key in ("family", "kind", "input_shape", "torch")}
    if "from_torch" in record:
        row["from_torch"] = record["from_torch"]
    for exporter in EXPORTERS:
        export = record["exports"][exporter]
        if "error" in export:
            row[exporter] = {"export_error": export["error"]}
            continue
        path = folder / exporter / f"{name}.onnx"
        found = measure(path, {}, 64, repeats)
        if found["converted"]:
            found.update(count_operators(path), opset=export["opset"])
        row[exporter] = found
    both = [row[exporter] for exporter in EXPORTERS]
    if all(found.get("converted") for found in both):
        counts = [Counter(found["operator_counts"]) for found in both]
        row["operator_differences"] = {
            op: [count[op] for count in counts]
            for op in sorted(set().union(*counts))
            if counts[0][op] != counts[1][op]
        }
    torch_counts = record["torch"]
    if "error" not in torch_counts:
        kinds: Counter[str] = Counter()
        for operator, flops in torch_counts["flops_by_operator"].items():
            kinds[TORCH_KINDS.get(operator, "others")] += flops
        row["torch"] = {**torch_counts, "flops_by_kind": dict(kinds)}
        for found in both:
            if found.get("converted"):
                found["deviation_percent"] = _deviations(found, row["torch"])
    return row


def count_operators(path: Path) -> dict[str, Any]:
    """Counts the operators of a folded model, and FLOPs of convolutions and products apart."""
    report = convert_onnx(path).report
    kinds: Counter[str] = Counter()
    for operator, flops in report.flops_by_operator.items():
        kinds["convolutions" if operator.startswith("Conv") else "products"] += flops
    return {
        "operator_counts": dict(report.operators),
        "flops": report.flops,
        "flops_by_kind": dict(kinds),
        "uncounted_operators": len(report.uncounted),
    }


def summarise_comparison(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Says how many networks agree, and where the largest deviations are."""
    summary: dict[str, Any] = {"networks": len(rows)}
    compared = [row for row in rows.values() if "operator_differences" in row]
    summary["compared_by_operators"] = len(compared)
    summary["same_operator_counts"] = sum(not row["operator_differences"] for row in compared)
    for kind in ("cnn", "transformer"):
        deviations = [
            abs(row[exporter]["deviation_percent"]["flops"])
            for row in rows.values()
            for exporter in EXPORTERS
            if row["kind"] == kind and "deviation_percent" in row[exporter]
        ]
        summary[f"{kind}_files_compared_by_flops"] = len(deviations)
        summary[f"{kind}_flops_within_1_percent"] = sum(d <= 1 for d in deviations)
        summary[f"{kind}_flops_largest_deviation_percent"] = max(deviations, default=None)
    modules = [row["from_torch"] for row in rows.values() if "from_torch" in row]
    summary["from_torch_compared"] = len(modules)
    summary["from_torch_same_graph"] = sum(bool(found.get("same_graph")) for found in modules)
    return summary


def export_small(folder: Path) -> None:
    """Exports a small CNN and a small transformer in place of torchvision's."""
    script = Path(__file__).resolve().parents[1] / "scripts" / "export_torchvision.py"
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    networks = {
        "cnn": (module.Network("small", (1, 3, 16, 16)), SmallCNN),
        "transformer": (module.Network("small", (1, 10, 16), "transformer"), SmallTransformer),
    }
    models = {
        name: module.export_network(name, network, build, folder, {}, with_from_torch=True)
        for name, (network, build) in networks.items()
    }
    (folder / "export.json").write_text(
        json.dumps({"versions": {"torch": torch.__version__}, "models": models}), "utf-8"
    )


class SmallCNN(nn.Module):
    """What the exporters write in different ways, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Hardswish())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Half of the channels goes through a branch, as in ShuffleNet."""
        left, right = self.stem(x).chunk(2, dim=1)
        return self.head(torch.cat([left, self.branch(right)], dim=1))


class SmallTransformer(nn.Module):
    """One layer of attention and one of features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        nn.init.normal_(self.attention.out_proj.bias)  # exporters leave zeros out
        self.features = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens in, one vector out."""
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return (x + self.features(x)).mean(dim=1)


def _deviations(found: dict[str, Any], torch_counts: dict[str, Any]) -> dict[str, float | None]:
    def percent(value: int, reference: int) -> float | None:
        return round(100 * (value / reference - 1), 4) if reference else None

    ours, theirs = found["flops_by_kind"], torch_counts["flops_by_kind"]
    return {
        "flops": percent(found["flops"], torch_counts["flops"]),
        **{
            kind: percent(ours.get(kind, 0), theirs.get(kind, 0))
            for kind in ("convolutions", "products")
        },
        "parameters": percent(found["parameters"], torch_counts["parameters_after_folding"]),
    }


def _line(name: str, row: dict[str, Any]) -> str:
    cells = []
    for exporter in EXPORTERS:
        found = row[exporter]
        text = found.get("export_error") or found.get("error", "")
        if found.get("converted"):
            text = f"{found['seconds']:.3f} {found['rung']}"
        cells.append(f"{text[:18]:>18}")
    for key in ("flops", "parameters"):
        deviations = [row[exporter].get("deviation_percent", {}).get(key) for exporter in EXPORTERS]
        cells.append(
            f"{'/'.join('-' if d is None else f'{d:+.1f}' for d in dict.fromkeys(deviations)):>10}"
        )
    differences = row.get("operator_differences", {})
    cells.append(" " + ", ".join(f"{op} {a}/{b}" for op, (a, b) in differences.items()))
    return f"{name:<30} {' '.join(cells)}"


if __name__ == "__main__":
    main()
