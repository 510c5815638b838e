"""Graph neural networks of PyG under the same readout and head, to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE
from torch_geometric.typing import Adj

from narformer_pyg.nn.dropout import dropout as apply_dropout
from narformer_pyg.nn.models.graph_regressor import GraphRegressor

_NETWORKS = {"gcn": GCN, "gat": GAT, "gin": GIN, "graphsage": GraphSAGE}


class GNNBaseline(GraphRegressor):
    r"""A message passing network of :mod:`torch_geometric.nn.models` as a predictor.

    Node codes, readout, graph features and head are those of
    :class:`~narformer_pyg.nn.models.NARFormerV2`; a block is a convolution, a layer norm, a ReLU
    and dropout. :obj:`"graphsage"` with :obj:`readout="sum"` and graph features follows the latency
    predictor of NNLQP (Liu et al., ICPP 2022).

    Args:
        network (str): :obj:`"gcn"`, :obj:`"gat"`, :obj:`"gin"` or :obj:`"graphsage"`.
        in_channels (int): Size of each node code.
        hidden_channels (int, optional): Size of the node states. (default: :obj:`512`)
        num_blocks (int, optional): The number of convolutions. (default: :obj:`6`)
        out_channels (int, optional): The number of targets. (default: :obj:`1`)
        readout (str, optional): :obj:`"fusion"`, :obj:`"sum"` or :obj:`"mean"`.
            (default: :obj:`"fusion"`)
        static_channels (int, optional): Size of the code of the graph features.
            (default: :obj:`0`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.05`)
        undirected (bool, optional): If set to :obj:`False`, edges are used in the direction of the
            data flow only. (default: :obj:`True`)
        norm (bool, optional): If set to :obj:`False`, will not normalize the node states of a
            block. (default: :obj:`True`)
        **kwargs (optional): Additional arguments of the convolution.

    Shapes:
        As in :class:`~narformer_pyg.nn.models.NARFormerV2`.
    """

    def __init__(
        self,
        network: str,
        in_channels: int,
        hidden_channels: int = 512,
        num_blocks: int = 6,
        out_channels: int = 1,
        readout: str = "fusion",
        static_channels: int = 0,
        dropout: float = 0.05,
        undirected: bool = True,
        norm: bool = True,
        **kwargs: Any,
    ) -> None:
        if network not in _NETWORKS:
            raise ValueError(
                f"Expected 'network' to be among {', '.join(_NETWORKS)} (got {network!r})"
            )
        super().__init__(
            in_channels,
            hidden_channels,
            num_blocks,
            out_channels,
            readout,
            static_channels,
            dropout,
            undirected,
        )
        self.network = network
        self.config.update(norm=norm, **kwargs)
        # PyG leaves the last convolution bare. Here the readout sees every block, so all are alike:
        # the convolutions are taken from PyG's model, and what follows them is done below.
        self.gnn = _NETWORKS[network](
            in_channels, hidden_channels, num_blocks, out_channels=hidden_channels, **kwargs
        )
        self.norms = torch.nn.ModuleList(
            torch.nn.LayerNorm(hidden_channels) if norm else torch.nn.Identity()
            for _ in range(num_blocks)
        )

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        self.gnn.reset_parameters()
        for norm in self.norms:
            if isinstance(norm, torch.nn.LayerNorm):
                norm.reset_parameters()

    def encode(self, x: Tensor, edge_index: Adj) -> list[Tensor]:
        r"""Returns the node states :math:`(|V|, F)` after every block."""
        states = []
        for conv, norm in zip(self.gnn.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index)).relu()
            x = apply_dropout(x, self.dropout, self.training)
            states.append(x)
        return states
