"""Checks that shapes fit together, which onnx's inference does not do.

An exporter that was given one batch size writes it into the constants of Reshape, and onnx infers
shapes from these without comparing them with what arrives.
"""

from __future__ import annotations

import math
from fractions import Fraction

from narformer_pyg.convert.onnx_model.graph import Graph, Node

_SAME_ELEMENTS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast")
_BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Greater", "Less",
    "Where",
)  # fmt: skip


def misfit(graph: Graph) -> str | None:
    """Describes the first operator whose inputs and outputs do not fit together."""
    for node in graph.nodes:
        problem = None if node.domain else _misfit(graph, node)
        if problem is not None:
            return f"{node} {problem}"
    return None


def misscaled(before: Graph, after: Graph, ratio: Fraction) -> str | None:
    r"""Returns the first tensor that does not grow with the batch.

    Args:
        before (Graph): The shapes with the old batch size.
        after (Graph): Those with the new one.
        ratio (Fraction): The new batch size over the old one.
    """
    for node in after.nodes:
        for name in node.outputs:
            old, new = before.dims(name), after.dims(name)
            if not name or old is None or new is None:
                continue
            if math.prod(new) not in (math.prod(old), ratio * math.prod(old)):
                return f"{node} gives {list(new)} where it gave {list(old)}"
    return None


def _misfit(graph: Graph, node: Node) -> str | None:
    dims = [graph.dims(name) for name in node.inputs]
    out = graph.dims(node.outputs[0])
    first = dims[0] if dims else None
    if first is None:
        return None
    if node.op_type in _SAME_ELEMENTS and out is not None and math.prod(first) != math.prod(out):
        return f"cannot make {list(out)} of {list(first)}"
    second = dims[1] if len(dims) > 1 else None
    if second is None:
        return None
    if node.op_type == "Gemm" and len(first) == len(second) == 2:
        a = first[0 if node.attributes.get("transA") else 1]
        b = second[1 if node.attributes.get("transB") else 0]
        if a != b:
            return f"cannot multiply {list(first)} by {list(second)}"
    if (
        node.op_type == "MatMul"
        and len(first) > 1
        and len(second) > 1
        and (first[-1] != second[-2] or not _fits(first[:-2], second[:-2]))
    ):
        return f"cannot multiply {list(first)} by {list(second)}"
    if node.op_type in ("Conv", "BatchNormalization") and (len(first) < 2 or not second):
        return f"cannot apply {node.op_type} to {list(first)} and {list(second)}"
    if node.op_type == "Conv" and len(second) < 2:
        return f"cannot convolve {list(first)} with {list(second)}"
    if node.op_type == "Conv" and first[1] != second[1] * node.attributes.get("group", 1):
        return f"cannot convolve {list(first)} with {list(second)}"
    if node.op_type == "BatchNormalization" and len(first) > 1 and first[1] != second[0]:
        return f"cannot normalise {list(first)} with {second[0]} channels"
    if node.op_type in _BROADCAST and graph.opset >= 7 and not _fits(first, second):
        return f"cannot combine {list(first)} and {list(second)}"
    if node.op_type == "Concat":
        axis = node.attributes.get("axis", 1) % max(1, len(first))
        for other in dims[1:]:
            if other is not None and (
                len(other) != len(first)
                or any(
                    a != b for i, (a, b) in enumerate(zip(first, other, strict=True)) if i != axis
                )
            ):
                return f"cannot join {list(first)} and {list(other)} along axis {axis}"
    return None


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(a[::-1], b[::-1], strict=False))
