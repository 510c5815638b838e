"""Dropout that draws the positions of the zeros instead of a number for each element."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from narformer_pyg.nn.kernels.door import Kernel

#: Above it a number for each element is cheaper than a list of zeros.
MAX_P = 0.25


def zeroed_positions(numel: int, p: float) -> Tensor:
    r"""Draws the elements that dropout zeroes, in ascending order.

    Each of :obj:`numel` elements is among them with probability :obj:`p`, independently of the
    others: the gaps between them follow a geometric distribution. Uses torch's CPU generator.

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
        gaps = v.neg_().log1p_().mul_(1.0 / math.log1p(-p)).long()
        positions = gaps.add_(1).cumsum_(0).add_(last)
        parts.append(positions)
        last = int(positions[-1])
    positions = parts[0] if len(parts) == 1 else torch.cat([*parts, torch.empty(0).long()])
    return positions[: int(torch.searchsorted(positions, numel))]


def _accepts(module: torch.nn.Dropout, x: Tensor) -> bool:
    return module.training and 0.0 < module.p <= MAX_P and x.device.type == "cpu"


def _run(module: torch.nn.Dropout, x: Tensor) -> Tensor:
    return _Dropout.apply(x, zeroed_positions(x.numel(), module.p), 1.0 / (1.0 - module.p))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.scale = scale
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        torch.mul(x, scale, out=out)
        out.view(-1).index_fill_(0, positions, 0.0)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        return _Dropout.apply(grad, positions, ctx.scale), None, None


#: Dropout by positions: :obj:`p` random numbers for an element, on the CPU.
positional_dropout = Kernel("positional_dropout", _accepts, _run)
