r"""Makes the graphs and labels of :class:`narformer_pyg.datasets.TimmLatency`.

::

    python scripts/export_timm.py TABLES FOLDER --num_workers 2

``TABLES`` is a folder with timm's published results: ``benchmarks.csv.gz`` (all of its tables of
speeds, one column ``table``) and ``results-imagenet.csv.gz``. Every architecture of them, at every
image size, becomes a graph of batch size one, kept as ``FOLDER/NAME@SIZE.npz``, so that a run that
was stopped goes on where it was. The last step packs them into the package.

Networks are built without weights. Where a table was measured in a re-parameterised form, as its
numbers of parameters say, that form is the graph. ``FOLDER/report.csv`` has a line a graph: time
and memory of the conversion, and FLOPs and parameters beside those of torch's flop counter, of the
module and of the publisher. The summary of it is printed.

Needs timm, and torchvision as ``scripts/export_torchvision.py`` says.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import lzma
import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from narformer_pyg._files import atomic_write
from narformer_pyg.convert import convert_torch
from narformer_pyg.convert.named_networks import import_torchvision

PACKAGE = Path(__file__).parent.parent / "narformer_pyg" / "datasets" / "data" / "timm"
FIELDS = (
    "network", "status", "form", "seconds", "memory_mb", "nodes", "edges", "flops",
    "counter_flops", "parameters", "module_parameters", "published_gmacs", "published_mparams",
    "standardised_weights", "norm_macs", "unknown_operators", "unknown_shapes",
)  # fmt: skip


def main() -> None:
    """Converts what is missing, then packs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, help="folder of timm's published results")
    parser.add_argument("folder", type=Path, help="folder of the graphs")
    parser.add_argument("--num_workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--limit", type=int, help="convert only so many networks")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    speeds = read(args.tables / "benchmarks.csv.gz")
    accuracies = read(args.tables / "results-imagenet.csv.gz")
    published: dict[tuple[str, int], tuple[float, float]] = {}
    for row in accuracies:
        key = row["model"].split(".")[0], int(row["img_size"])
        published[key] = float("nan"), number(row["param_count"])
    for row in speeds:  # the newest table comes last
        key = row["model"], int(row["img_size"])
        if row["gmacs"] or key not in published:
            published[key] = number(row["gmacs"]), number(row["param_count_m"])
    tasks = [
        (name, size, *published[name, size], args.folder)
        for name, size in sorted(published)[: args.limit]
        if not is_done(args.folder / f"{name}@{size}.npz")
    ]
    print(f"{len(published)} networks, {len(tasks)} to convert", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.num_workers, start, maxtasksperchild=100) as pool:
        for i, (network, error) in enumerate(pool.imap_unordered(export, tasks)):
            if error or i % 50 == 0:
                print(f"{i:5d} {network} {error}", flush=True)
    start()
    report(args.folder)
    pack(args.folder, speeds, accuracies)


def read(path: Path) -> list[dict[str, str]]:
    """Reads a compressed table."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_done(path: Path) -> bool:
    """Whether a network is converted; what failed is tried again."""
    if not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as file:
        return "op" in file


def number(text: str) -> float:
    """Reads a number that may have commas between its thousands."""
    return float(text.replace(",", "") or "nan")


def start() -> None:
    """Prepares a process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import_torchvision()


