"""The door: which kernel, if any, takes over a module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound=type[torch.nn.Module])


@dataclass(frozen=True)
class Kernel:
    r"""A faster form of a module.

    Args:
        name (str): What :func:`enabled` calls it.
        accepts (callable): Whether it computes what the module computes of these inputs, on their
            device and in their precision. Called with the module and the inputs.
        run (callable): Computes it.
    """

    name: str
    accepts: Callable[..., bool]
    run: Callable[..., Tensor]


_ALL = "all"
_KERNELS: dict[type, Kernel] = {}
_OFF: ContextVar[frozenset[str]] = ContextVar(
    "narformer_pyg_kernels_off",
    default=frozenset([_ALL] if os.environ.get("NARFORMER_KERNELS") == "0" else []),
)


def accelerated_by(kernel: Kernel) -> Callable[[T], T]:
    """Returns a class decorator: the kernel may take over instances of this class, exactly.

    Subclasses may compute something else, so the kernel leaves them alone.
    """

    def decorate(cls: T) -> T:
        _KERNELS[cls] = kernel
        return cls

    return decorate


def takes_over(module: torch.nn.Module, *inputs: Any) -> Callable[..., Tensor] | None:
    r"""Returns the faster form of a module for these inputs, or :obj:`None`.

    This alone asks about types, devices, precision, hooks and tracing. Code that is compiled,
    exported or transformed by :mod:`torch.func` always gets the plain form.
    """
    if torch.compiler.is_compiling():
        return None
    kernel, off = _KERNELS.get(type(module)), _OFF.get()
    if (
        kernel is None
        or (off and (_ALL in off or kernel.name in off))
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or not kernel.accepts(module, *inputs)
    ):
        return None
    return kernel.run


def is_on(name: str) -> bool:
    """Whether the kernel called ``name`` is switched on."""
    off = _OFF.get()
    return not off or (name not in off and _ALL not in off)


def is_as_built(module: Any) -> bool:
    """Whether a kernel may pass by the parts of a module: none is replaced, no hook waits for one.

    The class says in :obj:`PARTS` what its parts are, by name.
    """
    for name, part in module._modules.items():
        if (
            type(part) is not module.PARTS.get(name)
            or part._forward_hooks
            or part._forward_pre_hooks
            or part._backward_hooks
            or part._backward_pre_hooks
        ):
            return False
    return True


def has_global_hooks() -> bool:
    """Whether a hook waits for all modules of the process."""
    hooks = torch.nn.modules.module
    return bool(
        hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks
        or hooks._global_backward_pre_hooks
    )


@contextmanager
def enabled(mode: bool, name: str = _ALL) -> Iterator[None]:
    r"""Switches kernels on or off, for the current thread and the time of the context.

    .. code-block:: python

        with kernels.enabled(False):  # plain PyTorch
            model(x, edge_index)

    Args:
        mode (bool): Whether kernels may take over.
        name (str, optional): One of :obj:`kernels.NAMES`; all of them if not given.
            (default: :obj:`"all"`)

    Raises:
        ValueError: If there is no such kernel.
    """
    known = {kernel.name for kernel in _KERNELS.values()}
    if name not in known | {_ALL}:
        raise ValueError(f"Expected 'name' to be among {', '.join(sorted(known))} (got {name!r})")
    if name != _ALL:
        off = _OFF.get() - {name} if mode else _OFF.get() | {name}
    else:
        off = frozenset() if mode else frozenset([_ALL])
    token = _OFF.set(off)
    try:
        yield
    finally:
        _OFF.reset(token)


def refuse_double_backward(name: str) -> None:
    """Raises if a backward pass is recorded, as for a second derivative.

    Raises:
        RuntimeError: If so; the message says how to get one.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"The kernel {name!r} has no second derivative, which 'create_graph=True' asks for. "
            "Compute the forward pass in 'with narformer_pyg.nn.kernels.enabled(False):'"
        )
