"""A folder of small ONNX models with made-up latencies."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

FAMILIES = ("plain", "residual", "pooled")
NUM_MODELS = 12


def small_model(family: str, channels: int, size: int, batch: int | str = 1) -> ModelProto:
    """A stem and three layers whose weights have no data."""
    nodes = [helper.make_node("Conv", ["x", "w0"], ["t0"], kernel_shape=[3, 3], pads=[1] * 4)]
    weights = {"w0": [channels, 3, 3, 3]}
    for i in range(3):
        weights[f"w{i + 1}"] = [channels, channels, 3, 3]
        nodes.append(
            helper.make_node(
                "Conv", [f"t{i}", f"w{i + 1}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1] * 4
            )
        )
        if family == "residual":
            nodes.append(helper.make_node("Add", [f"c{i}", f"t{i}"], [f"t{i + 1}"]))
        elif family == "pooled":
            pool = {"kernel_shape": [3, 3], "pads": [1] * 4}
            nodes.append(helper.make_node("MaxPool", [f"c{i}"], [f"t{i + 1}"], **pool))
        else:
            nodes.append(helper.make_node("Relu", [f"c{i}"], [f"t{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        family,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("t3", TensorProto.FLOAT, None)],
        [
            TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT)
            for name, dims in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_models(folder: Path, num: int = NUM_MODELS) -> list[dict[str, str]]:
    """Writes models, and returns the lines of a table of their latencies."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(num):
        family, channels = FAMILIES[i % len(FAMILIES)], int(rng.integers(4, 40))
        size = int(rng.integers(8, 32))
        name = f"{family}_{i}.onnx"
        onnx.save(small_model(family, channels, size), folder / name)
        latency = 0.5 + 1e-5 * channels * size**2 * (1 + channels / 20)
        lines.append({"file": name, "latency_ms": f"{latency:.6f}", "family": family})
    return lines


def write_csv(path: Path, lines: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def write_nnlqp(folder: Path, lines: list[dict[str, str]]) -> Path:
    """Writes gt.txt for two platforms, of which the second is twice as slow."""
    rows = [
        f"{500 + i} onnx/{line['file']} 1 {factor * float(line['latency_ms']):.5f} "
        f"{line['family']} {platform} {'test' if i % 4 == 3 else 'train'}\n"
        for platform, factor in ((2, 1), (23, 2))
        for i, line in enumerate(lines)
    ]
    path = folder / "gt.txt"
    path.write_text("".join(rows), "utf-8")
    return path
