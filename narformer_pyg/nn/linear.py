"""Linear maps in single precision on the CPU, by the faster of two libraries."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from narformer_pyg.nn.dropout import has_hooks
from narformer_pyg.nn.functional import is_traced


def linear(x: Tensor, lin: torch.nn.Module, add_to: Tensor | None = None) -> Tensor:
    r"""Applies a linear map, and adds what is given.

    PyTorch multiplies matrices in single precision with MKL. Where only a part of the processor's
    instructions is used by MKL, or few rows meet a large weight, the products of oneDNN, which
    PyTorch brings along, are faster: here both that of the forward pass and that for the gradient
    of the input are computed so. In all other cases it is :obj:`lin(x)`.

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


def has_onednn_products() -> bool:
    """Whether this PyTorch has the products of oneDNN under the name that is used here."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _is_plain(lin: torch.nn.Module, x: Tensor) -> bool:
    """Whether nothing but the product is needed: no hook, no replaced part, no other precision."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() == 0 or is_traced():
        return False
    return (
        type(lin) in (torch.nn.Linear, PyGLinear)
        and cast(Tensor, lin.weight).dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not has_hooks(lin)
        and has_onednn_products()
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, add_to: Tensor | None) -> Tensor:
    products = torch.ops.mkldnn._linear_pointwise
    if add_to is None:
        return cast(Tensor, products(x, weight, bias, "none", [], ""))
    return cast(Tensor, products.binary(x, add_to, weight, bias, "add"))


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
        grad_x = None
        if needs_x:
            differentiable = torch.is_grad_enabled()  # as in a second derivative
            grad_x = grad @ weight if differentiable else _multiply(grad, weight.t(), None, None)
        return (
            grad_x,
            grad.t() @ x if needs_weight else None,
            grad.sum(0) if needs_bias else None,
            grad if needs_add_to else None,
        )
