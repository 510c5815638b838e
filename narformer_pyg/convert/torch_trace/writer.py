"""The graph of a run while it is recorded: which tensor has which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnx import helper
from torch import Tensor, nn

from narformer_pyg.convert.onnx_model.graph import (
    MAX_VALUE_ELEMENTS,
    Constant,
    Graph,
    Node,
    TensorType,
)
from narformer_pyg.convert.torch_trace.tensors import type_of

#: Of the opset whose forms the rules write: Gelu is an operator.
OPSET = 21


class GraphWriter:
    r"""Writes operators down and knows the tensors they make.

    A tensor that depends on an input has the name of a node's output. Tensors can share memory:
    after a write into one, the others are read anew from it.

    Args:
        module (torch.nn.Module): The network, for the names of its weights and modules.
        inputs (dict of str to torch.Tensor): The inputs on the meta device.
    """

    def __init__(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
        self.graph = Graph(
            [], {name: type_of(t) for name, t in inputs.items()}, [], {}, {"": OPSET}
        )
        #: The path of the module that runs each node.
        self.paths: list[str] = []
        #: The path of the module that runs now.
        self.path = ""
        self._names: dict[int, str] = {}
        self._alive: dict[int, Tensor] = {}  # so that no id is given twice
        self._twins: dict[int, Tensor] = {}
        self._aliases: dict[int, list[Tensor]] = {}
        self._stale: dict[int, Tensor] = {}
        self._constants: dict[int, str] = {}
        self._weights = {id(t): name for name, t in module.named_parameters()}
        self._weights |= {id(t): name for name, t in module.named_buffers()}
        for tensor in (*module.parameters(), *module.buffers()):
            self.share(tensor)
        for name, tensor in inputs.items():
            self.bind(tensor, name)

    def node(
        self,
        op_type: str,
        inputs: Sequence[Tensor | str | float | None],
        out: Tensor | TensorType | list[Tensor],
        **attributes: Any,
    ) -> Any:
        """Writes an operator down; returns the name of its output, or a list for several.

        An operator outside of ONNX's own domain is written :obj:`"domain::operator"`.
        """
        domain, _, op_type = op_type.rpartition("::")
        outs: list[Any] = list(out) if isinstance(out, list) else [out]
        names = []
        for each in outs:
            names.append(f"t{len(self.graph.types)}")
            self.graph.types[names[-1]] = type_of(each) if isinstance(each, Tensor) else each
            self.graph.rungs[names[-1]] = "declared"
        read = ["" if i is None else i if isinstance(i, str) else self.name(i) for i in inputs]
        while read and not read[-1]:
            read.pop()
        present = {key: value for key, value in attributes.items() if value is not None}
        proto = helper.make_node(op_type, read, names, domain=domain, **present)
        self.graph.nodes.append(Node(proto, len(self.graph.nodes)))
        self.paths.append(self.path)
        return names if isinstance(out, list) else names[0]

    def name(self, value: Any) -> str:
        """Returns the name of a tensor, a weight or a number."""
        if not isinstance(value, Tensor):
            return self.constant(
                np.asarray(value, np.float32 if isinstance(value, float) else None)
            )
        if id(value) in self._stale:
            self._refresh(value)
        if id(value) in self._names:
            return self._names[id(value)]
        if id(value) not in self._constants:
            name = self._weights.get(id(value)) or f"constant{len(self.graph.constants)}"
            dims, dtype = type_of(value)
            is_small = value.numel() <= (16 if value.is_floating_point() else MAX_VALUE_ELEMENTS)
            array = None
            if is_small and dtype and not value.is_meta and value.dtype is not torch.bfloat16:
                array = value.detach().cpu().numpy()
            self.graph.constants[name] = Constant(
                dims, dtype, computed=array, is_initializer=id(value) in self._weights
            )
            self._constants[id(value)] = name
            self._alive[id(value)] = value
        return self._constants[id(value)]

    def constant(self, array: np.ndarray) -> str:
        """Adds a small constant."""
        name = f"constant{len(self.graph.constants)}"
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.graph.constants[name] = Constant(tuple(array.shape), dtype, computed=array)
        return name

    def value(self, tensor: Tensor) -> np.ndarray | None:
        """Returns the value of a constant, :obj:`None` if it depends on inputs or is unknown."""
        if self.is_tracked(tensor) or tensor.is_meta:
            return None
        return tensor.detach().cpu().numpy()

    def share(self, tensor: Tensor) -> None:
        """Remembers which tensors share memory, for a later write into one of them."""
        group = self._aliases.setdefault(storage_of(tensor), [])
        if not any(t is tensor for t in group):
            group.append(tensor)
        self._alive[id(tensor)] = tensor

    def is_tracked(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on an input."""
        return id(tensor) in self._names or id(tensor) in self._stale

    def meta(self, tensor: Tensor) -> Tensor:
        """Returns a tensor of the same kind without data."""
        if tensor.is_meta:
            return tensor
        if id(tensor) not in self._twins:
            self._twins[id(tensor)] = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
            )
            self._alive[id(tensor)] = tensor
        return self._twins[id(tensor)]

    def bind(self, tensor: Tensor, name: str) -> Tensor:
        """Gives a tensor the name of what made it."""
        self._names[id(tensor)] = name
        self._stale.pop(id(tensor), None)
        self.share(tensor)
        return tensor

    def write(self, tensor: Tensor, name: str) -> None:
        """A tensor is written in place: what shares its memory changes, too."""
        group = self._aliases.get(storage_of(tensor), [])
        whole = tensor
        if not _covers(tensor):
            whole = next((t for t in group if _covers(t)), tensor)
        if whole is not tensor:
            name = self.node("ScatterND", [whole, None, name], whole)
        self.bind(whole, name)
        for other in group:
            if other is not whole:
                self._names.pop(id(other), None)
                self._stale[id(other)] = whole

    def _refresh(self, tensor: Tensor) -> None:
        whole = self._stale.pop(id(tensor))
        if whole.shape == tensor.shape and whole.stride() == tensor.stride():
            name = self.name(whole)
        else:
            name = self.node("Reshape" if _covers(tensor) else "Slice", [whole], tensor)
        self._names[id(tensor)] = name


def storage_of(tensor: Tensor) -> int:
    """Returns a number that tensors have in common if they share memory."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse, or a subclass without one
        return id(tensor)


def _covers(tensor: Tensor) -> bool:
    """Whether a tensor is all of its memory."""
    try:
        return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return True
