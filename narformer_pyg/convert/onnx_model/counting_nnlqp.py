"""FLOPs, parameters and memory access as the NNLQP data set defines them.

Facts of the data set's release (Liu et al., "NNLQP: A Multi-Platform Neural Network Latency Query
and Prediction System with An Evolving Database", ICPP 2022), its habits included: convolutions are
counted per image and element-wise operators per batch, the kernel of a global average is one
dimension wide, and operators outside of the 28 cost nothing, not even memory.
"""

from __future__ import annotations

import math

from narformer_pyg.convert.onnx_model.graph import Graph, Node
from narformer_pyg.vocabulary import get_vocabulary

_ELEMENT_WISE = ("Add", "Sigmoid", "Mul", "ReduceMean", "Pow", "Div", "Sub", "Sqrt", "Tanh")
# FLOPs of an interpolated element.
_INTERPOLATION = {"linear": 5, "bilinear": 11, "bicubic": 259, "cubic": 259, "trilinear": 31}


def count_nnlqp_node(graph: Graph, node: Node) -> tuple[int, int, int]:
    r"""Returns FLOPs, parameters and accessed elements of an operator.

    Raises:
        TypeError: If a shape that the formula needs is unknown.
        ValueError: If a shape is not of the rank that the operator asks for.
    """
    vocabulary = get_vocabulary("nnlqp")
    if vocabulary.id_of(node.op_type, node.domain) == vocabulary.unknown_id:
        return 0, 0, 0
    flops, parameters = _cost(graph, node)
    outputs = sum(math.prod(_dims(graph, name)) for name in node.outputs if name)
    return flops, parameters, outputs + parameters


def _cost(graph: Graph, node: Node) -> tuple[int, int]:
    op = node.op_type
    out = _dims(graph, node.outputs[0])
    bias = int(len(node.inputs) == 3)
    if op in ("Conv", "ConvTranspose"):
        weight = _dims(graph, node.input(1))
        per_output = math.prod(weight[1:])
        flops = math.prod(out[1:]) * (2 * per_output - 1 + bias)
        return flops, weight[0] * (per_output + bias)
    if op == "Gemm":
        weight = _dims(graph, node.input(1))[-2:]
        outputs, inputs = weight if node.attributes.get("transB") else weight[::-1]
        return outputs * (2 * inputs - 1 + bias), outputs * (inputs + bias)
    if op == "MatMul":
        rows, columns = out[-2:]
        return rows * columns * (2 * _dims(graph, node.input(0))[-1] - 1), 0
    if op in _ELEMENT_WISE:
        return math.prod(out), 0
    if op == "BatchNormalization":
        dims = _dims(graph, node.input(0))
        return 4 * math.prod(dims), 4 * dims[1]
    if op == "AveragePool":
        return math.prod(out[1:]) * math.prod(node.attributes["kernel_shape"]), 0
    if op == "GlobalAveragePool":
        return math.prod(out[1:]) * _dims(graph, node.input(0))[3] // out[3], 0
    if op == "Softmax":
        dims = _dims(graph, node.input(0))
        return 3 * (math.prod(dims) // dims[0]) - 1, 0
    if op == "Upsample":
        return math.prod(out[1:]) * _INTERPOLATION.get(node.attributes.get("mode", ""), 0), 0
    return 0, 0


def _dims(graph: Graph, name: str) -> tuple[int, ...]:
    dims = graph.dims(name)
    if dims is None:
        raise TypeError(f"the shape of {name!r} is unknown")
    return dims
