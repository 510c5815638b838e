"""The labels of NAS-Bench-101, read from the official records and kept in a small file."""

from __future__ import annotations

import base64
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from narformer_pyg.datasets._processed import load_processed, save_processed
from narformer_pyg.datasets._tfrecord import read_tfrecord
from narformer_pyg.datasets.target import Target
from narformer_pyg.spaces.nasbench101 import DIGITS, NUM_CELLS, NASBench101Cell

#: The numbers of epochs that networks were trained for.
EPOCHS = (4, 12, 36, 108)
_CODES = ("vertices", "edge_bits", "op_code")


def _known_targets() -> dict[str, Target]:
    targets = []
    for epochs in EPOCHS:
        how = f"CIFAR-10, {epochs} epochs, mean of the official runs"
        for part, where in (
            ("train", "on 10,000 of the 40,000 training images"),
            ("valid", "on 10,000 held-out images"),
            ("test", "on the test set"),
        ):
            name = f"{part}_acc_{epochs}"
            targets.append(Target(name, "percent", "accuracy", f"{where}; {how}"))
        targets.append(Target(f"train_time_{epochs}", "s", "time", f"without evaluation; {how}"))
    return {target.name: target for target in targets}


#: Every label there is, by name; four for each number of epochs.
TARGETS = _known_targets()