def export(task: tuple[str, int, float, float, Path]) -> tuple[str, str]:
    """Converts a network and keeps its graph; returns its name and what went wrong."""
    name, size, gmacs, mparams, folder = task
    network = f"{name}@{size}"
    record: dict[str, Any] = {
        "network": network, "published_gmacs": gmacs, "published_mparams": mparams,
    }  # fmt: skip
    arrays: dict[str, np.ndarray] = {}
    try:
        module, record["form"] = build(name, size, mparams)
        example = torch.empty(1, 3, size, size, device="meta")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        conversion = convert_torch(module, example)
        record["seconds"] = time.process_time() - began
        record["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        data, found = conversion.data, conversion.report
        record.update(
            nodes=found.num_nodes, edges=found.num_edges, flops=found.flops,
            parameters=found.parameters,
            module_parameters=sum(p.numel() for p in module.parameters()),
            unknown_operators=len(found.unknown_operators),
            unknown_shapes=len(found.unknown_shapes),
        )  # fmt: skip
        record["standardised_weights"] = standardised_weights(module)
        record["counter_flops"] = counted(module, example)
        arrays = {
            "op": data.op.numpy().astype(np.uint16),
            "attr": data.attr.numpy(),
            "edge_index": data.edge_index.numpy().astype(np.int32),
            "static": np.asarray(
                [found.batch_size, found.flops, found.parameters, found.memory_access], float
            ),
        }
        record["status"] = ""
    except Exception as error:
        record["status"] = f"{type(error).__name__}: {error}".split("\n")[0][:300]
    with atomic_write(folder / f"{network}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, record=np.asarray(repr(record)), **arrays)
    return network, record["status"]


def build(name: str, size: int, mparams: float) -> tuple[nn.Module, str]:
    """Returns a network without weights, in the form that has the published parameters."""
    import timm
    from timm.utils.model import reparameterize_model

    def create(**options: Any) -> nn.Module:
        try:
            with torch.device("meta"):
                return timm.create_model(name, pretrained=False, **options)
        except (RuntimeError, NotImplementedError):  # some compute while they are built
            return timm.create_model(name, pretrained=False, **options)

    options: dict[str, Any] = {}
    native = timm.get_pretrained_cfg(name)
    if native is not None and native.input_size[-1] != size and "img_size" in native.to_dict():
        options["img_size"] = size
    module = create(**options)
    count = sum(p.numel() for p in module.parameters()) / 1e6
    if abs(count - mparams) > 0.006 + 0.001 * mparams:
        module_on_cpu = timm.create_model(name, pretrained=False, **options)
        other = reparameterize_model(copy.deepcopy(module_on_cpu))
        other_count = sum(p.numel() for p in other.parameters()) / 1e6
        if abs(other_count - mparams) < abs(count - mparams):
            return other, "re-parameterised"
    if abs(count - mparams) > 0.006 + 0.01 * mparams and not math.isnan(mparams):
        raise ValueError(f"{count:.2f} M parameters against {mparams} M as published")
    return module, "as built"


def counted(module: nn.Module, example: torch.Tensor) -> int:
    """Returns the FLOPs of torch's own counter."""
    module = module.to("meta").eval().requires_grad_(False)  # the counter wants all or nothing
    counter = FlopCounterMode(mods=None, display=False)
    with torch.nn.attention.sdpa_kernel(
        torch.nn.attention.SDPBackend.MATH
    ), counter:  # fmt: skip
        module(example)
    return counter.get_total_flops()


def standardised_weights(module: nn.Module) -> int:
    """Returns the weights that are normalised themselves before they are used."""
    from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame

    kinds = (ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame)
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, kinds))


def norm_macs(op: np.ndarray, attr: np.ndarray) -> float:
    """Returns what fvcore adds for norms: 2 an element, 5 of layer and group norm."""
    from narformer_pyg.vocabulary import get_vocabulary

    table = get_vocabulary("onnx")
    total = 0.0
    for kind, dims in zip(op.tolist(), attr[:, 8:].tolist(), strict=True):
        elements = float(np.prod([size for size in dims if size > 0]))
        if kind == table.id_of("BatchNormalization"):
            total += 2 * elements
        elif kind in (table.id_of("LayerNormalization"), table.id_of("InstanceNormalization")):
            total += 5 * elements
    return total


