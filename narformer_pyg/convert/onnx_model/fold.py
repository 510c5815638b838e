"""Step 4: folds constants, shape arithmetic and identities, which cost no time at inference.

Exporters write shapes as chains of Shape, Gather, Concat and Reshape, weights as Constant or
ConstantOfShape, and leave Identity and Dropout behind. No runtime executes these.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from narformer_pyg.convert.onnx_model.graph import (
    MAX_VALUE_ELEMENTS,
    Constant,
    Graph,
    Node,
    captured_names,
    num_elements,
)
from narformer_pyg.convert.onnx_model.order import check_nodes, sort_nodes
from narformer_pyg.errors import ConversionError

log = logging.getLogger(__name__)

#: Inference and folding feed each other; chains of more turns than this are not finished.
MAX_TURNS = 12

# Not a function of their inputs, or no tensor comes out.
_KEPT = (
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
    "Multinomial", "If", "Loop", "Scan", "SequenceMap", "SequenceEmpty", "SequenceConstruct",
    "SequenceInsert", "SequenceErase", "SequenceAt", "SplitToSequence", "ConcatFromSequence",
    "Optional", "OptionalGetElement", "OptionalHasElement", "StringNormalizer", "TfIdfVectorizer",
    "RegexFullMatch", "StringSplit", "StringConcat", "ImageDecoder",
)  # fmt: skip
# Small inputs can give huge outputs: evaluated only where the size of the output is known.
_GROWING = ("Expand", "Tile", "Pad", "Resize", "Upsample", "OneHot", "EyeLike")
_CONSTANT_ATTRIBUTES = (
    "value_int", "value_ints", "value_float", "value_floats", "value_string", "value_strings",
)  # fmt: skip


def infer_and_fold(
    graph: Graph,
    infer: Callable[[Graph], None],
    infer_node: Callable[[Graph, Node], None] | None = None,
) -> None:
    r"""Infers and folds in turns until neither finds anything new.

    Args:
        graph (Graph): The graph, which is changed.
        infer (callable): Fills in shapes.
        infer_node (callable, optional): Fills in those of one operator. A chain of shapes that are
            computed from each other takes a turn for each link; operator by operator it takes one.
            (default: :obj:`None`)
    """
    fold(graph)  # Constant nodes before the first inference, which wants initialisers
    for _ in range(MAX_TURNS):
        infer(graph)
        before = [node.outputs for node in graph.nodes]
        fold(graph, infer_node if graph.unknown() else None)
        if [node.outputs for node in graph.nodes] == before or not graph.unknown():
            break


def fold(graph: Graph, infer_node: Callable[[Graph, Node], None] | None = None) -> None:
    r"""Turns nodes whose inputs are all constant into constants; see the module.

    Args:
        graph (Graph): The graph, which is changed.
        infer_node (callable, optional): Fills in the shapes of an operator that is not folded,
            before those that follow it are looked at. (default: :obj:`None`)
    """
    kept: list[Node] = []
    same: dict[str, str] = {}
    nodes = graph.nodes
    inlined = False
    # Names inside of subgraphs are not changed, so what they read keeps its name.
    captured = {name for node in nodes for name in node.captured}
    for node in nodes:
        if same:
            node = renamed(node, same)
        branch = _taken_branch(graph, node)
        if branch is not None:
            kept += _inline(graph, node, branch)
            inlined = True
        elif (source := _identity(graph, node)) is not None and node.outputs[0] not in captured:
            same[node.outputs[0]] = source
        elif not _fold_node(graph, node):
            if infer_node is not None and any(o and graph.dims(o) is None for o in node.outputs):
                infer_node(graph, node)
                if _fold_node(graph, node):  # a weight, whose shape was wanted
                    continue
            kept.append(node)
    graph.nodes = sort_nodes(kept) if inlined else kept
    graph.outputs = [same.get(name, name) for name in graph.outputs]
    remove_dead(graph)


def remove_dead(graph: Graph) -> None:
    """Removes nodes that no output of the graph depends on."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads())
            kept.append(node)
    graph.nodes = kept[::-1]


def renamed(node: Node, same: dict[str, str]) -> Node:
    """Returns a node that reads other tensors instead of some."""
    if not any(name in same for name in node.inputs):
        return node
    renamed = Node(node.proto, node.index)
    renamed.inputs = [same.get(name, name) for name in node.inputs]
    return renamed


