"""What every exporter and runtime does before a network is deployed.

Batch normalisation becomes a part of the convolution before it, and equal operators on the same
input run once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from narformer_pyg.convert.onnx_model.fold import renamed
from narformer_pyg.convert.onnx_model.graph import Constant, Graph, Node

_FOLDED_INTO = ("Conv", "ConvTranspose", "Gemm")


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
