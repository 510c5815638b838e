"""Step 5: the order of the data flow."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Sequence

import onnx.defs

from narformer_pyg.convert.onnx_model.graph import Graph, Node
from narformer_pyg.errors import ConversionError


def check_nodes(nodes: Sequence[Node], opset: int) -> None:
    r"""Checks that ONNX operators have their required inputs, outputs and attributes.

    Args:
        nodes (sequence of Node): The operators.
        opset (int): The version of ONNX's operators.

    Raises:
        ConversionError: If one lacks something.
    """
    for node in nodes:
        if not any(node.outputs):
            raise ConversionError(f"Expected every operator to have an output (got {node})")
        schema = None if node.domain else _schema(node.op_type, opset)
        if schema is None:
            continue
        num_inputs, optional, attributes = schema
        missing_inputs = [i for i in range(num_inputs) if not node.input(i) and i not in optional]
        if len(node.inputs) < num_inputs or missing_inputs:
            raise ConversionError(
                f"Expected {node} to have at least {num_inputs} inputs in opset {opset} "
                f"(got {node.inputs})"
            )
        missing = [name for name in attributes if name not in node.attributes]
        if missing:
            raise ConversionError(
                f"Expected {node} to have the attribute {missing[0]!r} in opset {opset} "
                f"(got {list(node.attributes)})"
            )


@functools.cache
def _schema(op_type: str, opset: int) -> tuple[int, frozenset[int], tuple[str, ...]] | None:
    """Returns the least number of inputs, which may be empty, and the required attributes."""
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except (onnx.defs.SchemaError, TypeError):
        return None  # newer than the installed onnx, or never an operator
    required = tuple(name for name, a in schema.attributes.items() if a.required)
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    # Those of a Loop are both optional, and have to be there as empty names.
    empty = frozenset(i for i, given in enumerate(schema.inputs) if given.option == optional)
    return schema.min_input, empty, required


def check_sources(graph: Graph) -> None:
    r"""Checks that every tensor read is an input, a constant or the output of an operator.

    Raises:
        ConversionError: If something comes from nowhere.
    """
    known = {*graph.inputs, *graph.constants, ""}
    known.update(name for node in graph.nodes for name in node.outputs)
    for node in graph.nodes:
        for name in node.reads():
            if name not in known:
                raise ConversionError(
                    f"Expected every tensor that is read to be an input, a weight or the output of "
                    f"an operator (got {name!r}, which {node} reads)"
                )


def sort_nodes(nodes: Sequence[Node]) -> list[Node]:
    r"""Returns the nodes in topological order, those of a sorted graph in the order they have.

    Raises:
        ConversionError: If nodes wait for each other, or two write the same tensor.
    """
    producer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.outputs:
            if not name:
                continue
            if name in producer:
                raise ConversionError(
                    f"Expected every tensor to have one producer (got {nodes[producer[name]]} and "
                    f"{node} for {name!r})"
                )
            producer[name] = i
    waiting = [0] * len(nodes)
    consumers: list[list[int]] = [[] for _ in nodes]
    is_sorted = True
    for i, node in enumerate(nodes):
        for source in {producer[name] for name in node.reads() if name in producer}:
            waiting[i] += 1
            consumers[source].append(i)
            is_sorted &= source < i
    if is_sorted:
        return list(nodes)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(nodes[i])
        for target in consumers[i]:
            waiting[target] -= 1
            if waiting[target] == 0:
                heapq.heappush(ready, target)
    if len(order) < len(nodes):
        cycle = [str(nodes[i]) for i, count in enumerate(waiting) if count > 0]
        raise ConversionError(
            f"Expected the graph to have no cycle (got {len(cycle)} operators that wait for each "
            f"other: {', '.join(cycle[:5])}{', ...' if len(cycle) > 5 else ''})"
        )
    return order
