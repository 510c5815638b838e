"""Dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from narformer_pyg.nn import kernels


@kernels.accelerated_by(kernels.positional_dropout)
class Dropout(torch.nn.Dropout):
    r"""PyTorch's :class:`~torch.nn.Dropout`, with fewer random numbers on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        r"""Zeroes elements with probability :obj:`p` in training and scales the rest."""
        if fast := kernels.takes_over(self, x):
            return fast(self, x)
        return super().forward(x)