@dataclass(frozen=True, eq=False)
class CellTable:
    """Cells and labels, in arrays of one entry per cell.

    Args:
        vertices: As :attr:`NASBench101Cell.code` has it: uint8.
        edge_bits: The same: uint32.
        op_code: The same: uint8.
        columns: The labels by name: float32, NaN where there is no measurement.
        source_size: The bytes of the file they were read from.
    """

    vertices: np.ndarray
    edge_bits: np.ndarray
    op_code: np.ndarray
    columns: Mapping[str, np.ndarray]
    source_size: int = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table, complete or not at all."""
        arrays = {**{name: getattr(self, name) for name in _CODES}, **self.columns}
        content = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_processed(os.fspath(path), {**content, "source_size": self.source_size})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CellTable:
        """Reads what :meth:`save` wrote.

        Raises:
            ValueError: If the file is damaged or something else.
        """
        content = load_processed(os.fspath(path), (*_CODES, "source_size"))
        columns = {name: content[name].numpy() for name in TARGETS if name in content}
        vertices, edge_bits, op_code = (content[name].numpy() for name in _CODES)
        return cls(vertices, edge_bits, op_code, columns, content["source_size"])


def read_official_file(path: str | os.PathLike[str], progress: bool = True) -> CellTable:
    r"""Streams cells and mean labels from a file of the benchmark.

    A record is a JSON list of the cell's hash, the number of epochs, the adjacency matrix as
    zeros and ones, the operations joined by commas, and the measurements of one run: a protobuf
    message in base64. The cells are returned in ascending order of their hashes.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is truncated, damaged or something else; the message names the record.
    """
    from google.protobuf.message import DecodeError

    rows: dict[str, int] = {}
    codes: list[tuple[int, int, int]] = []
    # Sums and numbers of runs of each cell and number of epochs; the runs are not kept.
    sums = np.zeros((NUM_CELLS * len(EPOCHS), 4))
    counts = np.zeros(len(sums))
    metrics_class = _metrics_class()
    for number, payload in enumerate(read_tfrecord(path, progress)):
        try:
            module_hash, epochs, adjacency, operations, encoded = json.loads(payload)
            metrics = metrics_class.FromString(base64.b64decode(encoded, validate=True))
            budget = EPOCHS.index(epochs)
            final = metrics.evaluation_data[-1]  # after the last epoch; earlier ones come first
            row = rows.get(module_hash)
            if row is None:
                code = _cell_code(adjacency, operations)
                row = rows[module_hash] = len(rows)
                codes.append(code)
        except (AttributeError, IndexError, TypeError, ValueError, DecodeError) as error:
            raise ValueError(
                f"Cannot read record {number} of {os.fspath(path)!r}, counted from 0: its content "
                f"is not that of NAS-Bench-101 ({type(error).__name__}: {error}). Name "
                "'nasbench_only108.tfrecord' or 'nasbench_full.tfrecord' as published"
            ) from error
        accuracies = (final.train_accuracy, final.validation_accuracy, final.test_accuracy)
        sums[row * len(EPOCHS) + budget] += (*(100 * a for a in accuracies), final.training_time)
        counts[row * len(EPOCHS) + budget] += 1
    if not rows:
        raise ValueError(f"Expected {os.fspath(path)!r} to hold at least one record (got none)")

    order = [rows[module_hash] for module_hash in sorted(rows)]
    num_slots = len(rows) * len(EPOCHS)
    with np.errstate(invalid="ignore"):  # NaN where there was no run
        means = (sums[:num_slots] / counts[:num_slots, None]).astype(np.float32)
    values = means.reshape(len(rows), len(TARGETS))[order]
    columns = {
        name: np.ascontiguousarray(values[:, i])
        for i, name in enumerate(TARGETS)
        if not np.isnan(values[:, i]).all()
    }
    vertices, edge_bits, op_code = np.array(codes, dtype=np.int64)[order].T
    return CellTable(
        vertices.astype(np.uint8), edge_bits.astype(np.uint32), op_code.astype(np.uint8), columns
    )


def _cell_code(adjacency: str, operations: str) -> tuple[int, int, int]:
    """Returns the code of a cell of the file, which holds pruned cells only."""
    names = operations.split(",")
    vertices, edge_bits = _graph_code(adjacency)
    if len(names) != vertices or names[0] != "input" or names[-1] != "output":
        raise ValueError(f"operations {operations!r} of {vertices} vertices")
    op_code = 0
    for name in names[1:-1]:
        if name not in DIGITS:
            raise ValueError(f"an unknown operation among {operations!r}")
        op_code = 3 * op_code + DIGITS.index(name)
    return vertices, edge_bits, op_code


@functools.cache
def _graph_code(adjacency: str) -> tuple[int, int]:
    """Returns vertices and edges; the whole space has some thousand different graphs."""
    size = round(len(adjacency) ** 0.5)
    matrix = [[int(c) for c in adjacency[i * size : (i + 1) * size]] for i in range(size)]
    if size * size != len(adjacency) or size < 2:
        raise ValueError(f"an adjacency of {len(adjacency)} entries")
    operations = ["input", *["maxpool3x3"] * (size - 2), "output"]
    cell = NASBench101Cell(matrix, operations)  # type: ignore[arg-type]
    if cell.num_vertices != size:
        raise ValueError("a vertex that is on no path from input to output")
    return cell.code[:2]


@functools.cache
def _metrics_class() -> Any:
    """Returns the class of the message with the measurements of one run."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="narformer_pyg/nasbench101.proto", package="narformer_pyg.nasbench101", syntax="proto2"
    )
    evaluation = file.message_type.add(name="EvaluationData")
    accuracies = ("train_accuracy", "validation_accuracy", "test_accuracy")
    for number, name in enumerate(("current_epoch", "training_time", *accuracies), start=1):
        evaluation.field.add(
            name=name, number=number, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL
        )
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".narformer_pyg.nasbench101.EvaluationData",
        label=field.LABEL_REPEATED,
    )
    # Fields that are not read (parameters, total time, checkpoint path) need no declaration.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    name = "narformer_pyg.nasbench101.ModelMetrics"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def as_table(
    vertices: Any, edge_bits: Any, op_code: Any, labels: Mapping[str, Any] | None
) -> CellTable:
    """Returns the table of a user's arrays; unpacking checks the codes."""
    columns = {}
    for name, values in (labels or {}).items():
        if name not in TARGETS:
            raise ValueError(f"Expected 'labels' to be among {', '.join(TARGETS)} (got {name!r})")
        column = np.asarray(values, dtype=np.float32)
        if column.shape != np.shape(vertices):
            raise ValueError(
                f"Expected 'labels' to have one value of {name!r} for each of the "
                f"{np.size(vertices)} cells (got shape {list(column.shape)})"
            )
        columns[name] = column
    return CellTable(np.asarray(vertices), np.asarray(edge_bits), np.asarray(op_code), columns)


def cache_path(root: str | os.PathLike[str], file: str | os.PathLike[str]) -> Path:
    """Returns where the labels of an official file are kept."""
    return Path(root) / "processed" / f"{Path(file).stem}.pt"
