r"""The definition slots of operators: the numbers in :obj:`data.attr[:, :8]`.

Which slots an operator has is in its vocabulary (:obj:`OperatorVocabulary.slots`); what each means
is below. A slot that an operator does not have is 0 in the graph and has an all-zero code; -1 is a
number that is not known. Attributes that are left out have ONNX's default.

====================== =============================================================================
slot                   meaning
====================== =============================================================================
kernel, kernel_last    size of the window along the first and the last spatial dimension
stride, dilation       along the first spatial dimension
pad, pad_attribute,    the first number of the attribute; the padding that :obj:`auto_pad` implies
output_padding         is computed, that of :obj:`pad_attribute` is 0
group                  groups of a convolution
bias                   1 if there is a bias (of normalisations: a shift)
ceil_mode,             attributes of pooling
count_include_pad,
norm_order             :obj:`p` of a norm
contracted             length of the dimension that a matrix product sums over
trans_a, trans_b       1 if an operand is transposed
constant_operands      inputs that do not depend on the graph's inputs
operand_size           elements of the smallest input (of quantisation: of the scale)
operand_rank           rank of the second input
bits, block_size       of blockwise quantised weights; :obj:`block_size` of DepthToSpace, too
hidden_size,           of recurrent layers; :obj:`layout` is 1 where the batch comes first
input_size,
num_directions,
sequence_length,
linear_before_reset,
layout
num_heads,             of attention; the head size is the queries', lengths are of queries and keys,
num_kv_heads,          and :obj:`has_mask` and :obj:`has_past` say whether there is such an input
head_size, causal,
query_length,
key_length, has_mask,
has_past
axis, first_axis       the (first) axis that is worked along, counted from the front
num_axes               how many axes
axis_size              length of the axis :obj:`axis`
normalized_size        elements that are normalised together
num_groups, window     groups of GroupNormalization, :obj:`size` of LRN
keepdims, reduced_size of reductions: elements that become one
num_inputs,            inputs and outputs that are present
num_outputs
perm_0 ... perm_7      permutation of Transpose
input_rank             rank of the first input
step                   first step of Slice
mode                   interpolation or padding: 0 nearest / constant, 1 linear / reflect,
                       2 cubic / edge, 3 wrap, 4 another
scale, scale_first     output size over input size along the last and the first spatial dimension
num_padded_axes,       of Pad: axes that change, elements that are added
padded_elements
index_elements         elements of the indices
batch_dims             attribute of GatherND
rows                   length of the axis that is gathered from
k                      of TopK and mixtures of experts
to                     element type that is cast to, a number of :class:`onnx.TensorProto`
body_nodes             operators in the subgraphs
====================== =============================================================================
"""

from __future__ import annotations

import math

import numpy as np

from narformer_pyg.convert.onnx_model.graph import Graph, Node
from narformer_pyg.convert.onnx_model.sequence_slots import SEQUENCE_READERS, Reader

#: What stands for a number that is not known.
UNKNOWN_NUMBER = -1.0

_MODES = {
    "nearest": 0, "constant": 0, "linear": 1, "bilinear": 1, "reflect": 1, "avg": 0, "max": 1,
    "cubic": 2, "bicubic": 2, "edge": 2, "wrap": 3, "DCR": 0, "CRD": 1,
}  # fmt: skip
# Where the weights and the bias of an operator are among its inputs.
WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
_BIAS_INPUT = {
    "QLinearConv": 8, "QGemm": 6, "LSTM": 3, "GRU": 3, "RNN": 3, "DynamicQuantizeLSTM": 3,
    "SkipLayerNormalization": 3, "EmbedLayerNormalization": 6, "MatMulIntegerToFloat": 6,
    "DynamicQuantizeMatMul": 4, "MatMulNBits": 5, "ConvInteger": 99, "MatMul": 99, "DeformConv": 3,
    "RMSNormalization": 99, "SkipSimplifiedLayerNormalization": 99, "CausalConvWithState": 2,
}  # fmt: skip


