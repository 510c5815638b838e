"""The table of measured latencies."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from narformer_pyg._files import atomic_write


@dataclass(frozen=True, slots=True)
class LatencyLabel:
    r"""A measured latency and its conditions: one line of the table, in this order of columns.

    Args:
        file (str): The ONNX file, relative to the folder that was measured.
        family (str): The family in the metadata of the model, or nothing.
        latency_ms (float): The time of one inference.
        unit (str): Always :obj:`"ms"`.
        statistic (str): Always :obj:`"minimum"`, over all runs of all passes.
        passes (int): The number of processes that measured the model.
        runs (int): The number of timed runs in all passes.
        pass_spread (float): The slowest pass divided by the fastest, minus one: large on a busy
            machine.
        batch (int): The first dimension of the first input.
        precision (str): The type of most weights.
        weights (str): :obj:`"stored"`, or :obj:`"random"` for a file without the data of weights.
        input_shapes (str): All inputs, as :obj:`"input:1x3x224x224"`.
        provider (str): The execution provider of ONNX Runtime.
        threads (int): The threads within an operator.
        onnxruntime (str): The version of ONNX Runtime.
        processor (str): The name of the processor.

    Raises:
        ValueError: If the latency is not positive and finite.
    """

    file: str
    family: str
    latency_ms: float
    unit: str
    statistic: str
    passes: int
    runs: int
    pass_spread: float
    batch: int
    precision: str
    weights: str
    input_shapes: str
    provider: str
    threads: int
    onnxruntime: str
    processor: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise ValueError(
                f"Expected the latency of {self.file!r} to be positive (got {self.latency_ms!r})"
            )


_FIELDS = fields(LatencyLabel)
_COLUMNS = tuple(field.name for field in _FIELDS)
# Names rather than types: annotations are text in this module.
_NUMBERS = {"int": int, "float": float}


def write_labels(labels: Sequence[LatencyLabel], path: str | os.PathLike[str]) -> None:
    """Writes a table of latencies as CSV, completely or not at all."""
    with atomic_write(path) as tmp, tmp.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(label) for label in labels)


def read_labels(path: str | os.PathLike[str]) -> list[LatencyLabel]:
    r"""Reads a table that :func:`write_labels` wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a column is missing or a value does not suit its column.
    """
    labels = []
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            missing = set(_COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ValueError(
                    "Expected the columns of a latency table "
                    f"(missing: {', '.join(sorted(missing))})"
                )
            for line in reader:
                values = {f.name: _NUMBERS.get(str(f.type), str)(line[f.name]) for f in _FIELDS}
                labels.append(LatencyLabel(**values))
        except (TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{os.fspath(path)}, line {reader.line_num}: {error}") from error
    return labels


@dataclass(frozen=True, slots=True)
class LabelComparison:
    r"""The difference between two measurements :math:`a` and :math:`b` of the same models.

    Args:
        num_models (int): The number of models in both.
        mape (float): The mean of :math:`|b / a - 1|`, in percent.
        median (float): The median of :math:`|b / a - 1|`, in percent.
        bias (float): The mean of :math:`b / a - 1`, in percent.
        within_10_percent (float): The models with :math:`|b / a - 1| \le 0.1`, in percent.
        different_settings (tuple of str): The columns that differ for some model.
    """

    num_models: int
    mape: float
    median: float
    bias: float
    within_10_percent: float
    different_settings: tuple[str, ...]


def compare_labels(
    first: Iterable[LatencyLabel], second: Iterable[LatencyLabel]
) -> LabelComparison:
    r"""Compares two measurements of the same models: the noise that bounds every predictor.

    Args:
        first (iterable of LatencyLabel): The reference :math:`a`.
        second (iterable of LatencyLabel): The repetition :math:`b`; files are matched by name.

    Raises:
        ValueError: If no file is in both.
    """
    by_file = {label.file: label for label in first}
    pairs = [(by_file[label.file], label) for label in second if label.file in by_file]
    if not pairs:
        raise ValueError("Expected 'first' and 'second' to have files in common (got none)")
    percent = 100 * np.array([b.latency_ms / a.latency_ms - 1 for a, b in pairs])
    error = np.abs(percent)
    settings = (
        "batch", "precision", "input_shapes", "provider", "threads", "onnxruntime", "processor",
    )  # fmt: skip
    different = [s for s in settings if any(getattr(a, s) != getattr(b, s) for a, b in pairs)]
    return LabelComparison(
        num_models=len(pairs),
        mape=float(error.mean()),
        median=float(np.median(error)),
        bias=float(percent.mean()),
        within_10_percent=float((error <= 10).mean() * 100),
        different_settings=tuple(different),
    )
