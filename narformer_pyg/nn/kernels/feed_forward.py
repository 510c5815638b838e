"""The grouped feed-forward network with its hidden features in the cache, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from narformer_pyg.nn.kernels.door import (
    Kernel,
    has_global_hooks,
    is_as_built,
    refuse_double_backward,
)
from narformer_pyg.nn.kernels.dropout import MAX_P, zeroed_positions
from narformer_pyg.nn.kernels.onednn import onednn_products

#: Hidden elements that are worked on at a time: 4 MB in single precision.
CACHED_ELEMENTS = 1 << 20

_layer_norm = torch.native_layer_norm
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward


class _Settings(NamedTuple):
    """Numbers that are not learned."""

    eps_1: float
    eps_2: float
    dropout: float
    num_rows: int


def _accepts(module: Any, x: Tensor) -> bool:
    """Whether all parts are as built, without hooks and in the precision of the input."""
    return (
        x.device.type == "cpu"
        and x.numel() > 0
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not (module.training and module.dropout.p > MAX_P)
        and is_as_built(module)
        and not has_global_hooks()
        and module.lin_1.weights.dtype == x.dtype == module.norm_1.weight.dtype
        and module.lin_2.weights.dtype == x.dtype == module.norm_2.weight.dtype
    )


def _learned(module: Any) -> tuple[Tensor, ...]:
    lin_1, norm_1, lin_2, norm_2 = module.lin_1, module.norm_1, module.lin_2, module.norm_2
    first = (lin_1.weights, lin_1.bias, norm_1.weight, norm_1.bias)
    return (*first, lin_2.weights, lin_2.bias, norm_2.weight, norm_2.bias)


def feed_forward(module: Any, x: Tensor) -> Tensor:
    r"""Maps features :math:`(*, F)` to :math:`(*, F)`."""
    rows = x.reshape(-1, x.size(-1)).contiguous()
    settings = _Settings(
        module.norm_1.eps,
        module.norm_2.eps,
        module.dropout.p if module.training else 0.0,
        max(CACHED_ELEMENTS // module.lin_1.out_channels, 1),
    )
    if torch.is_grad_enabled():
        return _FeedForward.apply(rows, *_learned(module), settings).view(x.shape)
    return _forward(rows, _learned(module), settings).view(x.shape)


def _split(x: Tensor, num_groups: int) -> Tensor:
    """Views features [N, F] as groups [G, N, F / G]."""
    return x.view(x.size(0), num_groups, -1).transpose(0, 1)


def _activate(
    hidden: Tensor, scale: Tensor, shift: Tensor, eps: float, zeroed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns hidden features after norm, ReLU and dropout, and mean and deviation of the norm."""
    out, mean, rstd = _layer_norm(hidden, scale.shape, scale, shift, eps)
    out.relu_()
    if zeroed is not None:
        out.view(-1).index_fill_(0, zeroed, 0.0)
    return out, mean, rstd


def _forward(
    x: Tensor,
    learned: tuple[Tensor, ...],
    settings: _Settings,
    saved: list[Tensor | None] | None = None,
) -> Tensor:
    """Maps rows [N, F] to [N, F], and keeps in ``saved`` what the backward pass needs."""
    weights_1, bias_1, scale_1, shift_1, weights_2, bias_2, scale_2, shift_2 = learned
    eps_1, eps_2, dropout, num_rows = settings
    num_groups = weights_1.size(0)
    products = onednn_products(x, min(num_rows, x.size(0)) * weights_1.numel())
    parts = []
    for rows in x.split(num_rows):
        with products:
            hidden = torch.baddbmm(bias_1, _split(rows, num_groups), weights_1)
        zeroed_1 = zeroed_2 = None
        if dropout > 0.0:
            zeroed_1 = zeroed_positions(hidden.numel(), dropout)
            zeroed_2 = zeroed_positions(rows.numel(), dropout)
        active, _, _ = _activate(hidden, scale_1, shift_1, eps_1, zeroed_1)
        with products:
            mapped = torch.baddbmm(bias_2, active, weights_2)
        part, mean, rstd = _layer_norm(mapped, scale_2.shape, scale_2, shift_2, eps_2)
        if zeroed_2 is not None:
            part.view(-1).index_fill_(0, zeroed_2, 0.0)
        parts.append(part.transpose(0, 1))
        if saved is not None:
            saved += [hidden, mapped, mean, rstd, zeroed_1, zeroed_2]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.reshape(x.shape)  # [N, num_groups, F / num_groups] before


