"""Linear maps in single precision on the CPU, by the faster of two libraries."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from narformer_pyg.nn.dropout import has_hooks
from narformer_pyg.nn.functional import is_traced
from narformer_pyg.nn.products import OneDNNProducts


def linear(x: Tensor, lin: torch.nn.Module, add_to: Tensor | None = None) -> Tensor:
    r"""Applies a linear map, and adds what is given.

    On the CPU, the products of the forward pass and of both gradients are those of
    :class:`~narformer_pyg.nn.products.OneDNNProducts`, unless something waits for calls of the
    module.

    Args:
        x (torch.Tensor): The rows :math:`(N, F_{in})`.
        lin (torch.nn.Module): The linear map.
        add_to (torch.Tensor, optional): Rows :math:`(N, F_{out})` that are added to the output.
            (default: :obj:`None`)

    Returns:
        torch.Tensor: The rows :math:`(N, F_{out})`.
    """
    if not _is_plain(lin, x) or (add_to is not None and add_to.dtype != x.dtype):
        return lin(x) if add_to is None else add_to + lin(x)
    weight, bias = cast(Tensor, lin.weight), cast("Tensor | None", lin.bias)
    if torch.is_grad_enabled():
        return cast(Tensor, _Linear.apply(x, weight, bias, add_to))
    return _multiply(x, weight, bias, add_to)


def _is_plain(lin: torch.nn.Module, x: Tensor) -> bool:
    """Whether nothing but the product is needed: no hook, no replaced part, no other precision."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() == 0 or is_traced():
        return False
    return (
        type(lin) in (torch.nn.Linear, PyGLinear)
        and cast(Tensor, lin.weight).dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not has_hooks(lin)
    )


def _products(x: Tensor, weight: Tensor) -> OneDNNProducts:
    return OneDNNProducts(x, x.size(0) * weight.numel())


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, add_to: Tensor | None) -> Tensor:
    with _products(x, weight):
        if add_to is None:
            return F.linear(x, weight, bias)
        out = torch.addmm(add_to, x, weight.t())
    return out if bias is None else out.add_(bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, add_to: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias, add_to)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_add_to = ctx.needs_input_grad
        with _products(x, weight):
            return (
                grad @ weight if needs_x else None,
                grad.t() @ x if needs_weight else None,
                grad.sum(0) if needs_bias else None,
                grad if needs_add_to else None,
            )
