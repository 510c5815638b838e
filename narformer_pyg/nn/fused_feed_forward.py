"""A grouped feed-forward network whose hidden features stay in the cache, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from narformer_pyg.nn.dropout import zeroed_positions

_layer_norm = torch.native_layer_norm
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward


class Settings(NamedTuple):
    """What is not learned.

    Args:
        eps_1: The epsilon of the first layer norm.
        eps_2: The epsilon of the second one.
        dropout: The probability of an element to be zeroed; :obj:`0.0` in evaluation.
        num_rows: The rows that are worked on at a time.
    """

    eps_1: float
    eps_2: float
    dropout: float
    num_rows: int


def fused_feed_forward(
    x: Tensor,
    weights_1: Tensor,
    bias_1: Tensor,
    scale_1: Tensor,
    shift_1: Tensor,
    weights_2: Tensor,
    bias_2: Tensor,
    scale_2: Tensor,
    shift_2: Tensor,
    settings: Settings,
) -> Tensor:
    r"""Computes a :class:`~narformer_pyg.nn.GroupedFeedForward`, some rows at a time.

    The hidden features are several times larger than the input. Step by step, each of the norms,
    activations and dropouts reads and writes all of them from and to memory; here a part passes
    all steps while it is in the cache. What follows the first linear map is computed again for the
    gradient, which halves the memory that waits for the backward pass. The gradient is derived by
    hand and cannot be differentiated again.

    Args:
        x (torch.Tensor): The rows :math:`(N, F)`, at least one, contiguous.
        weights_1 (torch.Tensor): The first linear map :math:`(G, F / G, rF / G)`.
        bias_1 (torch.Tensor): Its bias :math:`(G, 1, rF / G)`.
        scale_1 (torch.Tensor): The scale of the first layer norm :math:`(rF / G)`.
        shift_1 (torch.Tensor): Its shift.
        weights_2 (torch.Tensor): The second linear map :math:`(G, rF / G, F / G)`.
        bias_2 (torch.Tensor): Its bias :math:`(G, 1, F / G)`.
        scale_2 (torch.Tensor): The scale of the second layer norm :math:`(F / G)`.
        shift_2 (torch.Tensor): Its shift.
        settings (Settings): What is not learned.

    Returns:
        torch.Tensor: The rows :math:`(N, F)`.
    """
    return _FusedFeedForward.apply(
        x, weights_1, bias_1, scale_1, shift_1, weights_2, bias_2, scale_2, shift_2, settings
    )


def _activate(
    hidden: Tensor, scale: Tensor, shift: Tensor, eps: float, zeroed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns hidden features after norm, ReLU and dropout, and mean and deviation of the norm."""
    out, mean, rstd = _layer_norm(hidden, scale.shape, scale, shift, eps)
    out.relu_()
    if zeroed is not None:
        out.view(-1).index_fill_(0, zeroed, 0.0)
    return out, mean, rstd


class _FusedFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights_1: Tensor,
        bias_1: Tensor,
        scale_1: Tensor,
        shift_1: Tensor,
        weights_2: Tensor,
        bias_2: Tensor,
        scale_2: Tensor,
        shift_2: Tensor,
        settings: Settings,
    ) -> Tensor:
        num_groups, size = weights_1.size(0), weights_1.size(1)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        # Dropout scales what it keeps; in the parameters of the norms this costs nothing.
        keep = 1.0 / (1.0 - settings.dropout)
        scaled = [p * keep for p in (scale_1, shift_1, scale_2, shift_2)]
        saved: list[Tensor | None] = []
        for start in range(0, x.size(0), settings.num_rows):
            rows = x[start : start + settings.num_rows].view(-1, num_groups, size)
            zeroed_1 = zeroed_2 = None
            if settings.dropout > 0.0:
                numel = rows.size(0) * num_groups * weights_1.size(2)
                zeroed_1 = zeroed_positions(numel, settings.dropout)
                zeroed_2 = zeroed_positions(rows.numel(), settings.dropout)
            hidden = torch.baddbmm(bias_1, rows.transpose(0, 1), weights_1)
            active, _, _ = _activate(hidden, scaled[0], scaled[1], settings.eps_1, zeroed_1)
            mapped = torch.baddbmm(bias_2, active, weights_2)
            part, mean, rstd = _layer_norm(
                mapped, scale_2.shape, scaled[2], scaled[3], settings.eps_2
            )
            if zeroed_2 is not None:
                part.view(-1).index_fill_(0, zeroed_2, 0.0)
            out[start : start + settings.num_rows].view(-1, num_groups, size).copy_(
                part.transpose(0, 1)
            )
            saved += [hidden, mapped, mean, rstd, zeroed_1, zeroed_2]
        ctx.save_for_backward(x, weights_1, weights_2, *scaled[:3], *saved)
        ctx.settings = settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights_1, weights_2, scale_1, shift_1, scale_2, *saved = ctx.saved_tensors
        settings = ctx.settings
        num_groups, size = weights_1.size(0), weights_1.size(1)
        keep = 1.0 / (1.0 - settings.dropout)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        transposed_1, transposed_2 = weights_1.transpose(1, 2), weights_2.transpose(1, 2)
        grad_weights_1, grad_weights_2 = torch.zeros_like(weights_1), torch.zeros_like(weights_2)
        grad_bias_1 = weights_1.new_zeros(num_groups, 1, weights_1.size(2))
        grad_bias_2 = weights_2.new_zeros(num_groups, 1, size)
        grad_norms = [torch.zeros_like(p) for p in (scale_1, shift_1, scale_2, scale_2)]
        for i, start in enumerate(range(0, x.size(0), settings.num_rows)):
            hidden, mapped, mean, rstd, zeroed_1, zeroed_2 = saved[6 * i : 6 * i + 6]
            rows = x[start : start + settings.num_rows].view(-1, num_groups, size)
            outer = grad[start : start + settings.num_rows].reshape(-1, num_groups, size)
            # A copy, which is written to; the incoming gradient belongs to others.
            outer = outer.transpose(0, 1).clone(memory_format=torch.contiguous_format)
            if zeroed_2 is not None:
                outer.view(-1).index_fill_(0, zeroed_2, 0.0)
            outer, *norm_2 = _layer_norm_backward(
                outer, mapped, scale_2.shape, mean, rstd, scale_2, scale_2, [True] * 3
            )
            active, mean, rstd = _activate(hidden, scale_1, shift_1, settings.eps_1, zeroed_1)
            grad_weights_2.baddbmm_(active.transpose(1, 2), outer)
            grad_bias_2 += outer.sum(1, keepdim=True)

            inner = torch.bmm(outer, transposed_2)
            torch.ops.aten.threshold_backward.grad_input(inner, active, 0.0, grad_input=inner)
            inner, *norm_1 = _layer_norm_backward(
                inner, hidden, scale_1.shape, mean, rstd, scale_1, shift_1, [True] * 3
            )
            grad_weights_1.baddbmm_(rows.permute(1, 2, 0), inner)
            grad_bias_1 += inner.sum(1, keepdim=True)
            grad_x[start : start + settings.num_rows].view(-1, num_groups, size).copy_(
                torch.bmm(inner, transposed_1).transpose(0, 1)
            )
            for total, part in zip(grad_norms, norm_1 + norm_2, strict=True):
                total.add_(part, alpha=keep)
        return (
            grad_x,
            *(grad_weights_1, grad_bias_1, *grad_norms[:2]),
            *(grad_weights_2, grad_bias_2, *grad_norms[2:]),
            None,
        )
