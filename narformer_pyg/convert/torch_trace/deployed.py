"""What every exporter and runtime does before a network is deployed.

Batch normalisation and padding with zeros become a part of the convolution beside them, sums with
zero and products with one are gone, and equal operators on the same input run once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx

from narformer_pyg.convert.onnx_model.fold import renamed
from narformer_pyg.convert.onnx_model.graph import Constant, Graph, Node

_NEUTRAL = {"Add": 0, "Mul": 1}
_FOLDED_INTO = ("Conv", "ConvTranspose", "Gemm")


def as_deployed(graph: Graph) -> None:
    r"""Changes a graph of what PyTorch runs to that of what a runtime does.

    Args:
        graph (Graph): The graph, sorted, which is changed.
    """
    drop_neutral(graph)
    fold_batch_norms(graph)
    fold_pads(graph)
    merge_equal(graph)


def drop_neutral(graph: Graph) -> None:
    """Leaves out sums with the number zero and products with the number one."""
    same: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node = renamed(node, same) if same else node
        neutral = _NEUTRAL.get(node.op_type)
        for name, other in zip(node.inputs, node.inputs[::-1], strict=True):
            value = graph.value(name)
            if (
                neutral is not None
                and value is not None
                and value.size == 1
                and value.item() == neutral
                and graph.type_of(other) == graph.type_of(node.outputs[0])
            ):
                same[node.outputs[0]] = other
                break
        else:
            kept.append(node)
    graph.nodes = kept
    graph.outputs = list(dict.fromkeys(same.get(name, name) for name in graph.outputs))


def fold_pads(graph: Graph) -> None:
    """Makes padding with zeros a part of the convolution that alone reads it."""
    readers = Counter(graph.outputs)
    readers.update(name for node in graph.nodes for name in node.reads())
    pads = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.op_type == "Pad" and node.attributes.get("mode") == "constant"
    }
    folded = set()
    for i, node in enumerate(graph.nodes):
        pad = pads.get(node.input(0)) if node.op_type == "Conv" else None
        if pad is None or readers[node.inputs[0]] != 1 or pad.input(2):
            continue
        amounts = graph.value(pad.input(1))
        rank = len(graph.dims(node.inputs[0]) or ())
        before, after = np.split(amounts, 2) if amounts is not None else ([1], [1])
        if any(before[:2]) or any(after[:2]) or min(*before, *after) < 0:
            continue
        inner = np.concatenate([before[2:], after[2:]]) + np.asarray(
            node.attributes.get("pads") or [0] * (2 * rank - 4)
        )
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        del proto.attribute[:]
        attributes = {**node.attributes, "pads": inner.tolist()}
        proto.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())
        graph.nodes[i] = Node(proto, node.index)
        graph.nodes[i].inputs = [pad.inputs[0], *node.inputs[1:]]
        folded.add(pad.outputs[0])
    graph.nodes = [node for node in graph.nodes if node.outputs[0] not in folded]


def merge_equal(graph: Graph) -> None:
    r"""Leaves one of operators that compute the same from the same tensors.

    Args:
        graph (Graph): The graph, sorted, which is changed.
    """
    first: dict[tuple[Any, ...], Node] = {}
    same: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node = renamed(node, same) if same else node
        if node.domain or node.op_type.startswith("Random"):
            kept.append(node)
            continue
        read = tuple(_identity(graph, name) for name in node.inputs)
        attributes = tuple((a.name, a.SerializeToString()) for a in node.proto.attribute)
        earlier = first.setdefault((node.op_type, read, attributes, len(node.outputs)), node)
        if earlier is node or graph.type_of(earlier.outputs[0]) != graph.type_of(node.outputs[0]):
            kept.append(node)
        else:
            same.update(zip(node.outputs, earlier.outputs, strict=True))
    graph.nodes = kept
    graph.outputs = list(dict.fromkeys(same.get(name, name) for name in graph.outputs))


def _identity(graph: Graph, name: str) -> Any:
    """What two inputs have in common if they are equal: a name, or the value of a constant."""
    value = graph.value(name)
    constant = graph.constants.get(name)
    if value is None or constant is None or constant.is_initializer:
        return name
    return value.tobytes(), value.shape, str(value.dtype)


def fold_batch_norms(graph: Graph) -> None:
    r"""Removes every BatchNormalization that a runtime folds into the weights before it.

    Args:
        graph (Graph): The graph, sorted, which is changed.
    """
    readers = Counter(graph.outputs)
    readers.update(name for node in graph.nodes for name in node.reads())
    producer = {name: node for node in graph.nodes for name in node.outputs}
    same: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        source = producer.get(node.inputs[0]) if node.op_type == "BatchNormalization" else None
        if (
            source is not None
            and source.op_type in _FOLDED_INTO
            and readers[node.inputs[0]] == 1
            and source.input(1) in graph.constants
        ):
            same[node.outputs[0]] = node.inputs[0]
            if not source.input(2):  # what the norm adds is the bias
                name = f"{source.outputs[0]}.bias"
                dtype = graph.type_of(source.input(1)).dtype
                channels = (graph.dims(source.outputs[0]) or (0, 0))[1]
                graph.constants[name] = Constant((channels,), dtype, is_initializer=True)
                source.inputs = [*source.inputs[:2], name]
            continue
        kept.append(renamed(node, same) if same else node)
        producer.update(dict.fromkeys(kept[-1].outputs, kept[-1]))
    graph.nodes = kept
    graph.outputs = [same.get(name, name) for name in graph.outputs]