def read_slots(graph: Graph, node: Node, names: tuple[str, ...]) -> list[float]:
    """Returns the numbers of a node's definition slots; :obj:`UNKNOWN_NUMBER` where unknown."""
    out = []
    for name in names:
        try:
            value = READERS[name](graph, node)
            number = UNKNOWN_NUMBER if value is None else float(value)
        except (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError):
            number = (
                UNKNOWN_NUMBER  # a shape is unknown, or a rank is not what the operator asks for
            )
        out.append(number if math.isfinite(number) else UNKNOWN_NUMBER)
    return out


def window(graph: Graph, node: Node) -> list[int]:
    """Returns the kernel size of a convolution or pooling operator, an empty list if unknown."""
    kernel = node.attributes.get("kernel_shape")
    if kernel:
        return list(kernel)
    if node.op_type == "Col2Im":
        value = graph.value(node.input(2))
        return [] if value is None else [int(v) for v in value]
    dims = graph.dims(node.input(WEIGHT_INPUT.get(node.op_type, 1)))
    return list(dims[2:]) if dims and "Conv" in node.op_type else []


def normalized_axis(axis: int, rank: int) -> int:
    """Returns an axis counted from the front."""
    return axis + rank if axis < 0 else axis


def axes_of(graph: Graph, node: Node) -> list[int] | None:
    """Returns the axes of an operator that takes several, wherever its opset keeps them."""
    rank = len(graph.dims(node.input(0)) or ())
    axes = node.attributes.get("axes")
    position = 3 if node.op_type == "Slice" else 1
    if axes is None and node.op_type in ("ArgMax", "ArgMin"):
        axes = [node.attributes.get("axis", 0)]
    elif axes is None and node.op_type.endswith(("GlobalAveragePool", "GlobalMaxPool")):
        axes = list(range(2, rank))
    elif axes is None and node.input(position) and node.op_type not in ("Reshape", "Expand"):
        value = graph.value(node.input(position))
        if value is None:
            return None
        axes = [int(v) for v in np.asarray(value).ravel()]
    if node.op_type == "Flatten":
        axes = [node.attributes.get("axis", 1)]
    if axes is None and node.op_type in ("Reshape", "Expand", "Tile"):
        before, after = graph.dims(node.input(0)), graph.dims(node.outputs[0])
        if before is None or after is None:
            return None
        pairs = zip(before, after, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))
        return list(range(first, max(len(before), len(after))))
    if axes is None:  # all of them
        starts = node.attributes.get("starts")
        axes = list(range(len(starts) if node.op_type == "Slice" and starts else rank))
    if node.op_type == "Unsqueeze":
        rank = len(graph.dims(node.outputs[0]) or ())
    return [normalized_axis(a, rank) for a in axes]


def _attribute(name: str, default: float) -> Reader:
    return lambda graph, node: node.attributes.get(name, default)


def _first(name: str, default: float) -> Reader:
    def read(graph: Graph, node: Node) -> float:
        value = node.attributes.get(name)
        return value[0] if value else default

    return read


def _kernel(graph: Graph, node: Node) -> float | None:
    kernel = window(graph, node)
    return kernel[0] if kernel else None


def _kernel_last(graph: Graph, node: Node) -> float | None:
    kernel = window(graph, node)
    return kernel[-1] if kernel else None


def _pad(graph: Graph, node: Node) -> float | None:
    pads = node.attributes.get("pads")
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if pads or automatic not in ("SAME_UPPER", "SAME_LOWER"):
        return pads[0] if pads else 0
    size, out = graph.dims(node.input(0)), graph.dims(node.outputs[0])
    kernel = window(graph, node)
    if size is None or out is None or not kernel:
        return None
    stride = (node.attributes.get("strides") or [1])[0]
    dilation = (node.attributes.get("dilations") or [1])[0]
    total = max(0, (out[2] - 1) * stride + (kernel[0] - 1) * dilation + 1 - size[2])
    return total // 2 if automatic == "SAME_UPPER" else total - total // 2


