"""A linear map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn.dense.linear import Linear as PyGLinear
from torch_geometric.nn.dense.linear import is_uninitialized_parameter

from narformer_pyg.nn import kernels


@kernels.accelerated_by(kernels.onednn_linear)
class Linear(PyGLinear):
    r"""PyG's :class:`~torch_geometric.nn.dense.linear.Linear`, by the faster library on the CPU.

    Args:
        in_channels (int): Size of each input sample; :obj:`-1` waits for :meth:`materialize`.
        out_channels (int): Size of each output sample; likewise.
        bias (bool, optional): If set to :obj:`False`, will not learn an additive bias.
            (default: :obj:`True`)

    Shapes:
        - **input:** features :math:`(*, F_{in})`
        - **output:** features :math:`(*, F_{out})`
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        if -1 not in (in_channels, out_channels):
            super().__init__(in_channels, out_channels, bias)
            return
        super().__init__(1, 1, bias)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = UninitializedParameter()
        if bias:
            self.bias = UninitializedParameter()

    @torch.no_grad()
    def materialize(self, in_channels: int, out_channels: int) -> None:
        r"""Gives the parameters their size and initial values, unless they have them."""
        if not is_uninitialized_parameter(self.weight):
            return
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight.materialize((out_channels, in_channels))
        if self.bias is not None:
            self.bias.materialize((out_channels,))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the layer."""
        if not is_uninitialized_parameter(self.weight):
            super().reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Maps features :math:`(*, F_{in})` to :math:`(*, F_{out})`."""
        if fast := kernels.takes_over(self, x):
            return fast(self, x)
        return super().forward(x)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if isinstance(weight, Tensor) and not is_uninitialized_parameter(weight):
            self.materialize(weight.size(1), weight.size(0))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
