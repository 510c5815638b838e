"""What all models share: blocks on nodes, a readout, graph features and a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import Adj

from narformer_pyg._checks import check_integer
from narformer_pyg.nn.conv.checks import as_edges, check_edge_index, check_node_features
from narformer_pyg.nn.dropout import dropout
from narformer_pyg.nn.functional import SortedEdges
from narformer_pyg.nn.head import PositiveRegressionHead
from narformer_pyg.nn.readout import create_readout


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
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
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
        }
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.num_blocks = num_blocks
        self.out_channels = out_channels
        self.static_channels = static_channels
        self.dropout = dropout
        self.undirected = undirected

        self.readout = create_readout(readout, hidden_channels, num_blocks)
        self.lin_static = (
            torch.nn.Linear(static_channels, hidden_channels) if static_channels > 0 else None
        )
        graph_channels = hidden_channels * (2 if static_channels > 0 else 1)
        self.head = PositiveRegressionHead(graph_channels, hidden_channels, out_channels, dropout)

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

    @property
    def takes_neighbors(self) -> bool:
        r"""Whether the model takes edges in both directions, sorted, in place of those given."""
        return False

    def encode(self, x: Tensor, edge_index: Adj | SortedEdges) -> list[Tensor]:
        r"""Returns the node states :math:`(|V|, F)` after every block."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        edge_index: Adj | SortedEdges,
        batch: Tensor | None = None,
        static: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Predicts the targets of a batch of graphs.

        Args:
            x (torch.Tensor): The node codes :math:`(|\mathcal{V}|, F_{in})`.
            edge_index (torch.Tensor or SortedEdges): The edges :math:`(2, |\mathcal{E}|)`, in the
                direction of the data flow; or, where :attr:`takes_neighbors` says so, both
                directions of them in a :class:`~narformer_pyg.nn.functional.SortedEdges`.
            batch (torch.Tensor, optional): The graph :math:`(|\mathcal{V}|)` of each node; one
                graph if not given. (default: :obj:`None`)
            static (torch.Tensor, optional): The code :math:`(|\mathcal{G}|, F_s)` of the graph
                features. (default: :obj:`None`)
            batch_size (int, optional): The number of graphs :math:`|\mathcal{G}|`; found from
                :obj:`batch` if not given. (default: :obj:`None`)

        Returns:
            torch.Tensor: Positive predictions :math:`(|\mathcal{G}|, T)`.
        """
        edge_index, batch, batch_size = check_graphs(
            x, edge_index, batch, batch_size, self.in_channels
        )
        check_static(static, batch_size, self.static_channels)
        if not isinstance(edge_index, SortedEdges):
            edge_index = self.connect(edge_index, batch, batch_size)
        elif not self.takes_neighbors:
            raise ValueError(
                "Expected 'edge_index' to be a tensor or a sparse tensor, since this model does "
                "not take sorted edges (got SortedEdges)"
            )
        z = self.readout(self.encode(x, edge_index), batch, batch_size)  # [num_graphs, hidden]

        if self.lin_static is not None:
            s = dropout(self.lin_static(static), self.dropout, self.training).relu()
            z = torch.cat([z, s], dim=-1)
        return self.head(z)


def both_directions(edge_index: Tensor) -> Tensor:
    r"""Returns the edges and after them the reversed ones, :math:`(2, 2 |\mathcal{E}|)`."""
    source, target = edge_index[0], edge_index[1]
    return torch.stack([torch.cat([source, target]), torch.cat([target, source])])


def check_graphs(
    x: Tensor,
    edge_index: Adj | SortedEdges,
    batch: Tensor | None,
    batch_size: int | None,
    in_channels: int,
) -> tuple[Tensor | SortedEdges, Tensor, int]:
    r"""Checks the graphs that a model is given, and fills in what was not.

    Args:
        x (torch.Tensor): The node codes :math:`(|\mathcal{V}|, F_{in})`.
        edge_index (torch.Tensor or SortedEdges): The edges :math:`(2, |\mathcal{E}|)`.
        batch (torch.Tensor, optional): The graph of each node.
        batch_size (int, optional): The number of graphs.
        in_channels (int): What :math:`F_{in}` has to be.

    Returns:
        tuple: Edges, batch and batch size.

    Raises:
        ValueError: If one does not fit; the message says which and how.
    """
    check_node_features(x, in_channels)
    if batch is None:
        batch, batch_size = x.new_zeros(x.size(0), dtype=torch.long), 1
    else:
        batch_size = _check_batch(batch, batch_size, x.size(0))
    if isinstance(edge_index, SortedEdges):
        if edge_index.num_nodes != x.size(0):
            raise ValueError(
                f"Expected 'edge_index' to be of {x.size(0)} nodes, one for each row of 'x' "
                f"(got {edge_index.num_nodes})"
            )
        return edge_index, batch, batch_size
    edge_index = as_edges(edge_index, x.size(0))
    check_edge_index(edge_index, x.size(0))
    return edge_index, batch, batch_size


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


def _check_batch(batch: Tensor, batch_size: int | None, num_nodes: int) -> int:
    """Returns the number of graphs."""
    if batch.shape != (num_nodes,):
        raise ValueError(
            f"Expected 'batch' to have shape [{num_nodes}], the graph of each row of 'x' "
            f"(got {list(batch.shape)})"
        )
    if batch.dtype != torch.long:
        raise ValueError(
            f"Expected 'batch' to hold graph numbers of type torch.long (got {batch.dtype})"
        )
    if batch_size is None:
        batch_size = int(batch.max()) + 1 if batch.numel() > 0 else 0
    if not torch.compiler.is_compiling() and batch.device.type == "cpu" and batch.numel() > 0:
        low, high = torch.aminmax(batch)
        if low < 0 or high >= batch_size:
            raise ValueError(
                f"Expected 'batch' to be between 0 and {batch_size - 1}, 'batch_size' - 1 "
                f"(got {int(low) if low < 0 else int(high)})"
            )
    return batch_size
