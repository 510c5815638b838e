"""The base of all models: blocks on nodes, a readout, graph features and a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import Adj

from narformer_pyg._checks import check_integer, value_range
from narformer_pyg.nn.conv.checks import as_edge_index, check_node_features
from narformer_pyg.nn.dropout import Dropout
from narformer_pyg.nn.head import PositiveRegressionHead
from narformer_pyg.nn.linear import Linear
from narformer_pyg.nn.readout import READOUTS


class GraphRegressor(torch.nn.Module):
    r"""Base class of models that map a graph to positive numbers.

    Subclasses say in :meth:`encode` what happens on the nodes. All share the readout, the graph
    features and the head, so that a comparison of two models compares what they do on nodes.

    Args:
        in_channels (int): Size of each node code.
        hidden_channels (int): Size of the node states and of the hidden layers of the head.
        num_blocks (int): The number of blocks.
        out_channels (int): The number of targets.
        readout (str): :obj:`"fusion"`, :obj:`"sum"` or :obj:`"mean"`.
        static_channels (int): Size of the code of the graph features; :obj:`0` for none.
        dropout (float): Dropout probability.
        undirected (bool): If set to :obj:`True`, every edge is used in both directions: the
            adjacency is :math:`\mathbf{A} + \mathbf{A}^{\top}`.
        act (str): The activation of the head and of the graph features.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_blocks: int,
        out_channels: int,
        readout: str,
        static_channels: int,
        dropout: float,
        undirected: bool,
        act: str = "relu",
    ) -> None:
        super().__init__()
        check_integer("in_channels", in_channels, lazy=True)
        for name, value, least in (
            ("hidden_channels", hidden_channels, 1),
            ("num_blocks", num_blocks, 1),
            ("out_channels", out_channels, 1),
            ("static_channels", static_channels, 0),
        ):
            check_integer(name, value, least)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected 'dropout' to be in [0, 1) (got {dropout})")

        #: Arguments that build this model again; subclasses add theirs.
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "hidden_channels": hidden_channels,
            "num_blocks": num_blocks,
            "out_channels": out_channels,
            "readout": readout,
            "static_channels": static_channels,
            "dropout": float(dropout),
            "undirected": undirected,
            "act": act,
        }
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.num_blocks = num_blocks
        self.out_channels = out_channels
        self.static_channels = static_channels
        self.undirected = undirected

        self.readout = READOUTS.get(readout)(channels=hidden_channels, num_blocks=num_blocks)
        self.lin_static = Linear(static_channels, hidden_channels) if static_channels > 0 else None
        self.act = activation_resolver(act)
        self.dropout = Dropout(dropout)
        graph_channels = hidden_channels * (2 if static_channels > 0 else 1)
        self.head = PositiveRegressionHead(
            graph_channels, hidden_channels, out_channels, dropout, act
        )

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.readout.reset_parameters()
        if self.lin_static is not None:
            self.lin_static.reset_parameters()
        self.head.reset_parameters()

    def connect(self, edge_index: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        r"""Returns the edges that blocks use: those given, by default in both directions."""
        if self.undirected:
            return both_directions(edge_index)
        return edge_index

    def encode(self, x: Tensor, edge_index: Tensor) -> list[Tensor]:
        r"""Returns the node states :math:`(|V|, F)` after every block."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        batch: Tensor | None = None,
        static: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Predicts the targets of a batch of graphs.

        Args:
            x (torch.Tensor): The node codes :math:`(|\mathcal{V}|, F_{in})`.
            edge_index (torch.Tensor, EdgeIndex or SparseTensor): The edges
                :math:`(2, |\mathcal{E}|)`, in the direction of the data flow.
            batch (torch.Tensor, optional): The graph :math:`(|\mathcal{V}|)` of each node; one
                graph if not given. (default: :obj:`None`)
            static (torch.Tensor, optional): The code :math:`(|\mathcal{G}|, F_s)` of the graph
                features. (default: :obj:`None`)
            batch_size (int, optional): The number of graphs :math:`|\mathcal{G}|`; found from
                :obj:`batch` if not given. (default: :obj:`None`)

        Returns:
            torch.Tensor: Positive predictions :math:`(|\mathcal{G}|, T)`.
        """
        if self.in_channels == -1:
            self.in_channels = self.config["in_channels"] = x.size(-1)
        check_node_features(x, self.in_channels)
        edge_index = as_edge_index(edge_index, x.size(0))
        batch, batch_size = check_batch(batch, batch_size, x)
        check_static(static, batch_size, self.static_channels)

        edge_index = self.connect(edge_index, batch, batch_size)
        z = self.readout(self.encode(x, edge_index), batch, batch_size)  # [num_graphs, hidden]
        if self.lin_static is not None:
            s = self.act(self.dropout(self.lin_static(static)))
            z = torch.cat([z, s], dim=-1)
        return self.head(z)


def both_directions(edge_index: Tensor) -> Tensor:
    r"""Returns the edges and after them the reversed ones, :math:`(2, 2 |\mathcal{E}|)`."""
    source, target = edge_index[0], edge_index[1]
    return torch.stack([torch.cat([source, target]), torch.cat([target, source])])


def check_static(static: Tensor | None, batch_size: int, static_channels: int) -> None:
    """Raises a :class:`ValueError` unless the codes of graph features are as the model needs."""
    if static_channels > 0 and (static is None or static.shape != (batch_size, static_channels)):
        raise ValueError(
            f"Expected 'static' to have shape [{batch_size}, {static_channels}], the code of the "
            f"graph features of each graph (got {None if static is None else list(static.shape)})"
        )
    if static_channels == 0 and static is not None:
        raise ValueError(
            "Expected 'static' to be None, since the model was built with 'static_channels=0' "
            f"(got shape {list(static.shape)})"
        )


def check_batch(batch: Tensor | None, batch_size: int | None, x: Tensor) -> tuple[Tensor, int]:
    """Returns the graph of each row of ``x`` and the number of graphs, checked; one by default."""
    if batch is None:
        return x.new_zeros(x.size(0), dtype=torch.long), 1
    if batch.shape != (x.size(0),):
        raise ValueError(
            f"Expected 'batch' to have shape [{x.size(0)}], the graph of each row of 'x' "
            f"(got {list(batch.shape)})"
        )
    if batch.dtype != torch.long:
        raise ValueError(
            f"Expected 'batch' to hold graph numbers of type torch.long (got {batch.dtype})"
        )
    if batch_size is None:
        batch_size = int(batch.max()) + 1 if batch.numel() > 0 else 0
    low, high = value_range(batch) or (0, 0)
    if low < 0 or high >= max(batch_size, 1):
        raise ValueError(
            f"Expected 'batch' to be between 0 and {batch_size - 1}, 'batch_size' - 1 "
            f"(got {low if low < 0 else high})"
        )
    return batch, batch_size
