"""The process that runs models and takes the time; started by :mod:`.worker_process`.

It writes ``ready`` to standard output, then answers every JSON object ``{"file": path}`` on
standard input, one a line, with one line. It imports only what running a model needs: torch alone
would bring hundreds of megabytes and its own threads.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime

from narformer_pyg._processes import end_with_parent
from narformer_pyg.profiling.weights import element_type, has_missing_weights, materialize

Shapes: TypeAlias = Mapping[str, Sequence[int]]

# The first run allocates and caches; the second settles the caches of the processor.
_WARM_UP_RUNS = 2
_LEAST_RUNS = 3

_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES = {f"tensor({name})": np.dtype(name) for name in {"bool", "float16", "double", *_INTEGERS}}
_DTYPES["tensor(float)"] = np.dtype("float32")


def measure_file(
    path: Path, provider: str, threads: int, seconds: float, input_shapes: Shapes
) -> dict[str, Any]:
    r"""Loads one model, warms it up and returns the time of its fastest run.

    Returns:
        dict: :obj:`latency_ms`, :obj:`runs`, and the columns of a label that describe the model.

    Raises:
        ValueError: If the model cannot be measured as it is.
    """
    model = onnx.load(path, load_external_data=False)
    # ONNX Runtime finds weights in files beside the model only if it gets the path.
    source: str | bytes = str(path)
    missing = has_missing_weights(model)
    if missing:
        source = materialize(model, np.random.default_rng(0)).SerializeToString()
    family = next((entry.value for entry in model.metadata_props if entry.key == "family"), "")
    precision = element_type(model.graph.initializer)
    del model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors arrive as exceptions
    session = onnxruntime.InferenceSession(source, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise ValueError(
            f"Expected 'provider' to run the model (got {provider!r}, but ONNX Runtime fell back "
            f"to {session.get_providers()[0]})"
        )
    inputs = make_inputs(session.get_inputs(), input_shapes)
    for _ in range(_WARM_UP_RUNS):
        session.run(None, inputs)
    best, runs = math.inf, 0
    end = time.perf_counter() + seconds
    while runs < _LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        best = min(best, time.perf_counter() - start)
        runs += 1
    if best <= 0:
        raise ValueError("The clock of this machine is too coarse for this model (measured 0 s)")
    first = next(iter(inputs.values()), np.zeros(()))
    shapes = [f"{name}:{'x'.join(map(str, value.shape))}" for name, value in inputs.items()]
    return {
        "latency_ms": best * 1e3,
        "runs": runs,
        "batch": first.shape[0] if first.ndim else 1,
        "precision": precision if precision != "unknown" else str(first.dtype),
        "weights": "random" if missing else "stored",
        "family": family,
        "input_shapes": " ".join(shapes),
    }


def make_inputs(declared: Sequence[Any], input_shapes: Shapes) -> dict[str, np.ndarray]:
    r"""Returns an array for each input of a session.

    Floating-point inputs are normally distributed; integers are ones, which are valid as an index,
    a length and a mask.

    Raises:
        ValueError: If dimensions stay open, a shape contradicts the model, or an input is not a
            tensor of numbers.
    """
    rng = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {}
    open_inputs = []
    for entry in declared:
        if entry.type not in _DTYPES:
            raise ValueError(f"The input {entry.name!r} has the type {entry.type}, not numbers")
        shape = list(input_shapes.get(entry.name, entry.shape))
        if len(shape) != len(entry.shape) or any(
            isinstance(size, int) and size != new
            for size, new in zip(entry.shape, shape, strict=True)
        ):
            raise ValueError(
                f"Expected 'input_shapes' to fit the input {entry.name!r} of shape "
                f"{_text(entry.shape)} (got {_text(shape)})"
            )
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            open_inputs.append(f"{entry.name} {_text(shape)}")
            continue
        dtype = _DTYPES[entry.type]
        inputs[entry.name] = (
            rng.standard_normal(shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)
        )
    if open_inputs:
        raise ValueError(
            "Expected 'input_shapes' to name a shape for each input with open dimensions "
            f"(missing: {'; '.join(open_inputs)})"
        )
    return inputs


def _text(shape: Sequence[object]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def main() -> None:
    """Answers requests until standard input or the parent ends."""
    request = json.loads(sys.argv[1])
    end_with_parent(request["parent"])
    # A library that prints would break the protocol: its lines go to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        channel.write("ready\n")
        channel.flush()
        for line in sys.stdin:
            path = Path(json.loads(line)["file"])
            try:
                reply = measure_file(path, **request["settings"])
            except Exception as error:  # the model failed, and the next one may work
                text = " ".join(str(error).split()) or type(error).__name__
                reply = {"error": text[:500]}
            channel.write(json.dumps(reply) + "\n")
            channel.flush()


if __name__ == "__main__":
    main()
