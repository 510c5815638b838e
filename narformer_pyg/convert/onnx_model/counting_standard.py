"""Multiply-accumulates, bytes moved and parameters of operators, as runtimes and torch count."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import TensorProto

from narformer_pyg.convert.onnx_model.graph import Graph, Node, element_bits, num_elements
from narformer_pyg.convert.onnx_model.sequence_slots import (
    head_size,
    key_length,
    num_heads,
    query_length,
)
from narformer_pyg.convert.onnx_model.slots import WEIGHT_INPUT

_CONVOLUTIONS = (
    "Conv", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv", "NhwcConv", "NhwcFusedConv",
)  # fmt: skip
_PRODUCTS = (
    "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "TransposeMatMul",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger16", "FusedMatMulActivation",
)  # fmt: skip
_GEMMS = ("Gemm", "FusedGemm", "QGemm", "GemmFastGelu", "GemmFloat8")
_RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
_ATTENTIONS = ("Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention")
# No data moves: the output is the input under other dimensions.
_VIEWS = (
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Shape", "Size",
    "Optional",
)  # fmt: skip
# Only as much of the first input is read as is written.
_PARTIAL = ("Gather", "GatherElements", "GatherND", "Slice")
# A single number at one of these is a factor or a limit, not a weight of one element.
_SCALING = ("Mul", "Div", "Sub", "Pow", "Mod", "Max", "Min", "Equal", "Greater", "Less")
# Inputs that are constants of the computation, not weights.
_NOT_PARAMETERS = {
    "BatchNormalization": (3, 4), "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2),
    "Pad": (2,), "Dropout": (1,), "OneHot": (1, 2), "QuantizeLinear": (1, 2), "Range": (0, 1, 2),
    "DequantizeLinear": (1, 2), "Pow": (1,), "Where": (0, 1, 2), "TopK": (1,),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3), "MatMulInteger": (2, 3), "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3), "QGemm": (1, 2, 4, 5, 7, 8), "MatMulNBits": (2, 3, 4),
    "QLinearAdd": (1, 2, 4, 5, 6, 7), "QLinearMul": (1, 2, 4, 5, 6, 7),
    "DynamicQuantizeLSTM": (4, 5, 6, 8, 9, 10, 11),
    # lengths and states that a sequence begins with
    "LSTM": (4, 5, 6), "GRU": (4, 5), "RNN": (4, 5),
}  # fmt: skip
_QUANTISED = (
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat",
    "DequantizeLinear", "DynamicQuantizeMatMul", "QGemm", "MatMulNBits", "DynamicQuantizeLSTM",
    "QAttention",
)  # fmt: skip
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def multiply_accumulates(graph: Graph, node: Node) -> int:
    r"""Returns the multiply-accumulates of an operator for the whole batch, without those of bias.

    Operators that are no product of matrices have none, as in :mod:`torch.utils.flop_counter`.

    Raises:
        TypeError: If a shape is unknown.
    """
    op = node.op_type
    if op in _CONVOLUTIONS:
        weight = _dims(graph, node.input(WEIGHT_INPUT.get(op, 1)))
        return math.prod(_dims(graph, node.outputs[0])) * math.prod(weight[1:])
    if op in ("ConvTranspose", "ConvTransposeWithDynamicPads"):
        weight = _dims(graph, node.input(1))
        return math.prod(_dims(graph, node.input(0))) * math.prod(weight[1:])
    if op in _GEMMS or op in _PRODUCTS:
        first = _dims(graph, node.input(0))
        transposed = node.attributes.get("transA") and len(first) > 1
        return math.prod(_dims(graph, node.outputs[0])) * first[-2 if transposed else -1]
    if op in ("MatMulNBits", "MatMulBnb4"):
        return math.prod(_dims(graph, node.outputs[0])) * node.attributes["K"]
    if op == "Einsum":
        return _einsum(graph, node)
    if op in _RECURRENT:
        sequence, batch = _dims(graph, node.input(0))[:2]  # or the other way round
        weights = math.prod(_dims(graph, node.input(1))) + math.prod(_dims(graph, node.input(2)))
        return sequence * batch * weights
    if op in _ATTENTIONS:
        return _attention(graph, node)
    return 0


def bytes_moved(graph: Graph, node: Node) -> int:
    r"""Returns the bytes that an operator reads and writes, its weights included.

    Raises:
        TypeError: If a shape is unknown.
    """
    if node.op_type in _VIEWS and not node.domain:
        return 0
    written = sum(_bytes(graph, name) for name in node.outputs if name)
    names = list(node.reads())
    if node.op_type in _PARTIAL and not node.domain:
        return 2 * written + sum(_bytes(graph, name) for name in names[1:])
    return written + sum(_bytes(graph, name) for name in names)


def parameter_names(graph: Graph, node: Node) -> Iterator[str]:
    r"""Yields the weights among the inputs of an operator.

    These are the constants of floating point, and of whole numbers where a quantised operator keeps
    its weights. Single numbers are part of the formula unless they are stored as weights, and
    running statistics of batch normalisation are buffers, as torch says.
    """
    skipped = _NOT_PARAMETERS.get(node.op_type, ())
    for i, name in enumerate(node.inputs):
        constant = graph.constants.get(name)
        if constant is None or i in skipped or constant.dims == ():
            continue
        is_single = num_elements(constant.dims) == 1
        if is_single and (not constant.is_initializer or node.op_type in _SCALING):
            continue
        if constant.dtype in _FLOATS or node.op_type in _QUANTISED:
            yield name


def _einsum(graph: Graph, node: Node) -> int:
    """Contracts the operands from left to right."""
    terms, _, out = node.attributes["equation"].replace(" ", "").partition("->")
    labels = terms.split(",")
    sizes: dict[str, int] = {}
    for i, name in enumerate(node.inputs):
        dims = _dims(graph, name)
        if "." in labels[i]:  # name the dimensions of the ellipsis by their place from the end
            n = len(dims) - len(labels[i].replace("...", ""))
            batch = "".join(chr(0x100 + n - k) for k in range(n))
            labels[i] = labels[i].replace("...", batch)
        for label, size in zip(labels[i], dims, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    kept_ellipsis = {label for term in labels for label in term if ord(label) > 0xFF}
    total, left = 0, set(labels[0])
    for i, term in enumerate(labels[1:], start=1):
        labels_here = left | set(term)
        total += math.prod(sizes[label] for label in labels_here)
        later = set("".join(labels[i + 1 :])) | set(out) | kept_ellipsis
        left = labels_here & later
    return total


def _attention(graph: Graph, node: Node) -> int:
    batch = _dims(graph, node.input(0))[0]
    heads, size = num_heads(graph, node), head_size(graph, node)
    queries, keys = query_length(graph, node), key_length(graph, node)
    value_size = size
    dims = graph.dims(node.input(2))
    if not node.domain and dims:
        value_heads = node.attributes.get("kv_num_heads") or heads
        value_size = dims[-1] if len(dims) == 4 else dims[-1] // value_heads  # type: ignore[operator]
    macs = batch * heads * queries * keys * (size + value_size)  # type: ignore[operator]
    if node.domain and node.op_type in ("Attention", "QAttention"):  # projects its input, too
        weight = _dims(graph, node.input(1))
        macs += math.prod(_dims(graph, node.input(0))) * weight[1]
    return macs


def _bytes(graph: Graph, name: str) -> int:
    type_ = graph.type_of(name)
    elements = num_elements(type_.dims)
    if elements < 0:
        raise TypeError(f"the shape of {name!r} is unknown")
    return -(-elements * element_bits(type_.dtype) // 8)


def _dims(graph: Graph, name: str) -> tuple[int, ...]:
    dims = graph.dims(name)
    if dims is None:
        raise TypeError(f"the shape of {name!r} is unknown")
    return dims
