"""Step 7: FLOPs, parameters and memory access of a graph, by one of two conventions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from narformer_pyg.convert.onnx_model.counting_nnlqp import count_nnlqp_node
from narformer_pyg.convert.onnx_model.counting_standard import (
    bytes_moved,
    multiply_accumulates,
    parameter_names,
)
from narformer_pyg.convert.onnx_model.graph import Graph, num_elements
from narformer_pyg.vocabulary import COUNTINGS

# What a formula raises where a shape is unknown, or not of the rank that it needs.
_NO_SHAPE = (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError)


@dataclass
class Totals:
    """The cost of a network; see :func:`count` for the units."""

    flops: int = 0
    parameters: int = 0
    memory_access: int = 0
    #: Operator to the FLOPs of all of its kind; kinds without any are left out.
    flops_by_operator: Counter[str] = field(default_factory=Counter)
    #: The operators that could not be counted: a shape is unknown, or they run graphs of their own.
    uncounted: list[str] = field(default_factory=list)


def check_counting(counting: str) -> None:
    """Raises unless there is such a convention."""
    if counting not in COUNTINGS:
        raise ValueError(
            f"Expected 'counting' to be among {', '.join(map(repr, COUNTINGS))} (got {counting!r})"
        )


def count(graph: Graph, counting: str = "standard") -> Totals:
    r"""Counts the cost of one run of a network.

    ============== ============================================ ===================================
    convention     :obj:`"standard"`                            :obj:`"nnlqp"`
    ============== ============================================ ===================================
    FLOPs          2 per multiply-accumulate of convolutions,   the paper's data set: additions of
                   matrix products, recurrent layers and        bias and elements count, operators
                   attention, whole batch, as                   partly per image, partly per batch
                   :mod:`torch.utils.flop_counter` counts
    parameters     elements of the weights, each once, without  the weights of each operator,
                   running statistics, as torch counts          statistics of batch norm included
    memory access  bytes that operators read and write          elements of outputs and parameters
    ============== ============================================ ===================================

    Args:
        graph (Graph): The graph with its shapes.
        counting (str, optional): The convention. (default: :obj:`"standard"`)

    Raises:
        ValueError: If there is no such convention.
    """
    check_counting(counting)
    return _count_nnlqp(graph) if counting == "nnlqp" else _count_standard(graph)


def _count_standard(graph: Graph) -> Totals:
    totals = Totals()
    parameters: dict[str, None] = {}
    for node in graph.nodes:
        # Of a body, which operators run, and how often, is not known; of others nothing is.
        if node.has_body or node.domain == "aten":
            totals.uncounted.append(str(node))
            continue
        try:
            macs = multiply_accumulates(graph, node)
            totals.memory_access += bytes_moved(graph, node)
            totals.flops_by_operator[node.operator] += 2 * macs
        except _NO_SHAPE:
            totals.uncounted.append(str(node))
        parameters.update(dict.fromkeys(parameter_names(graph, node)))
    _sum_flops(totals)
    totals.parameters = sum(max(0, num_elements(graph.type_of(name).dims)) for name in parameters)
    return totals


def _count_nnlqp(graph: Graph) -> Totals:
    totals = Totals()
    for node in graph.nodes:
        if node.has_body:
            totals.uncounted.append(str(node))
            continue
        try:
            flops, parameters, accessed = count_nnlqp_node(graph, node)
        except _NO_SHAPE:
            totals.uncounted.append(str(node))
            continue
        totals.flops_by_operator[node.operator] += flops
        totals.parameters += parameters
        totals.memory_access += accessed
    _sum_flops(totals)
    return totals


def _sum_flops(totals: Totals) -> None:
    totals.flops_by_operator = +totals.flops_by_operator
    totals.flops = totals.flops_by_operator.total()