def _identity(graph: Graph, node: Node) -> str | None:
    """Returns the tensor that the only output of a node equals at inference."""
    if node.domain or not node.inputs:
        return None
    if node.op_type == "Identity":
        return node.inputs[0]
    if node.op_type == "Dropout":
        training = graph.value(node.input(2))
        if node.input(2) and (training is None or bool(training)):
            return None
        if any(o and _is_used(graph, o) for o in node.outputs[1:]):
            return None
        return node.inputs[0]
    to = node.attributes.get("to")
    if node.op_type == "Cast" and graph.type_of(node.inputs[0]).dtype == to:
        return node.inputs[0]
    return None


def _is_used(graph: Graph, name: str) -> bool:
    return name in graph.outputs or any(name in node.reads() for node in graph.nodes)


def _fold_node(graph: Graph, node: Node) -> bool:
    """Turns a node into constants if it is one; returns whether it was."""
    if node.domain or node.op_type in _KEPT or node.captured:
        return False
    if node.op_type == "Constant":
        graph.constants[node.outputs[0]] = _constant(node)
        return True
    if node.op_type in ("Shape", "Size"):
        return _fold_shape(graph, node)
    names = [name for name in node.inputs if name]
    if not names or any(name not in graph.constants for name in names):
        return False
    if node.op_type == "ConstantOfShape":
        return _fold_constant_of_shape(graph, node)
    weight = any(graph.constants[name].is_initializer for name in names)
    values = _evaluate(graph, node)
    for i, name in enumerate(node.outputs):
        if not name:
            continue
        if values is not None and i < len(values):
            value = np.asarray(values[i])
            graph.constants[name] = Constant(
                value.shape, _dtype(value), computed=value, is_initializer=weight
            )
        else:  # a weight: its shape is inferred before it is taken for a constant
            known = graph.types.get(name)
            if known is None or num_elements(known.dims) < 0:
                return False
            graph.constants[name] = Constant(*known, is_initializer=weight)
    return True


def _fold_shape(graph: Graph, node: Node) -> bool:
    dims = graph.dims(node.inputs[0])
    if dims is None:
        return False
    value = np.array(dims, dtype=np.int64)
    if node.op_type == "Size":
        value = value.prod(dtype=np.int64)
    else:
        value = value[node.attributes.get("start", 0) : node.attributes.get("end", len(dims))]
    graph.constants[node.outputs[0]] = Constant(value.shape, TensorProto.INT64, computed=value)
    return True


def _fold_constant_of_shape(graph: Graph, node: Node) -> bool:
    shape = graph.value(node.inputs[0])
    if shape is None:
        return False
    dims = tuple(int(d) for d in np.asarray(shape).ravel())
    fill = node.attributes.get("value")
    dtype = TensorProto.FLOAT if fill is None else fill.data_type
    value = None
    if num_elements(dims) <= MAX_VALUE_ELEMENTS:
        value = np.zeros(dims, np.float32) if fill is None else None
        if fill is not None:
            scalar = onnx.numpy_helper.to_array(fill).ravel()
            value = np.full(dims, scalar[0]) if scalar.size == 1 else None
    # Files whose weights were stripped write them like this.
    weight = value is None or value.dtype.kind == "f"
    graph.constants[node.outputs[0]] = Constant(dims, dtype, computed=value, is_initializer=weight)
    return True


def _constant(node: Node) -> Constant:
    attributes = node.attributes
    if isinstance(attributes.get("value"), TensorProto):
        tensor = attributes["value"]
        return Constant(tuple(tensor.dims), tensor.data_type, tensor)
    for name in _CONSTANT_ATTRIBUTES:
        if name in attributes:
            kind = {"i": np.int64, "f": np.float32, "s": object}[name[6]]
            value = np.array(attributes[name], dtype=kind)
            return Constant(value.shape, _dtype(value), computed=value)
    sparse = attributes.get("sparse_value")
    if sparse is not None:
        return Constant(tuple(sparse.dims), sparse.values.data_type)
    return Constant(None, 0)


