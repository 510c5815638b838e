"""A linear map that is block diagonal."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from narformer_pyg._checks import check_integer


class GroupedLinear(torch.nn.Module):
    r"""A linear transformation of contiguous groups of features, each by a matrix of its own.

    .. math::
        \mathbf{y}_g = \mathbf{x}_g \mathbf{W}_g + \mathbf{b}_g, \quad g = 1, \dots, G

    with :math:`\mathbf{x} = [\mathbf{x}_1 \| \dots \| \mathbf{x}_G]`. It costs a :math:`G`-th of
    the operations and parameters of :class:`torch.nn.Linear`. The weights are drawn as in the
    authors' release: Xavier-uniform with the fans of the whole three-dimensional tensor.

    Args:
        in_channels (int): Size of each input sample, a multiple of :obj:`num_groups`.
        out_channels (int): Size of each output sample, a multiple of :obj:`num_groups`.
        num_groups (int, optional): The number of groups :math:`G`. (default: :obj:`8`)
        bias (bool, optional): If set to :obj:`False`, will not learn an additive bias.
            (default: :obj:`True`)

    Shapes:
        - **input:** features :math:`(*, F_{in})`
        - **output:** features :math:`(*, F_{out})`
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_groups: int = 8, bias: bool = True
    ) -> None:
        super().__init__()
        check_integer("num_groups", num_groups)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            check_integer(name, value)
            if value % num_groups != 0:
                raise ValueError(
                    f"Expected 'num_groups' to divide '{name}' (got {num_groups} and {value})"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_groups = num_groups
        self.weights = Parameter(
            torch.empty(num_groups, in_channels // num_groups, out_channels // num_groups)
        )
        if bias:
            self.bias = Parameter(torch.empty(num_groups, 1, out_channels // num_groups))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        torch.nn.init.xavier_uniform_(self.weights)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, grouped: bool = False) -> Tensor:
        r"""Maps features :math:`(*, F_{in})` to :math:`(*, F_{out})`.

        Args:
            x (torch.Tensor): The features.
            grouped (bool, optional): If set to :obj:`True`, input and output are groups
                :math:`(G, N, F_{in} / G)` and :math:`(G, N, F_{out} / G)`, which saves chains of
                grouped maps their transpositions. (default: :obj:`False`)
        """
        if not grouped:
            if x.size(-1) != self.in_channels:
                raise ValueError(
                    f"Expected the last dimension of 'x' to be {self.in_channels} "
                    f"(got shape {list(x.shape)})"
                )
            out = merge_groups(self.forward(split_groups(x, self.num_groups), True))
            return out.view(*x.shape[:-1], self.out_channels)
        if self.bias is None:
            return torch.bmm(x, self.weights)
        return torch.baddbmm(self.bias, x, self.weights)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_groups={self.num_groups})"
        )


def split_groups(x: Tensor, num_groups: int) -> Tensor:
    """Views features [*, F] as groups [G, N, F / G]."""
    return x.reshape(-1, num_groups, x.size(-1) // num_groups).transpose(0, 1)


def merge_groups(x: Tensor) -> Tensor:
    """Turns groups [G, N, F / G] back into features [N, F]."""
    return x.transpose(0, 1).flatten(1)
