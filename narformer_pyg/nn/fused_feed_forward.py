"""A grouped feed-forward network whose hidden features stay in the cache, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import LayerNorm

from narformer_pyg.nn.dropout import zeroed_positions
from narformer_pyg.nn.grouped_linear import GroupedLinear, split_groups
from narformer_pyg.nn.products import OneDNNProducts

_layer_norm = torch.native_layer_norm
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward


class _Settings(NamedTuple):
    """What is not learned."""

    eps_1: float
    eps_2: float
    dropout: float
    num_rows: int


def fused_feed_forward(
    x: Tensor,
    lin_1: GroupedLinear,
    norm_1: LayerNorm,
    lin_2: GroupedLinear,
    norm_2: LayerNorm,
    dropout: float,
    num_rows: int,
) -> Tensor:
    r"""Computes a :class:`~narformer_pyg.nn.GroupedFeedForward`, some rows at a time.

    The hidden features are several times larger than the input. Step by step, each of the norms,
    activations and dropouts reads and writes all of them from and to memory; here a part passes
    all steps while it is in the cache. What follows the first linear map is computed again for the
    gradient, so that the hidden features wait for the backward pass once and not twice. The
    gradient is derived by hand and cannot be differentiated again.

    Args:
        x (torch.Tensor): The rows :math:`(N, F)`, contiguous.
        lin_1 (GroupedLinear): The first linear map, with a bias.
        norm_1 (torch.nn.LayerNorm): The layer norm that follows it.
        lin_2 (GroupedLinear): The second linear map, with a bias.
        norm_2 (torch.nn.LayerNorm): The layer norm that follows it.
        dropout (float): The probability of an element to be zeroed; :obj:`0.0` in evaluation.
        num_rows (int): The rows that are worked on at a time.

    Returns:
        torch.Tensor: The rows :math:`(N, F)`.
    """
    learned = (
        *(lin_1.weights, lin_1.bias, norm_1.weight, norm_1.bias),
        *(lin_2.weights, lin_2.bias, norm_2.weight, norm_2.bias),
    )
    settings = _Settings(norm_1.eps, norm_2.eps, dropout, num_rows)
    return _FusedFeedForward.apply(x, *learned, settings)


def _products(x: Tensor, weights: Tensor, num_rows: int) -> OneDNNProducts:
    return OneDNNProducts(x, min(num_rows, x.size(0)) * weights.numel())


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
        settings: _Settings,
    ) -> Tensor:
        eps_1, eps_2, dropout, num_rows = settings
        num_groups = weights_1.size(0)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        # Dropout scales what it keeps; in the parameters of the norms this costs nothing.
        keep = 1.0 / (1.0 - dropout)
        scale_1, shift_1, scale_2, shift_2 = (
            p * keep for p in (scale_1, shift_1, scale_2, shift_2)
        )
        products = _products(x, weights_1, num_rows)
        saved: list[Tensor | None] = []
        for rows, out_rows in zip(x.split(num_rows), out.split(num_rows), strict=True):
            with products:
                hidden = torch.bmm(split_groups(rows, num_groups), weights_1)
            hidden.add_(bias_1)
            zeroed_1 = zeroed_2 = None
            if dropout > 0.0:
                zeroed_1 = zeroed_positions(hidden.numel(), dropout)
                zeroed_2 = zeroed_positions(rows.numel(), dropout)
            active, _, _ = _activate(hidden, scale_1, shift_1, eps_1, zeroed_1)
            with products:
                mapped = torch.bmm(active, weights_2)
            mapped.add_(bias_2)
            part, mean, rstd = _layer_norm(mapped, scale_2.shape, scale_2, shift_2, eps_2)
            if zeroed_2 is not None:
                part.view(-1).index_fill_(0, zeroed_2, 0.0)
            split_groups(out_rows, num_groups).copy_(part)
            saved += [hidden, mapped, mean, rstd, zeroed_1, zeroed_2]
        ctx.save_for_backward(x, weights_1, weights_2, scale_1, shift_1, scale_2, *saved)
        ctx.settings = settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights_1, weights_2, scale_1, shift_1, scale_2, *saved = ctx.saved_tensors
        eps_1, _, dropout, num_rows = ctx.settings
        num_groups = weights_1.size(0)
        keep = 1.0 / (1.0 - dropout)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        grad_weights_1, grad_weights_2 = torch.empty_like(weights_1), torch.empty_like(weights_2)
        others: list[Tensor] = []  # gradients of bias, scale and shift of both maps
        products = _products(x, weights_1, num_rows)
        parts = zip(x.split(num_rows), grad.split(num_rows), grad_x.split(num_rows), strict=True)
        for i, (rows, grad_rows, grad_x_rows) in enumerate(parts):
            hidden, mapped, mean, rstd, zeroed_1, zeroed_2 = saved[6 * i : 6 * i + 6]
            # A copy, which is written to; the incoming gradient belongs to others.
            outer = split_groups(grad_rows, num_groups).clone(memory_format=torch.contiguous_format)
            if zeroed_2 is not None:
                outer.view(-1).index_fill_(0, zeroed_2, 0.0)
            outer, *norm_2 = _layer_norm_backward(
                outer, mapped, scale_2.shape, mean, rstd, scale_2, scale_2, [True] * 3
            )
            active, mean, rstd = _activate(hidden, scale_1, shift_1, eps_1, zeroed_1)
            with products:
                # With beta=0, what was in the memory before is not looked at.
                grad_weights_2.baddbmm_(active.transpose(1, 2), outer, beta=min(i, 1))
                inner = torch.bmm(outer, weights_2.transpose(1, 2))
            torch.ops.aten.threshold_backward.grad_input(inner, active, 0.0, grad_input=inner)
            inner, *norm_1 = _layer_norm_backward(
                inner, hidden, scale_1.shape, mean, rstd, scale_1, shift_1, [True] * 3
            )
            groups = split_groups(rows, num_groups).contiguous()
            with products:
                grad_weights_1.baddbmm_(groups.transpose(1, 2), inner, beta=min(i, 1))
                groups = torch.bmm(inner, weights_1.transpose(1, 2))
            split_groups(grad_x_rows, num_groups).copy_(groups)
            part = [
                *(inner.sum(1, keepdim=True), *norm_1),
                *(outer.sum(1, keepdim=True), *norm_2),
            ]
            others = [a.add_(b) for a, b in zip(others, part, strict=True)] if others else part
        for i in (1, 2, 4, 5):  # the scales and shifts of the norms
            others[i].mul_(keep)
        return (grad_x, grad_weights_1, *others[:3], grad_weights_2, *others[3:], None)
