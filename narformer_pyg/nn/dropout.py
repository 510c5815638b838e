"""Dropout that does not spend a quarter of a training step on random numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from narformer_pyg.nn.functional import is_traced

#: Above it a number for each element is cheaper than a list of the zeroed ones.
MAX_SPARSE_P = 0.25


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    r"""Zeroes elements with probability :obj:`p` and scales the rest by :math:`1 / (1 - p)`.

    On the CPU, torch's dropout draws one random number per element and keeps a mask as large as the
    input. Here the distances between zeroed elements are drawn, which follow a geometric
    distribution: :obj:`p` numbers per element, and only the zeroed positions are kept for the
    backward pass. On other devices, for :obj:`p` above 0.25, and where code is compiled, exported
    or transformed, it is :func:`torch.nn.functional.dropout`.

    Args:
        x (torch.Tensor): The input, of any shape.
        p (float): The probability of an element to be zeroed.
        training (bool): If set to :obj:`False`, returns the input as it is.
    """
    if not training or p == 0.0:
        return x
    if not _is_sparse(x, p):
        return F.dropout(x, p, training)
    return _Zero.apply(x.contiguous() * (1.0 / (1.0 - p)), zeroed_positions(x.numel(), p))


def relu_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    r"""Applies a ReLU, then :func:`dropout`, in one step where that is faster.

    Args:
        x (torch.Tensor): The input, of any shape.
        p (float): The probability of an element to be zeroed.
        training (bool): If set to :obj:`False`, applies the ReLU alone.
    """
    if not training or p == 0.0:
        return x.relu()
    if not _is_sparse(x, p):
        return F.dropout(x.relu(), p, training)
    return _ReLUDropout.apply(x, zeroed_positions(x.numel(), p), 1.0 / (1.0 - p))


def norm_dropout(
    x: Tensor, norm: torch.nn.LayerNorm, p: float, training: bool, relu: bool = False
) -> Tensor:
    r"""Applies a layer norm, a ReLU if wanted, then :func:`dropout`.

    The scale :math:`1 / (1 - p)` goes into the affine parameters of the norm, so that it costs
    nothing.

    Args:
        x (torch.Tensor): The input :math:`(*, F)`.
        norm (torch.nn.LayerNorm): The layer norm over the last dimension.
        p (float): The probability of an element to be zeroed.
        training (bool): If set to :obj:`False`, drops nothing.
        relu (bool, optional): Whether a ReLU comes in between. (default: :obj:`False`)
    """
    if not training or p == 0.0 or not _is_sparse(x, p) or has_hooks(norm):
        x = norm(x)
        if relu:
            x = x.relu_() if may_overwrite(norm) else x.relu()
        return dropout(x, p, training)
    scale = 1.0 / (1.0 - p)
    x = F.layer_norm(x, norm.normalized_shape, norm.weight * scale, norm.bias * scale, norm.eps)
    return (_ZeroReLU if relu else _Zero).apply(x, zeroed_positions(x.numel(), p))


def may_overwrite(module: torch.nn.Module) -> bool:
    """Whether nothing but the caller has a use for the output of a module, just now."""
    return not (torch.is_grad_enabled() or has_hooks(module) or is_traced())


def has_hooks(module: torch.nn.Module) -> bool:
    """Whether something waits for calls of a module, which then must not be passed by."""
    return bool(
        torch.nn.modules.module._has_any_global_hook()
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def zeroed_positions(numel: int, p: float) -> Tensor:
    r"""Draws the elements that a dropout zeroes, in ascending order.

    Each of :obj:`numel` elements is among them with probability :obj:`p`, independently of the
    others. Uses torch's generator of the CPU.

    Args:
        numel (int): The number of elements.
        p (float): The probability, :math:`0 < p < 1`.
    """
    parts: list[Tensor] = []
    last = -1
    while last < numel - 1:
        expected = (numel - 1 - last) * p
        size = int(expected + 5.0 * math.sqrt(expected)) + 16  # almost always enough
        # One 64-bit number makes two of 32 bits; v is uniform in [0, 1), finest where it is small.
        bits = torch.empty((size + 1) // 2, dtype=torch.long).random_(-(2**63), None)
        v = bits.view(torch.int32).float().abs_().mul_(2.0**-31).clamp_(max=1.0 - 2.0**-24)
        gaps = v.neg_().log1p_().mul_(1.0 / math.log1p(-p)).long()  # geometric
        positions = gaps.add_(1).cumsum_(0).add_(last)
        parts.append(positions)
        last = int(positions[-1])
    positions = parts[0] if len(parts) == 1 else torch.cat([*parts, torch.empty(0).long()])
    return positions[: int(torch.searchsorted(positions, numel))]


def _is_sparse(x: Tensor, p: float) -> bool:
    return x.device.type == "cpu" and 0.0 < p <= MAX_SPARSE_P and not is_traced()


class _Zero(torch.autograd.Function):
    """Zeroes some elements of a tensor that nothing else reads, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.mark_dirty(x)
        x.view(-1).index_fill_(0, positions, 0.0)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        grad = grad.clone(memory_format=torch.contiguous_format)
        return _Zero.apply(grad, positions), None


class _ZeroReLU(torch.autograd.Function):
    """As :class:`_Zero`, and a ReLU; what is zero has no gradient, whatever made it zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.relu_().view(-1).index_fill_(0, positions, 0.0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, out, 0), None


class _ReLUDropout(torch.autograd.Function):
    """As :class:`_ZeroReLU`, of a tensor that is left as it is, and scales what is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor, scale: float) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        torch.mul(x, scale, out=out).relu_().view(-1).index_fill_(0, positions, 0.0)
        ctx.save_for_backward(out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, out, 0) * ctx.scale, None, None
