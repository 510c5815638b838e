"""One run of a module, recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from narformer_pyg.convert.onnx_model.fold import remove_dead
from narformer_pyg.convert.onnx_model.graph import Graph
from narformer_pyg.convert.torch_trace.recorder import DataDependentError, Recorder, line_of
from narformer_pyg.errors import ConversionError

# What torch says where a tensor without data is asked for its values.
_NO_VALUES = (
    "meta tensor", "on meta", "data-dependent", "without data", "Meta tensors", "dynamic shape",
    "data-independent", "unallocated storage",
)  # fmt: skip


@dataclass
class Trace:
    """The operators of one run, and what the module has."""

    graph: Graph
    #: The path of the module of each node, by :attr:`Node.index`.
    modules: list[str]
    parameters: int
    #: Parameters of the module that no recorded operator reads.
    num_unused: int
    #: FLOPs of what does not depend on the inputs, which PyTorch computes at every call.
    folded_flops: int


def trace(module: nn.Module, example_inputs: Any) -> Trace:
    r"""Runs a module once without data and returns the operators that depend on its inputs.

    Nothing is computed but constants, and no weight is copied: a module of any size on any device,
    :obj:`"meta"` included, takes some megabytes.

    Args:
        module (torch.nn.Module): The network, run as in inference.
        example_inputs (torch.Tensor or tuple or dict): The arguments of one call.

    Raises:
        ConversionError: If the module fails with these inputs, if its control flow depends on
            values of tensors, or if its output does not depend on its inputs.
    """
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    args, kwargs = arguments_of(example_inputs)
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
        raise ConversionError(
            f"Expected 'example_inputs' to hold tensors (got {example_inputs!r:.80}); for a shape, "
            "pass torch.empty(shape)"
        )
    args, kwargs = tree_map_only(Tensor, _without_data, (args, kwargs))
    inputs = _named_inputs(module, args, kwargs)
    recorder = Recorder(module, inputs)
    try:
        with inference(module), recorder.recording():
            out = module(*args, **kwargs)
            outputs = [t for t in _tensors(out) if recorder.writer.is_tracked(t)]
            names = [recorder.writer.name(t) for t in outputs]
    except Exception as error:  # whatever the module raises
        raise _explained(module, error) from error
    graph = recorder.writer.graph
    graph.outputs = list(dict.fromkeys(names))
    remove_dead(graph)
    if not graph.nodes:
        raise ConversionError(
            f"Expected {type(module).__name__} to compute something from its inputs (got an output "
            f"of type {type(out).__name__} that is none of its inputs' making)"
        )
    read = {name for node in graph.nodes for name in node.reads()}
    weights = dict(module.named_parameters())
    used = {name.removesuffix(".T") for name in read}
    return Trace(
        graph,
        recorder.writer.paths,
        sum(weight.numel() for weight in weights.values()),
        sum(weight.numel() for name, weight in weights.items() if name not in used),
        recorder.folded_flops,
    )


def arguments_of(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns positional and named arguments of a call."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def _without_data(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _named_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    try:
        call = dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # the call itself says what is wrong
        call = {f"input{i}": value for i, value in enumerate((*args, *kwargs.values()))}
    named: dict[str, Tensor] = {}
    for name, value in call.items():
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        for i, tensor in enumerate(tensors):
            named[name if len(tensors) == 1 else f"{name}_{i}"] = tensor
    return named


def _tensors(out: Any) -> Iterator[Tensor]:
    """Yields the tensors of an output; objects that are none, such as caches, have no part."""
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, Mapping):
        for value in out.values():
            yield from _tensors(value)
    elif isinstance(out, (tuple, list)):
        for value in out:
            yield from _tensors(value)
    elif dataclasses.is_dataclass(out):
        for field in dataclasses.fields(out):
            yield from _tensors(getattr(out, field.name))


def _explained(module: nn.Module, error: Exception) -> ConversionError:
    name, line = type(module).__name__, line_of(error)
    where = f" ({line})" if line else ""
    text = str(error).strip().split("\n")[0][:300]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DataDependentError) or any(t in str(cause) for t in _NO_VALUES):
            return ConversionError(
                f"Expected the control flow of {name} to depend on shapes alone (got one that "
                f"depends on values{where}: {text}); convert a part of the module, or give the "
                "value as an argument that is no tensor"
            )
        cause = cause.__cause__
    return ConversionError(
        f"Expected {name} to run with 'example_inputs' (got {type(error).__name__}{where}: {text})"
    )


@contextlib.contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Switches a module to inference for the time of the block; leaves nothing behind in it."""
    parts = list(module.modules())
    # Modules that keep caches or write to their buffers would keep tensors without data.
    state = [(dict(part.__dict__), dict(part._buffers)) for part in parts]
    for part in parts:  # not eval(), which some modules replace
        part.training = False
    try:
        yield
    finally:
        for part, (attributes, buffers) in zip(parts, state, strict=True):
            part.__dict__.clear()
            part.__dict__.update(attributes)
            part._buffers.clear()
            part._buffers.update(buffers)