def _bias(graph: Graph, node: Node) -> float:
    return float(bool(node.input(_BIAS_INPUT.get(node.op_type, 2))))


def _contracted(graph: Graph, node: Node) -> float | None:
    if node.op_type == "Einsum":
        terms, _, out = node.attributes["equation"].replace(" ", "").partition("->")
        sizes: dict[str, int] = {}
        for term, name in zip(terms.split(","), node.inputs, strict=True):
            sizes.update(zip(term, graph.dims(name) or (), strict=True))
        return math.prod(size for label, size in sizes.items() if label not in out)
    if node.op_type in ("MatMulNBits", "MatMulBnb4"):
        return node.attributes.get("K")
    dims = graph.dims(node.input(0))
    if not dims:
        return None
    return dims[-2 if node.attributes.get("transA") and len(dims) > 1 else -1]


def _constant_operands(graph: Graph, node: Node) -> float:
    return sum(name in graph.constants for name in node.inputs)


def _operand_size(graph: Graph, node: Node) -> float | None:
    if "uantize" in node.op_type:
        return math.prod(graph.dims(node.input(1)) or ())
    sizes = [math.prod(graph.dims(name) or ()) for name in node.inputs if name]
    return min(sizes) if all(graph.dims(n) is not None for n in node.inputs if n) else None


def _rank(position: int) -> Reader:
    def read(graph: Graph, node: Node) -> float | None:
        dims = graph.dims(node.input(position))
        return None if dims is None else len(dims)

    return read


def _axis(graph: Graph, node: Node) -> float | None:
    dims = graph.dims(node.input(0))
    default = 1
    if node.op_type in ("LayerNormalization", "RMSNormalization", "LpNormalization", "TopK"):
        default = -1
    elif node.op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        default = -1 if graph.opset >= 13 else 1
    elif node.op_type in ("Gather", "GatherElements", "ScatterElements", "Scatter", "Split"):
        default = 0
    if node.op_type == "Unique" and "axis" not in node.attributes:
        return 0
    return (
        None if dims is None else normalized_axis(node.attributes.get("axis", default), len(dims))
    )


def _axis_size(graph: Graph, node: Node) -> float | None:
    axis = _axis(graph, node)
    dims = graph.dims(node.outputs[0] if node.op_type == "Concat" else node.input(0))
    return None if axis is None or dims is None else dims[int(axis)]


def _normalized_size(graph: Graph, node: Node) -> float | None:
    dims = graph.dims(node.input(0))
    if dims is None:
        return None
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        return math.prod(dims[normalized_axis(node.attributes.get("axis", -1), len(dims)) :])
    if node.op_type == "BatchNormalization":
        return math.prod(dims) // dims[1]
    if node.op_type == "InstanceNormalization":
        return math.prod(dims[2:])
    if node.op_type == "GroupNormalization":
        return math.prod(dims[1:]) // node.attributes["num_groups"]
    return dims[-1]


def _reduced_size(graph: Graph, node: Node) -> float | None:
    dims, axes = graph.dims(node.input(0)), axes_of(graph, node)
    return None if dims is None or axes is None else math.prod(dims[a] for a in axes)


def _first_axis(graph: Graph, node: Node) -> float | None:
    axes = axes_of(graph, node)
    return None if axes is None else min(axes, default=0)


def _num_axes(graph: Graph, node: Node) -> float | None:
    axes = axes_of(graph, node)
    return None if axes is None else len(axes)


def _perm(i: int) -> Reader:
    def read(graph: Graph, node: Node) -> float:
        dims = graph.dims(node.input(0))
        perm = node.attributes.get("perm") or list(range(len(dims or ())))[::-1]
        return perm[i] if i < len(perm) else 0

    return read


def _step(graph: Graph, node: Node) -> float | None:
    if not node.input(4):
        return 1
    value = graph.value(node.input(4))
    return None if value is None else abs(float(np.asarray(value).ravel()[0]))