def _evaluate(graph: Graph, node: Node) -> list[np.ndarray] | None:
    """Computes a node of small constants; :obj:`None` if a value is missing or large."""
    feeds = {}
    for name in node.inputs:
        if name:
            value = graph.value(name)
            if value is None:
                return None
            feeds[name] = value
    inferred = graph.types.get(node.outputs[0])
    size = -1 if inferred is None else num_elements(inferred.dims)
    if size > MAX_VALUE_ELEMENTS or (size < 0 and node.op_type in _GROWING and _grows(feeds)):
        return None
    if node.op_type == "Range":
        start, limit, delta = (float(np.asarray(feeds[n]).ravel()[0]) for n in node.inputs)
        if not delta or (limit - start) / delta > MAX_VALUE_ELEMENTS:
            return None
    try:
        places = {name: f"i{node.inputs.index(name)}" for name in feeds}
        proto = onnx.NodeProto(op_type=node.op_type, attribute=node.proto.attribute)
        proto.input.extend(places.get(name, "") for name in node.inputs)
        proto.output.extend(f"o{i}" if name else "" for i, name in enumerate(node.outputs))
        evaluator = _evaluator(proto.SerializeToString(deterministic=True), graph.opset)
        with np.errstate(all="ignore"):
            values = evaluator.run(None, {places[name]: value for name, value in feeds.items()})
    except Exception as error:  # the reference has gaps; the node then stays
        log.debug("%s was not evaluated: %s", node, error)
        return None
    arrays = [v for v in values if isinstance(v, (np.ndarray, np.generic))]
    return [np.asarray(v) for v in arrays] if len(arrays) == len(values) else None


@functools.lru_cache(maxsize=512)
def _evaluator(proto: bytes, opset: int) -> ReferenceEvaluator:
    """Returns the evaluator of an operator; a graph needs few of them."""
    # A model, since of a single node the evaluator takes the newest version.
    model = onnx.ModelProto(ir_version=10)
    model.opset_import.add(version=opset)
    node = model.graph.node.add()
    node.ParseFromString(proto)
    for name in dict.fromkeys(filter(None, node.input)):
        model.graph.input.add(name=name)
    for name in node.output:
        model.graph.output.add(name=name)
    return ReferenceEvaluator(model)


def _grows(feeds: dict[str, np.ndarray]) -> bool:
    return sum(np.asarray(v).size for v in feeds.values()) > 64 or any(
        np.asarray(v).dtype.kind in "iu" and np.abs(v).max(initial=0) > 64 for v in feeds.values()
    )


def _dtype(value: np.ndarray) -> int:
    if value.dtype == object:
        return TensorProto.STRING
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))


def _taken_branch(graph: Graph, node: Node) -> onnx.GraphProto | None:
    """Returns the branch of an If whose condition is constant."""
    if node.op_type != "If" or node.domain:
        return None
    condition = graph.value(node.inputs[0])
    if condition is None:
        return None
    return node.attributes["then_branch" if bool(np.asarray(condition).all()) else "else_branch"]


def _inline(graph: Graph, node: Node, branch: onnx.GraphProto) -> list[Node]:
    """Returns the nodes of a branch under names that no other tensor has."""
    prefix = f"{node.outputs[0]}/"
    inner = {t.name for t in branch.initializer} | {o for n in branch.node for o in n.output if o}
    names = {name: prefix + name for name in inner}
    if len(branch.output) != len(node.outputs):
        raise ConversionError(
            f"Expected {node} to have the {len(branch.output)} outputs of its branch "
            f"(got {len(node.outputs)})"
        )
    ends = [(o.name, out) for o, out in zip(branch.output, node.outputs, strict=True) if out]
    names.update({name: out for name, out in ends if name in inner})
    for tensor in branch.initializer:
        graph.constants[names[tensor.name]] = Constant(
            tuple(tensor.dims), tensor.data_type, tensor, is_initializer=True
        )
    protos = []
    for proto in branch.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        if any(name in names for name in captured_names(proto)):
            _rename_captured(copy, names)
        copy.input[:] = [names.get(name, name) for name in proto.input]
        copy.output[:] = [names.get(name, name) for name in proto.output]
        protos.append(copy)
    for name, out in ends:
        source = names.get(name, name)
        if source != out:  # a tensor of the outside, or one that comes out twice
            protos.append(onnx.helper.make_node("Identity", [source], [out]))
    nodes = [Node(proto, node.index) for proto in protos]
    check_nodes(nodes, graph.opset)
    return nodes


def _rename_captured(proto: onnx.NodeProto, names: dict[str, str]) -> None:
    for attribute in proto.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            bound = {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
            visible = {k: v for k, v in names.items() if k not in bound}
            for node in graph.node:
                node.input[:] = [visible.get(name, name) for name in node.input]
                _rename_captured(node, visible)
            for output in graph.output:
                output.name = visible.get(output.name, output.name)
