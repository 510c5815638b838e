"""Step 8: from operators to the raw tokens of a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from narformer_pyg.convert.onnx_model.graph import Dims, Graph, Node
from narformer_pyg.convert.onnx_model.slots import UNKNOWN_NUMBER, read_slots
from narformer_pyg.vocabulary import NUM_OUTPUT_DIMS, NUM_SLOTS, OperatorVocabulary


@dataclass
class Tokens:
    """The node and edge tensors of a graph; see :func:`narformer_pyg.convert.from_onnx`."""

    op: Tensor
    attr: Tensor
    edge_index: Tensor
    #: The name behind each node: that of its output.
    names: list[str]


def tokenise(graph: Graph, vocabulary: OperatorVocabulary) -> Tokens:
    r"""Makes one node of every graph input that is used and of every operator.

    In the paper's vocabulary an operator with several outputs has one node for each, as in the
    authors' release.

    Args:
        graph (Graph): The graph, sorted, with its shapes.
        vocabulary (OperatorVocabulary): The ids and slots of the operators.
    """
    per_output = vocabulary.name == "nnlqp"
    op: list[int] = []
    attr: list[list[float]] = []
    names: list[str] = []
    edges: set[tuple[int, int]] = set()
    node_of: dict[str, int] = {}
    read = {name for node in graph.nodes for name in node.reads()}
    for name, type_ in graph.inputs.items():
        if name in read:
            node_of[name] = len(op)
            op.append(vocabulary.input_id)
            attr.append([0.0] * NUM_SLOTS + output_dims(type_.dims, per_output))
            names.append(name)
    for node in graph.nodes:
        number = vocabulary.id_of(node.op_type, node.domain)
        slots = read_slots(graph, node, vocabulary.slots[number])
        slots += [0.0] * (NUM_SLOTS - len(slots))
        sources = {node_of[name] for name in node.reads() if name in node_of}
        for group in _outputs(node, per_output):
            target = len(op)
            node_of.update(dict.fromkeys(group, target))
            edges.update((source, target) for source in sources)
            op.append(number)
            attr.append(slots + output_dims(graph.type_of(group[0]).dims, per_output))
            names.append(group[0])
    ordered = sorted(edges, key=lambda edge: (edge[1], edge[0]))
    return Tokens(
        torch.tensor(op, dtype=torch.long),
        torch.tensor(attr, dtype=torch.float).view(len(op), NUM_SLOTS + NUM_OUTPUT_DIMS),
        torch.tensor(ordered, dtype=torch.long).view(-1, 2).t().contiguous(),
        names,
    )


def output_dims(dims: Dims | None, first_only: bool = False) -> list[float]:
    r"""Returns four numbers for the dimensions of an output.

    Dimensions that are not there are 0, unknown ones are -1. Of more than four, the last number is
    the product of all that do not fit, so that the size of the tensor is not lost.

    Args:
        dims (tuple of int or None): The dimensions.
        first_only (bool, optional): Whether to drop what does not fit instead, as in the paper.
            (default: :obj:`False`)
    """
    if dims is None:
        return [UNKNOWN_NUMBER] * NUM_OUTPUT_DIMS
    known = [UNKNOWN_NUMBER if d is None else float(d) for d in dims]
    if len(known) > NUM_OUTPUT_DIMS and not first_only:
        rest = known[NUM_OUTPUT_DIMS - 1 :]
        last = UNKNOWN_NUMBER if UNKNOWN_NUMBER in rest else math.prod(rest)
        known = [*known[: NUM_OUTPUT_DIMS - 1], last]
    return (known + [0.0] * NUM_OUTPUT_DIMS)[:NUM_OUTPUT_DIMS]


def _outputs(node: Node, per_output: bool) -> list[list[str]]:
    """Returns the tensors that each graph node of an operator stands for."""
    names = [name for name in node.outputs if name]
    return [[name] for name in names] if per_output else [names]
