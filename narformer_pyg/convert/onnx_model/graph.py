"""A light view of an ONNX graph, without the weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

#: Dimensions of a tensor: :obj:`None` where a dimension is unknown, and where the rank is.
Dims = tuple["int | None", ...]

#: Values of constants are read up to this number of elements. Shapes and the like are far smaller;
#: of weights only the dimensions matter.
MAX_VALUE_ELEMENTS = 4096


class TensorType(NamedTuple):
    """Dimensions and element type (a number of :class:`onnx.TensorProto`, 0 if unknown)."""

    dims: Dims | None
    dtype: int


@dataclass
class Constant:
    """A tensor that does not depend on the inputs; its value may be too large to keep, or absent.

    Files without weights hold initialisers that have dimensions and no data.
    """

    dims: Dims | None
    dtype: int
    proto: TensorProto | None = None
    computed: np.ndarray | None = None
    #: Whether it is stored as a weight (an initialiser), not written into the graph as a constant.
    is_initializer: bool = False

    @functools.cached_property
    def value(self) -> np.ndarray | None:
        """The value, :obj:`None` if it is large or unknown."""
        if self.computed is not None:
            return self.computed
        if self.proto is None or not 0 <= num_elements(self.dims) <= MAX_VALUE_ELEMENTS:
            return None
        if not has_data(self.proto):
            return None
        try:
            return numpy_helper.to_array(self.proto)
        except (ValueError, TypeError, KeyError):  # fewer data than the dimensions say, for one
            return None


class Node:
    """One operator: names of its tensors and its attributes, read when they are asked for."""

    __slots__ = ("__dict__", "captured", "domain", "index", "inputs", "op_type", "outputs", "proto")

    def __init__(self, proto: NodeProto, index: int) -> None:
        self.proto = proto
        self.index = index
        self.op_type = proto.op_type
        self.domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.inputs = list(proto.input)
        self.outputs = list(proto.output)
        self.captured = captured_names(proto)

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """Name to number, string, list, tensor or graph."""
        return {a.name: _attribute_value(a) for a in self.proto.attribute}

    @property
    def operator(self) -> str:
        """The operator with its domain, for instance :obj:`"com.microsoft::Gelu"`."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    @functools.cached_property
    def has_body(self) -> bool:
        """Whether it runs a graph of its own: If, Loop, Scan."""
        return any(a.HasField("g") or len(a.graphs) for a in self.proto.attribute)

    def reads(self) -> Iterator[str]:
        """Yields the names of all tensors it reads, those that its subgraphs capture included."""
        for name in self.inputs:
            if name:
                yield name
        yield from self.captured

    def input(self, i: int) -> str:
        """Returns the name of an input, empty if it is left out."""
        return self.inputs[i] if i < len(self.inputs) else ""

    def __str__(self) -> str:
        name = self.proto.name or next((o for o in self.outputs if o), f"number {self.index}")
        return f"{self.operator} {name!r}"


@dataclass
class Graph:
    """An ONNX graph while it is being converted."""

    nodes: list[Node]
    inputs: dict[str, TensorType]
    outputs: list[str]
    constants: dict[str, Constant]
    opsets: dict[str, int]
    #: What is known about tensors that nodes produce.
    types: dict[str, TensorType] = field(default_factory=dict)
    #: Which method found the shape of a tensor.
    rungs: dict[str, str] = field(default_factory=dict)
    #: What the file itself says, in the text of the original static shapes.
    declared: dict[str, TensorType] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return self.opsets.get("", 1)

    def type_of(self, name: str) -> TensorType:
        """Returns the known type of a tensor, wherever it comes from."""
        constant = self.constants.get(name)
        if constant is not None:
            return TensorType(constant.dims, constant.dtype)
        return self.inputs.get(name) or self.types.get(name) or TensorType(None, 0)

    def dims(self, name: str) -> tuple[int, ...] | None:
        """Returns the dimensions of a tensor, or :obj:`None` unless all are known."""
        dims = self.type_of(name).dims if name else None
        return dims if is_known(dims) else None  # type: ignore[return-value]

    def value(self, name: str) -> np.ndarray | None:
        """Returns the value of a small constant."""
        constant = self.constants.get(name)
        return None if constant is None else constant.value

    def unknown(self) -> list[str]:
        """Returns the outputs of nodes whose shapes are not fully known."""
        return [o for n in self.nodes for o in n.outputs if o and self.dims(o) is None]

    def copy(self) -> Graph:
        """Returns a graph that can be changed on its own; nodes are shared."""
        return Graph(
            list(self.nodes), dict(self.inputs), list(self.outputs), dict(self.constants),
            dict(self.opsets), dict(self.types), dict(self.rungs), dict(self.declared),
        )  # fmt: skip


def is_known(dims: Dims | None) -> bool:
    """Whether all dimensions are numbers."""
    return dims is not None and None not in dims


def num_elements(dims: Dims | None) -> int:
    """Returns the number of elements, -1 if a dimension is unknown."""
    if dims is None or None in dims:
        return -1
    return math.prod(dims)  # type: ignore[arg-type]


def has_data(tensor: TensorProto) -> bool:
    """Whether a tensor holds its elements."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    if tensor.raw_data or 0 in tensor.dims:
        return True
    return any(
        len(getattr(tensor, name))
        for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data",
                     "string_data")
    )  # fmt: skip


@functools.cache
def element_bits(dtype: int) -> int:
    """Returns the bits of an element; those of float32 for an unknown type."""
    name = TensorProto.DataType.Name(dtype) if dtype in TensorProto.DataType.values() else ""
    if name in ("STRING", "UNDEFINED", ""):
        return 32
    if name.endswith("INT4") or name.startswith("FLOAT4"):
        return 4
    if name.endswith("INT2"):
        return 2
    if "FLOAT8" in name:
        return 8
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(dtype).itemsize)


def captured_names(proto: NodeProto) -> tuple[str, ...]:
    """Returns the tensors of the surrounding graph that the subgraphs of a node read."""
    names: dict[str, None] = {}
    for attribute in proto.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            names.update(dict.fromkeys(_free_names(graph)))
    return tuple(names)


def _free_names(graph: onnx.GraphProto) -> Iterator[str]:
    bound = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    for node in graph.node:
        for name in (*node.input, *captured_names(node)):
            if name and name not in bound:
                yield name
        bound.update(node.output)
    for output in graph.output:
        if output.name not in bound:
            yield output.name


def _attribute_value(attribute: AttributeProto) -> Any:
    kind = attribute.type
    if kind == AttributeProto.INT:
        return attribute.i
    if kind == AttributeProto.INTS:
        return list(attribute.ints)
    if kind == AttributeProto.FLOAT:
        return attribute.f
    if kind == AttributeProto.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == AttributeProto.FLOATS:
        return list(attribute.floats)
    if kind == AttributeProto.STRINGS:
        return [s.decode("utf-8", "replace") for s in attribute.strings]
    return onnx.helper.get_attribute_value(attribute)
