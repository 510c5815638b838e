"""Step 6: one form for computations that exporters write in several ways.

The two exporters of torch agree on most operators. Where they do not, and the same numbers come
out, the shorter or more telling form is taken, so that a network has one graph:

- a Slice, Reshape, Flatten, Expand or Concat that changes nothing is left out;
- Reshape, Transpose and Reshape that swap the last two dimensions are one Transpose;
- of Reshapes in a row, the last one is left; a Gather of all elements in order is one, too;
- a Reshape that joins all dimensions behind the batch is a Flatten;
- a ReduceMean over all spatial dimensions, which stay as ones, is a GlobalAveragePool;
- a Gemm that adds nothing is a MatMul;
- Slices that cut a tensor into equal parts are a Split;
- a Concat that only another one reads, along the same dimension, is a part of that.

Costs are those of the operators as they were. The paper's vocabulary takes them as they are, too,
as the authors' release does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from narformer_pyg.convert.onnx_model.fold import remove_dead, renamed
from narformer_pyg.convert.onnx_model.graph import Graph, Node
from narformer_pyg.convert.onnx_model.slots import axes_of

_VIEWS = ("Reshape", "Flatten")


def canonical(graph: Graph) -> Graph:
    r"""Returns a graph in which equal computations have equal operators; see the module.

    Args:
        graph (Graph): The folded graph, sorted, with its shapes. It is not changed.
    """
    out = graph.copy()
    out.nodes = _split(graph)
    captured = {name for node in out.nodes for name in node.captured}
    producer: dict[str, Node] = {}
    same: dict[str, str] = {}
    kept = []
    for node in out.nodes:
        node = renamed(node, same) if same else node
        if not node.domain and node.inputs:
            node = _rewritten(graph, node, producer)
            if node.outputs[0] not in captured and _changes_nothing(graph, node):
                same[node.outputs[0]] = node.inputs[0]
                continue
        producer.update(dict.fromkeys(node.outputs, node))
        kept.append(node)
    out.outputs = [same.get(name, name) for name in graph.outputs]
    out.nodes = _joined(graph, kept, out.outputs)
    remove_dead(out)
    return out if out.nodes else graph


def _changes_nothing(graph: Graph, node: Node) -> bool:
    if node.op_type == "Concat":
        return len(node.inputs) == 1
    if node.op_type not in (*_VIEWS, "Slice", "Expand"):
        return False
    before, after = graph.dims(node.inputs[0]), graph.dims(node.outputs[0])
    if before is None or before != after:
        return False
    if node.op_type == "Slice":
        bounds = _slice(graph, node)
        return bounds is not None and all(step > 0 for *_, step in bounds)
    return True


def _gathers_all(graph: Graph, node: Node) -> bool:
    """Whether a Gather takes all elements of a vector in their order, into any shape."""
    if node.op_type != "Gather":
        return False
    dims, indices = graph.dims(node.inputs[0]), graph.value(node.input(1))
    return (
        dims is not None
        and len(dims) == 1
        and indices is not None
        and np.array_equal(indices.ravel(), np.arange(dims[0]))
    )


def _swapped(graph: Graph, node: Node, producer: dict[str, Node]) -> Node | None:
    """Returns the Transpose that a Reshape, the Transpose before and the Reshape before it are."""
    turn = producer.get(node.inputs[0])
    if turn is None or turn.op_type != "Transpose" or turn.attributes.get("perm") != [0, 2, 1]:
        return None
    joined = producer.get(turn.inputs[0])
    if joined is None or joined.op_type not in _VIEWS or joined.domain:
        return None
    before, after = graph.dims(joined.inputs[0]), graph.dims(node.outputs[0])
    if not before or not after or len(before) < 4:
        return None
    if after != (*before[:-2], before[-1], before[-2]):
        return None
    if graph.dims(joined.outputs[0]) != (int(np.prod(before[:-2])), *before[-2:]):
        return None
    rank = len(before)
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return _made(node, "Transpose", joined.inputs[:1], perm=perm)


def _rewritten(graph: Graph, node: Node, producer: dict[str, Node]) -> Node:
    if _gathers_all(graph, node):
        node = _made(node, "Reshape", [node.inputs[0], ""])
    if node.op_type in _VIEWS:
        source = producer.get(node.inputs[0])
        merged = node
        if source is not None and source.op_type in _VIEWS and not source.domain:
            merged = renamed(node, {node.inputs[0]: source.inputs[0]})
        if (swapped := _swapped(graph, node, producer)) is not None:
            return swapped
        before, after = graph.dims(merged.inputs[0]), graph.dims(node.outputs[0])
        if before and after and len(before) > 2 and len(after) == 2 and before[0] == after[0]:
            return _made(node, "Flatten", merged.inputs[:1], axis=1)
        return merged if node.op_type == "Reshape" else node  # the axis is one of this input
    elif node.op_type == "ReduceMean" and node.attributes.get("keepdims", 1):
        dims, axes = graph.dims(node.inputs[0]), axes_of(graph, node)
        # Of three dimensions, the last may be features, and the mean a part of a normalisation.
        if dims and len(dims) > 3 and axes and sorted(axes) == list(range(2, len(dims))):
            return _made(node, "GlobalAveragePool", node.inputs[:1])
    elif node.op_type == "Concat":
        filled = [name for name in node.inputs if 0 not in (graph.dims(name) or ())]
        if 0 < len(filled) < len(node.inputs):  # a roll by nothing cuts off nothing
            return _made(node, "Concat", filled, axis=node.attributes.get("axis", 1))
    elif node.op_type == "Gemm" and not node.input(2):
        stored = node.input(1) in graph.constants  # weights lie in memory as an exporter wants
        plain = node.attributes.get("alpha", 1.0) == 1.0 and not node.attributes.get("transA")
        if plain and (stored or not node.attributes.get("transB")):
            return _made(node, "MatMul", node.inputs[:2])
    return node


def _joined(graph: Graph, nodes: list[Node], outputs: list[str]) -> list[Node]:
    """Returns the nodes with one Concat for those that only write for another."""
    readers = Counter(outputs)
    readers.update(name for node in nodes for name in node.reads())
    joins: dict[str, tuple[Node, int]] = {}
    out = []
    for node in nodes:
        dims = graph.dims(node.outputs[0])
        if node.op_type == "Concat" and not node.domain and dims:
            axis = node.attributes.get("axis", 1) % len(dims)
            inputs = []
            for name in node.inputs:
                source, along = joins.get(name, (None, -1))
                alone = source is not None and along == axis and readers[name] == 1
                inputs += source.inputs if source is not None and alone else [name]
            if inputs != node.inputs:
                node = _made(node, "Concat", inputs, axis=axis)
            joins[node.outputs[0]] = node, axis
        out.append(node)
    return out


def _split(graph: Graph) -> list[Node]:
    """Returns the nodes with a Split for Slices that are equal parts of a tensor, in order."""
    parts: dict[tuple[str, int], list[tuple[int, int, int]]] = defaultdict(list)
    for i, node in enumerate(graph.nodes):
        if node.op_type == "Slice" and not node.domain:
            bounds = _slice(graph, node)
            if bounds and len(bounds) == 1 and bounds[0][3] == 1:
                axis, start, end, _ = bounds[0]
                parts[node.inputs[0], axis].append((start, end, i))
    out: list[Node | None] = list(graph.nodes)
    for (name, axis), slices in parts.items():
        slices.sort()
        length, rest = divmod(graph.dims(name)[axis], len(slices))  # type: ignore[index]
        equal = [(i * length, (i + 1) * length) for i in range(len(slices))]
        if len(slices) < 2 or rest or [part[:2] for part in slices] != equal:
            continue
        places = [place for *_, place in slices]
        outputs = [graph.nodes[place].outputs[0] for place in places]
        for place in places:
            out[place] = None
        first = min(places)
        out[first] = _made(graph.nodes[first], "Split", [name], outputs, axis=axis)
    return [node for node in out if node is not None]


def _slice(graph: Graph, node: Node) -> list[tuple[int, int, int, int]] | None:
    """Returns axis, start, end and step of a Slice, limits as they are in the tensor's numbers."""
    dims = graph.dims(node.inputs[0])
    given: list[Sequence[int] | None] = []
    for i, key in enumerate(("starts", "ends", "axes", "steps"), start=1):
        value = graph.value(node.input(i)) if node.input(i) else node.attributes.get(key)
        if node.input(i) and value is None:
            return None
        given.append(None if value is None else [int(v) for v in np.ravel(value)])
    starts, ends, axes, steps = given
    if dims is None or starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    if any(not -len(dims) <= axis < len(dims) for axis in axes):
        return None
    found = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not step:
            return None
        limits = slice(start, end, step).indices(dims[axis])
        found.append((axis % len(dims), *limits))
    return found


def _made(
    node: Node,
    op_type: str,
    inputs: list[str],
    outputs: list[str] | None = None,
    **attributes: Any,
) -> Node:
    """Returns another operator in the place of a node."""
    proto = onnx.helper.make_node(
        op_type, inputs, node.outputs if outputs is None else outputs, node.proto.name, **attributes
    )
    return Node(proto, node.index)
