"""The grouped feed-forward network of a NAR-Former V2 block."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn.resolver import activation_resolver

from narformer_pyg._checks import check_integer
from narformer_pyg.nn import kernels
from narformer_pyg.nn.dropout import Dropout
from narformer_pyg.nn.grouped_linear import GroupedLinear, merge_groups, split_groups


@kernels.accelerated_by(kernels.grouped_feed_forward)
class GroupedFeedForward(torch.nn.Module):
    r"""A two-layer perceptron on groups of features, with a layer norm in every group.

    .. math::
        \mathrm{GFFN}(\mathbf{x}) = \mathrm{LN}_2 \left( \phi(\mathrm{LN}_1(
        \mathbf{x} \mathbf{W}_1 + \mathbf{b}_1)) \mathbf{W}_2 + \mathbf{b}_2 \right)

    Both linear maps are :class:`GroupedLinear`; the layer norms act inside each group and their
    affine parameters are shared by the groups, as in the authors' release. Features are not
    shuffled between the groups.

    Args:
        channels (int): Size of each input and output sample, a multiple of :obj:`num_groups`.
        ratio (int, optional): Hidden size as a multiple of :obj:`channels`. (default: :obj:`4`)
        num_groups (int, optional): The number of groups. (default: :obj:`8`)
        dropout (float, optional): Dropout probability, after the activation and after the second
            layer norm. (default: :obj:`0.05`)
        act (str or Callable, optional): The activation :math:`\phi`. (default: :obj:`"relu"`)

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """

    #: The classes of the parts that kernels know.
    PARTS = {  # noqa: RUF012
        "lin_1": GroupedLinear,
        "norm_1": torch.nn.LayerNorm,
        "act": torch.nn.ReLU,
        "lin_2": GroupedLinear,
        "norm_2": torch.nn.LayerNorm,
        "dropout": Dropout,
    }

    def __init__(
        self,
        channels: int,
        ratio: int = 4,
        num_groups: int = 8,
        dropout: float = 0.05,
        act: str | torch.nn.Module = "relu",
    ) -> None:
        super().__init__()
        check_integer("ratio", ratio)
        self.channels = channels
        self.num_groups = num_groups
        self.lin_1 = GroupedLinear(channels, ratio * channels, num_groups)
        self.norm_1 = torch.nn.LayerNorm(ratio * channels // num_groups)
        self.act = activation_resolver(act)
        self.lin_2 = GroupedLinear(ratio * channels, channels, num_groups)
        self.norm_2 = torch.nn.LayerNorm(channels // num_groups)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.lin_1, self.norm_1, self.lin_2, self.norm_2):
            module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Maps features :math:`(*, F)` to :math:`(*, F)`."""
        if x.size(-1) != self.channels:
            raise ValueError(
                f"Expected the last dimension of 'x' to be {self.channels} "
                f"(got shape {list(x.shape)})"
            )
        if fast := kernels.takes_over(self, x):
            return fast(self, x)
        h = self.lin_1(split_groups(x, self.num_groups), grouped=True)
        h = self.dropout(self.act(self.norm_1(h)))  # [num_groups, *, ratio * F / num_groups]
        h = self.dropout(self.norm_2(self.lin_2(h, grouped=True)))
        return merge_groups(h).view(x.shape)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, "
            f"ratio={self.lin_1.out_channels // self.channels}, num_groups={self.num_groups})"
        )
