"""The report of a conversion: its steps, its counts, and what stayed unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_geometric.data import Data

from narformer_pyg.convert.onnx_model.graph import Dims


@dataclass(frozen=True)
class ConversionReport:
    r"""The provenance of a graph.

    Args:
        name (str): File or graph that was converted.
        vocabulary (str): The operator vocabulary.
        counting (str): The convention of :obj:`flops`, :obj:`parameters` and
            :obj:`memory_access`, see :func:`~narformer_pyg.convert.onnx_model.counting.count`.
        input_shapes (dict): The shapes that were used, input by input.
        batch_size (int): The batch size.
        num_nodes (int): Nodes of the graph, those of inputs included.
        num_edges (int): Edges of the graph.
        num_folded (int): Operators of the file that were folded away.
        flops (int): FLOPs, exact.
        parameters (int): Parameters.
        memory_access (int): Bytes or elements, depending on :obj:`counting`.
        operators (dict): Operator to how many there are, most frequent first.
        rung (str): The most expensive method that found a shape: :obj:`"onnx"`,
            :obj:`"declared"` or :obj:`"onnxruntime"`.
        shapes_by_rung (dict): Method to the number of tensors whose shape it found.
        unknown_shapes (tuple of str): Tensors whose shape is not fully known; the graph has -1.
        unknown_operators (dict): Operators that the vocabulary does not have.
        uncounted (tuple of str): Operators that the sums leave out: a shape is unknown, or they run
            graphs of their own (If, Loop, Scan).
        notes (tuple of str): What else to know, a sentence each.
        flops_by_operator (dict): Operator to the FLOPs of all of its kind, most first.
    """

    name: str
    vocabulary: str
    counting: str
    input_shapes: Mapping[str, tuple[int, ...]]
    batch_size: int
    num_nodes: int
    num_edges: int
    num_folded: int
    flops: int
    parameters: int
    memory_access: int
    operators: Mapping[str, int]
    rung: str
    shapes_by_rung: Mapping[str, int]
    unknown_shapes: tuple[str, ...] = ()
    unknown_operators: Mapping[str, int] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    flops_by_operator: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every shape is known and every operator is counted."""
        return not self.unknown_shapes and not self.uncounted


@dataclass(frozen=True)
class Conversion:
    """A graph and the report of its conversion."""

    data: Data
    report: ConversionReport
    #: The tensor that each node of the graph writes; those of inputs are the inputs.
    node_names: tuple[str, ...]
    #: The shape of that tensor; :obj:`None` where a dimension or the rank is unknown.
    node_shapes: tuple[Dims | None, ...]
    #: The path of the module that runs it, for instance :obj:`"layer1.0.conv1"`; empty for inputs
    #: and for networks that were not torch modules.
    node_modules: tuple[str, ...] = ()


def summary_text(report: ConversionReport, max_operators: int = 12) -> str:
    r"""Lays a report out as text.

    Args:
        report (ConversionReport): The report.
        max_operators (int, optional): How many kinds of operators to list.
            (default: :obj:`12`)
    """
    unit = "elements" if report.counting == "nnlqp" else "bytes"
    inputs = ", ".join(f"{name} {list(shape)}" for name, shape in report.input_shapes.items())
    operators = [f"{name} {count}" for name, count in report.operators.items()]
    more = len(operators) - max_operators
    if more > 0:
        operators = [*operators[:max_operators], f"and {more} more kinds"]
    rungs = ", ".join(f"{count} by {name}" for name, count in report.shapes_by_rung.items())
    rows = {
        "model": report.name,
        "inputs": inputs or "none",
        "graph": f"{report.num_nodes:,} nodes, {report.num_edges:,} edges "
        f"({report.num_folded:,} operators folded away)",
        "operators": ", ".join(operators),
        "vocabulary": report.vocabulary,
        "batch size": f"{report.batch_size:,}",
        "FLOPs": f"{report.flops:,} ({report.flops / 1e9:.3g} G, counting {report.counting!r})",
        "parameters": f"{report.parameters:,}",
        "memory access": f"{report.memory_access:,} {unit}",
        "shapes": rungs or "none",
    }
    if report.unknown_shapes:
        rows["unknown shapes"] = _first(report.unknown_shapes)
    if report.unknown_operators:
        rows["not in vocabulary"] = _first(
            [f"{k} {v}" for k, v in report.unknown_operators.items()]
        )
    if report.uncounted:
        rows["not counted"] = _first(report.uncounted)
    lines = [f"{name + ':':<19}{value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"{'note:':<19}{note}" for note in report.notes)])


def _first(values: list[str] | tuple[str, ...], limit: int = 5) -> str:
    shown = ", ".join(values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