def records(folder: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields the record and the file of each network."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            record = eval(str(file["record"]), {"nan": float("nan")})  # our own repr of a dict
            yield record, file


def report(folder: Path) -> None:
    """Writes the table of all conversions and prints what they come to."""
    rows = []
    for record, file in records(folder):
        if not record["status"]:
            weights = record.setdefault("standardised_weights", 0)
            record["norm_macs"] = int(norm_macs(file["op"], file["attr"])) + 5 * weights
            record["seconds"] = round(record["seconds"], 3)
            record["memory_mb"] = round(record["memory_mb"], 1)
        rows.append(record)
    with open(folder / "report.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    good = [row for row in rows if not row["status"]]
    seconds = np.asarray([row["seconds"] for row in good])
    flops = np.asarray([row["flops"] / max(1, row["counter_flops"]) - 1 for row in good])
    parameters = np.asarray([row["parameters"] / row["module_parameters"] - 1 for row in good])
    macs = np.asarray([(row["flops"] / 2 + row["norm_macs"]) / 1e9 for row in good])
    published = np.asarray([row["published_gmacs"] for row in good])
    known = np.isfinite(published)
    near = np.abs(macs - published) <= 0.01 * published + 0.005
    print(f"converted {len(good)} of {len(rows)}")
    print(f"complete {sum(not r['unknown_operators'] and not r['unknown_shapes'] for r in good)}")
    print(
        f"seconds: median {np.median(seconds):.2f}, mean {seconds.mean():.2f}, "
        f"worst {seconds.max():.2f}; memory: worst "
        f"{max(row['memory_mb'] for row in good):.0f} MB"
    )
    print(f"FLOPs within 0.1 % of the counter: {np.mean(np.abs(flops) < 1e-3):.4f}")
    print(f"parameters within 0.1 % of the module: {np.mean(np.abs(parameters) < 1e-3):.4f}")
    print(f"published GMACs within 1 %: {np.mean(near[known]):.4f} of {known.sum()}")
    for row, value, is_near in zip(good, macs, near, strict=True):
        if not is_near and np.isfinite(row["published_gmacs"]):
            print(f"  {row['network']}: {value:.2f} against {row['published_gmacs']}")


def pack(folder: Path, speeds: list[dict[str, str]], accuracies: list[dict[str, str]]) -> None:
    """Writes graphs and labels into the package."""
    names, parts, failures = [], [], []
    for record, file in records(folder):
        if record["status"]:
            failures.append((record["network"], record["status"]))
            continue
        names.append(record["network"])
        parts.append({key: file[key] for key in ("op", "attr", "edge_index", "static")})
    edges = np.concatenate([part["edge_index"] for part in parts], 1)
    graphs = {
        "networks": np.asarray(names),
        "num_nodes": np.asarray([part["op"].size for part in parts], np.int32),
        "num_edges": np.asarray([part["edge_index"].shape[1] for part in parts], np.int32),
        "op": np.concatenate([part["op"] for part in parts]),
        "attr": np.ascontiguousarray(np.concatenate([part["attr"] for part in parts]).T),
        "edge_target": edges[1].astype(np.int16),
        "edge_length": (edges[1] - edges[0]).astype(np.int16),
        "static": np.stack([part["static"] for part in parts]),
    }
    place = {name: i for i, name in enumerate(names)}
    tables = sorted({row["table"] for row in speeds})
    labels = np.full((len(names), len(tables)), np.nan, np.float32)
    batches = np.zeros((len(names), len(tables)), np.int16)
    for row in speeds:
        i, j = place.get(f"{row['model']}@{row['img_size']}"), tables.index(row["table"])
        if i is not None and number(row["samples_per_sec"]) > 0:
            labels[i, j] = 1000 / number(row["samples_per_sec"])
            batches[i, j] = int(number(row["batch_size"]))
    kept = [row for row in accuracies
            if f"{row['model'].split('.')[0]}@{row['img_size']}" in place]  # fmt: skip
    published = {
        "networks": np.asarray(names),
        "family": np.asarray([family_of(name.split("@")[0]) for name in names]),
        "tables": np.asarray(tables),
        "ms_per_image": labels,
        "batch_size": batches,
        "weights": np.asarray([row["model"] for row in kept]),
        "weights_network": np.asarray(
            [place[f"{row['model'].split('.')[0]}@{row['img_size']}"] for row in kept], np.int32
        ),
        "top1_acc": np.asarray([float(row["top1"]) for row in kept], np.float32),
        "top5_acc": np.asarray([float(row["top5"]) for row in kept], np.float32),
        "failed": np.asarray([f"{name}: {why}" for name, why in failures] or [""]),
    }
    PACKAGE.mkdir(parents=True, exist_ok=True)
    for name, arrays in (("graphs", graphs), ("labels", published)):
        buffer = BytesIO()
        np.savez(buffer, **arrays)
        packed = lzma.compress(buffer.getvalue(), preset=9)
        (PACKAGE / f"{name}.npz.xz").write_bytes(packed)
        print(f"{name}: {len(packed) / 1e6:.2f} MB")


def family_of(name: str) -> str:
    """Returns the module of timm that defines a network."""
    import timm

    return timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]


if __name__ == "__main__":
    main()