class _FeedForward(torch.autograd.Function):
    """Some rows at a time pass all steps while they are in the cache.

    What follows the first linear map is computed again in the backward pass, so that hidden
    features are stored once and not twice.
    """

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
        # Dropout scales what it keeps; in the parameters of the norms this costs nothing.
        keep = 1.0 / (1.0 - settings.dropout)
        scale_1, scale_2 = scale_1 * keep, scale_2 * keep
        first = (weights_1, bias_1, scale_1, shift_1 * keep)
        second = (weights_2, bias_2, scale_2, shift_2 * keep)
        shift_1 = first[-1]
        saved: list[Tensor | None] = []
        out = _forward(x, (*first, *second), settings, saved)
        ctx.save_for_backward(x, weights_1, weights_2, scale_1, shift_1, scale_2, *saved)
        ctx.settings = settings
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward(grouped_feed_forward.name)
        x, weights_1, weights_2, scale_1, shift_1, scale_2, *saved = ctx.saved_tensors
        eps_1, _, dropout, num_rows = ctx.settings
        num_groups = weights_1.size(0)
        keep = 1.0 / (1.0 - dropout)
        grad_x = torch.empty_like(x)
        grad_weights_1, grad_weights_2 = torch.empty_like(weights_1), torch.empty_like(weights_2)
        others: list[Tensor] = []  # gradients of bias, scale and shift of both maps
        products = onednn_products(x, min(num_rows, x.size(0)) * weights_1.numel())
        parts = zip(x.split(num_rows), grad.split(num_rows), grad_x.split(num_rows), strict=True)
        for i, (rows, grad_rows, grad_x_rows) in enumerate(parts):
            hidden, mapped, mean, rstd, zeroed_1, zeroed_2 = saved[6 * i : 6 * i + 6]
            # A copy to write to; the incoming gradient belongs to autograd.
            outer = _split(grad_rows.contiguous(), num_groups).clone(
                memory_format=torch.contiguous_format
            )
            if zeroed_2 is not None:
                outer.view(-1).index_fill_(0, zeroed_2, 0.0)
            outer, *norm_2 = _layer_norm_backward(
                outer, mapped, scale_2.shape, mean, rstd, scale_2, scale_2, [True] * 3
            )
            active, mean, rstd = _activate(hidden, scale_1, shift_1, eps_1, zeroed_1)
            with products:
                # beta=0 ignores the uninitialized memory of the first part.
                grad_weights_2.baddbmm_(active.transpose(1, 2), outer, beta=min(i, 1))
                inner = torch.bmm(outer, weights_2.transpose(1, 2))
            torch.ops.aten.threshold_backward.grad_input(inner, active, 0.0, grad_input=inner)
            inner, *norm_1 = _layer_norm_backward(
                inner, hidden, scale_1.shape, mean, rstd, scale_1, shift_1, [True] * 3
            )
            groups = _split(rows, num_groups).contiguous()
            with products:
                grad_weights_1.baddbmm_(groups.transpose(1, 2), inner, beta=min(i, 1))
                groups = torch.bmm(inner, weights_1.transpose(1, 2))
            _split(grad_x_rows, num_groups).copy_(groups)
            part = [
                *(inner.sum(1, keepdim=True), *norm_1),
                *(outer.sum(1, keepdim=True), *norm_2),
            ]
            others = [a.add_(b) for a, b in zip(others, part, strict=True)] if others else part
        for i in (1, 2, 4, 5):  # the scales and shifts of the norms
            others[i].mul_(keep)
        return (grad_x, grad_weights_1, *others[:3], grad_weights_2, *others[3:], None)


#: The grouped feed-forward network some rows at a time, on the CPU.
grouped_feed_forward = Kernel("grouped_feed_forward", _accepts, feed_forward)
