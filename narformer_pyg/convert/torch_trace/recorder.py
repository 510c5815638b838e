"""Records the operators that a torch module runs, on tensors without data."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from narformer_pyg.convert.torch_trace.rules import CONSTANTS, PASSED_ON, RULES, SHAPES
from narformer_pyg.convert.torch_trace.writer import GraphWriter, storage_of
from narformer_pyg.errors import ConversionError

# Composites and operators that have FLOPs.
_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in (
        "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "convolution", "conv1d",
        "conv2d", "conv3d", "scaled_dot_product_attention",
    )
)  # fmt: skip
# Constants are computed up to this size; larger ones have a shape and no value.
_MAX_COMPUTED = 1 << 22


class Recorder(TorchDispatchMode):
    r"""Runs operators for their shapes alone and writes down those that depend on the inputs.

    In :func:`torch.inference_mode` a dispatch mode sees composite operators (``linear``,
    ``scaled_dot_product_attention``) whole: what :data:`~.rules.RULES` has is written down as one,
    the rest is decomposed by torch itself. Tensors that depend on an input live on the meta device,
    wherever the module is. All others are constants, and small ones keep their values.

    Args:
        module (torch.nn.Module): The network, for the names of its weights and modules.
        inputs (dict of str to torch.Tensor): The inputs on the meta device.
    """

    def __init__(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.writer = GraphWriter(module, inputs)
        self._modules = {id(m): name for name, m in module.named_modules()}
        self._stack = [""]
        #: FLOPs of what does not depend on the inputs and is no operator of the graph.
        self.folded_flops = 0
        self._owned = {storage_of(t) for t in (*module.parameters(), *module.buffers())}

    # How operators arrive.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one operator."""
        kwargs = kwargs or {}
        name = func._schema.name
        written = [
            value for argument, value in _bound(func, args, kwargs)
            if argument.alias_info is not None and argument.alias_info.is_write
            and isinstance(value, Tensor)
        ]  # fmt: skip
        plain = name.removesuffix("_") if written else name
        if plain not in RULES and plain not in CONSTANTS and plain not in PASSED_ON:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        tracked = any(map(self.writer.is_tracked, tensors))
        if not tracked:
            return self._run_constant(func, args, kwargs, tensors, written)
        if name in ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal"):
            raise DataDependentError("the program asks for the value of a tensor")
        meta_args, meta_kwargs = tree_map_only(Tensor, self.writer.meta, (args, kwargs))
        meta_kwargs = {k: "meta" if k == "device" and v else v for k, v in meta_kwargs.items()}
        if name == "aten::to":  # .device and .other take a device among others
            meta_args = tuple("meta" if isinstance(a, torch.device) else a for a in meta_args)
        shape_of = SHAPES.get(plain)
        out = shape_of(*meta_args) if shape_of else func(*meta_args, **meta_kwargs)
        if plain in CONSTANTS:
            return out
        if plain in PASSED_ON:
            source = self.writer.name(next(t for t in tensors if self.writer.is_tracked(t)))
            return tree_map_only(Tensor, lambda t: self.writer.bind(t, source), out)
        rule = RULES.get(plain, _unknown)
        arguments = {argument.name: value for argument, value in _bound(func, args, kwargs)}
        results = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        if not results:
            return out
        names = rule(self.writer, arguments, results if len(results) > 1 else results[0], func)
        names = [names] if isinstance(names, str) else names
        if written:
            self.writer.write(written[0], names[0])
            return written[0]
        for tensor, result in zip(results, names, strict=False):
            self.writer.bind(tensor, result)
        return out

    def _run_constant(
        self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], written: list[Tensor]
    ) -> Any:
        """Computes what does not depend on the inputs; for its shape alone where that is much."""
        of_module = any(storage_of(t) in self._owned for t in written)
        shapes_only = of_module or any(t.is_meta for t in tensors)
        if not tensors:
            wanted = kwargs.get("device")
            if wanted is not None and torch.device(wanted).type != "cpu":
                kwargs = {**kwargs, "device": "meta"}
                out = func(*args, **kwargs)
                if isinstance(out, Tensor) and out.numel() <= _MAX_COMPUTED:
                    out = func(*args, **{**kwargs, "device": "cpu"})
                return self._noted(out)
        elif shapes_only:
            meta_args, meta_kwargs = tree_map_only(Tensor, self.writer.meta, (args, kwargs))
            meta_kwargs = {k: "meta" if k == "device" and v else v for k, v in meta_kwargs.items()}
            try:
                out = self._counted(func, meta_args, meta_kwargs)
            except (NotImplementedError, RuntimeError) as error:
                if func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero"):
                    raise DataDependentError(
                        "the program asks for the value of a weight or a constant that is on the "
                        "meta device; convert the module from the CPU"
                    ) from error
                raise
            return written[0] if written else self._noted(out)
        elif torch.device(kwargs.get("device") or "cpu").type != "cpu":
            kwargs = {**kwargs, "device": "cpu"}
        args = tuple(torch.device("cpu") if isinstance(a, torch.device) else a for a in args)
        return self._noted(self._counted(func, args, kwargs))

    def _counted(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs an operator on constants; PyTorch does so at every call, and its cost is noted."""
        if func._schema.name not in _PRODUCTS:
            return func(*args, **kwargs)
        with FlopCounterMode(display=False) as counter:
            out = func(*args, **kwargs)
        self.folded_flops += counter.get_total_flops()
        return out

    def _noted(self, out: Any) -> Any:
        """Remembers which constants share memory, for a later write into one of them."""
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.writer.share(tensor)
        return out

    # Where operators come from.

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records what runs in the block."""
        before = global_hooks.register_module_forward_pre_hook(self._enter)
        after = global_hooks.register_module_forward_hook(self._leave)
        try:
            with torch.inference_mode(), self:
                yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._stack.append(self._modules.get(id(module), self._stack[-1]))
        self.writer.path = self._stack[-1]

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        self._stack.pop()
        self.writer.path = self._stack[-1]


class DataDependentError(ConversionError):
    """The module's control flow depends on values of its inputs."""


def _unknown(trace: GraphWriter, arguments: Any, out: Any, func: Any) -> Any:
    """An operator without a rule: an unknown node, so that it is not lost without a word."""
    read = [t for t in tree_leaves(list(arguments.values())) if isinstance(t, Tensor)]
    return trace.node(func._schema.name, read, out)


def _bound(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Returns the arguments of a call with their schemas; defaults where left out."""
    out = []
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args) and not argument.kwarg_only:
            value = args[i]
        else:
            value = kwargs.get(argument.name, argument.default_value)
        out.append((argument, value))
    return out


def line_of(error: BaseException) -> str:
    """Returns the last line of an error's traceback that is outside of torch and this package."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    inside = (os.path.dirname(torch.__file__), package)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not
              f.filename.startswith(inside)]  # fmt: skip
    if not frames:
        return ""
    frame = frames[-1]
    return f"{os.path.basename(frame.filename)}, line {frame.lineno}: {frame.line}"