def _padding(graph: Graph, node: Node) -> list[int] | None:
    pads = node.attributes.get("pads") or node.attributes.get("paddings")
    if pads is None:
        value = graph.value(node.input(1))
        pads = None if value is None else [int(v) for v in np.asarray(value).ravel()]
    return pads


def _num_padded_axes(graph: Graph, node: Node) -> float | None:
    pads = _padding(graph, node)
    if pads is None:
        return None
    half = len(pads) // 2
    return sum(bool(a or b) for a, b in zip(pads[:half], pads[half:], strict=True))


def _padded_elements(graph: Graph, node: Node) -> float | None:
    before, after = graph.dims(node.input(0)), graph.dims(node.outputs[0])
    return None if before is None or after is None else math.prod(after) - math.prod(before)


def _index_elements(graph: Graph, node: Node) -> float | None:
    dims = graph.dims(node.input(0 if node.op_type == "OneHot" else 1))
    return None if dims is None else math.prod(dims)


def _k(graph: Graph, node: Node) -> float | None:
    if node.op_type != "TopK":
        return node.attributes.get("k", 1)
    value = graph.value(node.input(1))
    return node.attributes.get("k") if value is None else float(np.asarray(value).ravel()[0])


def _mode(graph: Graph, node: Node) -> float:
    return _MODES.get(node.attributes.get("mode", "constant"), 4)


def _scale(i: int) -> Reader:
    def read(graph: Graph, node: Node) -> float | None:
        before, after = graph.dims(node.input(0)), graph.dims(node.outputs[0])
        return None if before is None or after is None else after[i] / before[i]

    return read


def _block_size(graph: Graph, node: Node) -> float:
    return node.attributes.get("blocksize") or node.attributes.get("block_size", 0)


def _to(graph: Graph, node: Node) -> float:
    return node.attributes.get("to") or graph.type_of(node.outputs[0]).dtype


def _body_nodes(graph: Graph, node: Node) -> float:
    return sum(len(a.g.node) for a in node.proto.attribute if a.HasField("g"))


#: Slot to the function that reads it.
READERS: dict[str, Reader] = {
    "kernel": _kernel,
    "kernel_last": _kernel_last,
    "stride": _first("strides", 1),
    "dilation": _first("dilations", 1),
    "pad": _pad,
    "pad_attribute": _first("pads", 0),
    "output_padding": _first("output_padding", 0),
    "group": _attribute("group", 1),
    "bias": _bias,
    "ceil_mode": _attribute("ceil_mode", 0),
    "count_include_pad": _attribute("count_include_pad", 0),
    "norm_order": lambda graph, node: node.attributes.get("p", 2) if "Lp" in node.op_type else 0,
    "contracted": _contracted,
    "trans_a": _attribute("transA", 0),
    "trans_b": _attribute("transB", 0),
    "constant_operands": _constant_operands,
    "operand_size": _operand_size,
    "operand_rank": _rank(1),
    "bits": _attribute("bits", 0),
    "block_size": _block_size,
    **SEQUENCE_READERS,
    "axis": _axis,
    "axis_size": _axis_size,
    "first_axis": _first_axis,
    "num_axes": _num_axes,
    "normalized_size": _normalized_size,
    "num_groups": _attribute("num_groups", 0),
    "window": _attribute("size", 0),
    "keepdims": _attribute("keepdims", 1),
    "reduced_size": _reduced_size,
    "num_inputs": lambda graph, node: sum(bool(name) for name in node.inputs),
    "num_outputs": lambda graph, node: sum(bool(name) for name in node.outputs),
    **{f"perm_{i}": _perm(i) for i in range(8)},
    "input_rank": _rank(0),
    "step": _step,
    "mode": _mode,
    "scale": _scale(-1),
    "scale_first": _scale(2),
    "num_padded_axes": _num_padded_axes,
    "padded_elements": _padded_elements,
    "index_elements": _index_elements,
    "batch_dims": _attribute("batch_dims", 0),
    "rows": lambda graph, node: _axis_size(graph, node),
    "k": _k,
    "to": _to,
    "body_nodes": _body_nodes,
}
