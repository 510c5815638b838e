"""Step 3: shapes by onnx's own inference, the cheapest rung of the ladder."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx.shape_inference
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper

from narformer_pyg.convert.onnx_model.graph import (
    Constant,
    Graph,
    Node,
    TensorType,
    is_known,
    num_elements,
)
from narformer_pyg.convert.onnx_model.inputs import MAX_ELEMENTS
from narformer_pyg.errors import ConversionError

log = logging.getLogger(__name__)

#: The names of the rungs, cheapest first.
RUNGS = ("onnx", "declared", "onnxruntime")

MICROSOFT = "com.microsoft"
# onnx has no rules for the operators of ONNX Runtime. Many have the shapes of a standard operator
# on some of their inputs, so this one takes their place while shapes are inferred.
_SURROGATES: dict[str, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(("FusedConv", "NhwcConv", "NhwcFusedConv"), ("Conv", (0, 1))),
    **dict.fromkeys(("FusedGemm", "GemmFastGelu"), ("Gemm", (0, 1))),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Add", (0, 3)),
    "QLinearConv": ("QLinearConv", tuple(range(9))),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "NhwcMaxPool": ("MaxPool", (0,)),
    **dict.fromkeys(("BiasGelu", "FastGelu", "BiasAdd", "BiasSoftmax"), ("Add", (0, 1))),
    **dict.fromkeys(
        ("Gelu", "QuickGelu", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
         "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "GroupNorm",
         "QuantizeLinear", "DequantizeLinear", "RotaryEmbedding"),
        ("Identity", (0,)),
    ),
}  # fmt: skip
# These attributes change the shapes, so the standard operator would give a wrong one.
_CHANGING = ("transA", "transB", "transBatchA", "transBatchB", "channels_last")


def infer_with_onnx(graph: Graph) -> None:
    r"""Fills in what :func:`onnx.shape_inference.infer_shapes` knows; never raises for a node.

    Shapes that the file declares are not used: they may be those of another input.

    Raises:
        ConversionError: If a tensor has an impossible number of elements.
    """
    skeleton = _skeleton(graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception as error:  # an opset beyond the installed onnx, among others
        log.debug("onnx's shape inference failed: %s", error)
        return
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        add_type(graph, value.name, _tensor_type(value.type), "onnx")


def infer_node_with_onnx(graph: Graph, node: Node) -> None:
    r"""Fills in the shapes of one operator, if all of its inputs have theirs.

    Args:
        graph (Graph): The graph, whose types are filled in.
        node (Node): The operator.

    Raises:
        ConversionError: If a tensor has an impossible number of elements.
    """
    names = [name for name in node.reads() if name not in graph.constants]
    if any(graph.dims(name) is None for name in names):
        return
    inputs = {name: graph.type_of(name) for name in names}
    alone = Graph([node], inputs, node.outputs, graph.constants, graph.opsets)
    infer_with_onnx(alone)
    for name, found in alone.types.items():
        add_type(graph, name, found, "onnx")


def add_type(graph: Graph, name: str, found: TensorType, rung: str) -> None:
    """Notes what a rung has found about a tensor, unless as much is known already.

    Raises:
        ConversionError: If the tensor has an impossible number of elements.
    """
    if num_elements(found.dims) > MAX_ELEMENTS:
        raise ConversionError(
            f"Expected every tensor to have at most 2**40 elements (got {list(found.dims or ())} "
            f"for {name!r}); the input shapes or an attribute of its operator are wrong"
        )
    old = graph.types.get(name)
    if old is not None and is_known(old.dims):
        return
    if old is not None and found.dims is None:
        found = TensorType(old.dims, found.dtype or old.dtype)
    graph.types[name] = found
    if is_known(found.dims):
        graph.rungs[name] = rung


def use_declared(graph: Graph) -> None:
    """The second rung: the shapes that the file declares, for unchanged static inputs."""
    for name in graph.unknown():
        if name in graph.declared:
            add_type(graph, name, graph.declared[name], "declared")


def _skeleton(graph: Graph) -> ModelProto:
    """Returns a model of the same shapes without its weights, so that copies of it are cheap."""
    model = ModelProto(ir_version=10)
    for domain, version in graph.opsets.items():
        model.opset_import.add(domain=domain, version=version)
    out = model.graph
    out.name = "skeleton"
    used = {name for node in graph.nodes for name in node.reads()}
    for name in used:
        constant = graph.constants.get(name)
        if constant is not None and is_known(constant.dims):
            out.initializer.append(_initializer(name, constant))
    for name, type_ in graph.inputs.items():
        _add_value(out.input, name, type_)
    for name, type_ in graph.types.items():
        if is_known(type_.dims) and type_.dtype:
            _add_value(out.value_info, name, type_)
    out.node.extend(_surrogate(node) for node in graph.nodes)
    for name in graph.outputs:
        out.output.add(name=name)
    return model


def _initializer(name: str, constant: Constant) -> TensorProto:
    if constant.value is not None:
        value = np.asarray(constant.value)
        if value.dtype.kind in "iub" or (value.dtype.kind == "f" and value.size <= 16):
            tensor = numpy_helper.from_array(value, name)
            if tensor.data_type == constant.dtype:
                return tensor
    dims = [dim or 0 for dim in constant.dims or ()]  # all known, see the caller
    return TensorProto(name=name, dims=dims, data_type=constant.dtype)


def _add_value(values: object, name: str, type_: TensorType) -> None:
    value = values.add(name=name)  # type: ignore[attr-defined]
    value.type.tensor_type.elem_type = type_.dtype
    if type_.dims is not None:
        value.type.tensor_type.shape.SetInParent()
        for dim in type_.dims:
            value.type.tensor_type.shape.dim.add(**({} if dim is None else {"dim_value": dim}))


def _surrogate(node: Node) -> NodeProto:
    if node.domain != MICROSOFT or node.op_type not in _SURROGATES:
        # Names may have been replaced by those of equal tensors.
        if list(node.proto.input) == node.inputs:
            return node.proto
        proto = NodeProto()
        proto.CopyFrom(node.proto)
        del proto.input[:]
        proto.input.extend(node.inputs)
        return proto
    op_type, positions = _SURROGATES[node.op_type]
    if any(node.attributes.get(name) for name in _CHANGING):
        return node.proto
    proto = NodeProto(op_type=op_type, name=node.proto.name)
    proto.input.extend(node.input(i) for i in positions if node.input(i))
    proto.output.extend(node.outputs[:1])
    known = onnx.defs.get_schema(op_type).attributes
    proto.attribute.extend(a for a in node.proto.attribute if a.name in known)
    return proto


def _tensor_type(type_: TypeProto) -> TensorType:
    tensor = type_.tensor_type
    if not type_.HasField("tensor_type") or not tensor.HasField("shape"):
        return TensorType(None, tensor.elem_type)
    # onnx computes negative sizes where a kernel is larger than its input.
    sizes = (d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    dims = tuple(size if size >= 0 else None for size in sizes)
    return TensorType(dims, tensor.elem_type)
