"""One block of NAR-Former V2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.typing import Adj

from narformer_pyg.nn.conv import GraphAidedAttentionConv
from narformer_pyg.nn.dropout import relu_dropout
from narformer_pyg.nn.grouped_feed_forward import GroupedFeedForward


class NARFormerV2Block(torch.nn.Module):
    r"""Graph-aided attention followed by a grouped feed-forward network.

    .. math::
        \mathbf{H} &= \mathrm{Dropout}(\mathrm{ReLU}(\mathrm{Attention}(\mathbf{X}, \mathbf{A})))

        \mathbf{X}' &= \mathbf{H} + \boldsymbol{\gamma} \odot \mathrm{GFFN}(\mathrm{LN}(\mathbf{H}))

    There is no residual connection around the attention (its root projection takes that part), and
    :math:`\boldsymbol{\gamma}` starts at :math:`10^{-4}`, both as in the authors' release.

    Args:
        in_channels (int): Size of each input node feature vector.
        out_channels (int): Size of each output node feature vector.
        ffn_ratio (int, optional): Hidden size of the feed-forward network as a multiple of
            :obj:`out_channels`. (default: :obj:`4`)
        num_groups (int, optional): Groups of the feed-forward network. (default: :obj:`8`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.05`)
        **kwargs (optional): Additional arguments of
            :class:`~narformer_pyg.nn.GraphAidedAttentionConv`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)`
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ffn_ratio: int = 4,
        num_groups: int = 8,
        dropout: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv = GraphAidedAttentionConv(in_channels, out_channels, **kwargs)
        self.norm = torch.nn.LayerNorm(out_channels)
        self.ffn = GroupedFeedForward(out_channels, ffn_ratio, num_groups, dropout)
        self.layer_scale = Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.conv.reset_parameters()
        self.norm.reset_parameters()
        self.ffn.reset_parameters()
        torch.nn.init.constant_(self.layer_scale, 1e-4)

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        r"""Maps node features :math:`(|V|, F_{in})` to :math:`(|V|, F_{out})`."""
        h = relu_dropout(self.conv(x, edge_index), self.dropout, self.training)
        return torch.addcmul(h, self.layer_scale, self.ffn(self.norm(h)))

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.conv.in_channels}, {self.conv.out_channels}, "
            f"ffn={self.ffn})"
        )
