"""Graph neural networks of PyG under the same readout and head, to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv import GATConv, GCNConv, GINConv, MessagePassing, SAGEConv
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE

from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.registry import register_model


class GNNBaseline(GraphRegressor):
    r"""A message passing network of :mod:`torch_geometric.nn.models` as a predictor.

    Node codes, readout, graph features and head are those of
    :class:`~narformer_pyg.nn.models.NARFormerV2`; a block is a convolution, a layer norm, an
    activation and dropout. Its subclasses name the network. :class:`GraphSAGEBaseline` with
    :obj:`readout="sum"` and graph features follows the latency predictor of NNLQP (Liu et al.,
    ICPP 2022).

    Args:
        in_channels (int): Size of each node code, or :obj:`-1` to take it from the first input.
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
        norm (str, optional): What follows a convolution: :obj:`"layer"` is a layer norm,
            :obj:`"none"` nothing. (default: :obj:`"layer"`)
        act (str, optional): The activation. (default: :obj:`"relu"`)
        **kwargs (optional): Additional arguments of the convolution.

    Shapes:
        As in :class:`~narformer_pyg.nn.models.NARFormerV2`.
    """

    #: The network of PyG whose convolutions are the blocks.
    network: Any

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 512,
        num_blocks: int = 6,
        out_channels: int = 1,
        readout: str = "fusion",
        static_channels: int = 0,
        dropout: float = 0.05,
        undirected: bool = True,
        norm: str = "layer",
        act: str = "relu",
        **kwargs: Any,
    ) -> None:
        if norm not in ("layer", "none"):
            raise ValueError(f"Expected 'norm' to be 'layer' or 'none' (got {norm!r})")
        super().__init__(
            in_channels,
            hidden_channels,
            num_blocks,
            out_channels,
            readout,
            static_channels,
            dropout,
            undirected,
            act,
        )
        self.config.update(norm=norm, **kwargs)
        # PyG leaves the last convolution bare, but the readout sees every block: take the
        # convolutions of PyG's model, and let the same follow each.
        self.gnn = self.network(
            in_channels, hidden_channels, num_blocks, out_channels=hidden_channels, **kwargs
        )
        self.norms = torch.nn.ModuleList(
            torch.nn.LayerNorm(hidden_channels) if norm == "layer" else torch.nn.Identity()
            for _ in range(num_blocks)
        )

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        self.gnn.reset_parameters()
        for norm in self.norms:
            if isinstance(norm, torch.nn.LayerNorm):
                norm.reset_parameters()

    def encode(self, x: Tensor, edge_index: Tensor) -> list[Tensor]:
        r"""Returns the node states :math:`(|V|, F)` after every block."""
        states = []
        for conv, norm in zip(self.gnn.convs, self.norms, strict=True):
            x = self.dropout(self.act(norm(conv(x, edge_index))))
            states.append(x)
        return states


@register_model("gcn")
class GCNBaseline(GNNBaseline):
    """The graph convolutional network (Kipf and Welling, ICLR 2017)."""

    network = GCN
    PASSES_ON_TO = (GCNConv, MessagePassing)


@register_model("gat")
class GATBaseline(GNNBaseline):
    """The graph attention network (Velickovic et al., ICLR 2018)."""

    network = GAT
    PASSES_ON_TO = (GATConv, MessagePassing)


@register_model("gin")
class GINBaseline(GNNBaseline):
    """The graph isomorphism network (Xu et al., ICLR 2019)."""

    network = GIN
    PASSES_ON_TO = (GINConv, MessagePassing)


@register_model("graphsage")
class GraphSAGEBaseline(GNNBaseline):
    """GraphSAGE (Hamilton et al., NeurIPS 2017)."""

    network = GraphSAGE
    PASSES_ON_TO = (SAGEConv, MessagePassing)
