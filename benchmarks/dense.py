"""NAR-Former V2 as its authors compute it: a Python loop over graphs with dense matrices.

It is what the other benchmarks compare with. Every graph has an adjacency matrix and passes the
blocks alone; readout and head see all graphs at once. The formulas are those of the paper's
supplement, equations (1) to (3), and of the authors' release; the parameters are those of
:class:`~narformer_pyg.nn.models.NARFormerV2`, by the same names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear, ModuleList, Parameter

from narformer_pyg.nn.models import NARFormerV2

#: The node codes [N, F] of a graph and its adjacency matrix [N, N].
Graph = tuple[Tensor, Tensor]


def dense_adjacency(edge_index: Tensor, num_nodes: int, undirected: bool = False) -> Tensor:
    """Returns a matrix whose entry (i, j) counts the edges from node j to node i.

    Args:
        edge_index: The edges, sources in the first row.
        num_nodes: The number of nodes.
        undirected: Whether every edge counts in both directions.
    """
    adj = torch.zeros(num_nodes, num_nodes, device=edge_index.device)
    source, target = edge_index[0], edge_index[1]
    adj.index_put_((target, source), adj.new_ones(()), accumulate=True)
    return adj + adj.t() if undirected else adj


def split_graphs(x: Tensor, edge_index: Tensor, batch: Tensor, batch_size: int) -> list[Graph]:
    """Takes a batch apart into graphs with undirected adjacency matrices.

    Args:
        x: The node codes of all graphs.
        edge_index: Their edges.
        batch: The graph of each node, ascending.
        batch_size: The number of graphs.
    """
    sizes = torch.bincount(batch, minlength=batch_size).tolist()
    owner = batch[edge_index[0]]
    graphs, start = [], 0
    for i, size in enumerate(sizes):
        edges = edge_index[:, owner == i] - start
        graphs.append((x[start : start + size].clone(), dense_adjacency(edges, size, True)))
        start += size
    return graphs


class DenseAttention(torch.nn.Module):
    """Graph-aided attention with matrices of size N x N.

    Args:
        in_channels: Size of each input node feature vector.
        out_channels: Size of each output node feature vector.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin_d = Linear(1, in_channels)
        self.lin_qk = Linear(in_channels, in_channels)
        self.lin_l = Linear(in_channels, out_channels)
        self.lin_r = Linear(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        """Maps node features [N, F_in] to [N, F_out]."""
        h = torch.sigmoid(self.lin_d(adj.sum(dim=1, keepdim=True))) * x
        query = torch.sigmoid(self.lin_qk(h))
        score = torch.matmul(query, query.t()) / math.sqrt(h.size(1)) * adj
        score = score / (score.sum(dim=1, keepdim=True) + 1e-6)
        z = self.lin_l(torch.matmul(score, h)) + self.lin_r(h)
        return F.normalize(z, p=2.0, dim=-1)


class DenseGroupedLinear(torch.nn.Module):
    """A linear map of each of several groups of features.

    Args:
        in_channels: Size of each input sample.
        out_channels: Size of each output sample.
        num_groups: The number of groups.
    """

    def __init__(self, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        size_in, size_out = in_channels // num_groups, out_channels // num_groups
        self.weights = Parameter(torch.empty(num_groups, size_in, size_out))
        self.bias = Parameter(torch.empty(num_groups, 1, size_out))

    def forward(self, x: Tensor, norm: LayerNorm) -> Tensor:
        """Maps features [N, F_in] to [N, F_out], with a layer norm inside each group."""
        groups = x.view(x.size(0), len(self.weights), -1).transpose(0, 1)
        groups = norm(torch.matmul(groups, self.weights) + self.bias)
        return groups.transpose(0, 1).reshape(x.size(0), -1)


class DenseFeedForward(torch.nn.Module):
    """The grouped feed-forward network.

    Args:
        channels: Size of each sample.
        ratio: Hidden size as a multiple of it.
        num_groups: The number of groups.
        dropout: Dropout probability.
    """

    def __init__(self, channels: int, ratio: int, num_groups: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.lin_1 = DenseGroupedLinear(channels, ratio * channels, num_groups)
        self.norm_1 = LayerNorm(ratio * channels // num_groups)
        self.lin_2 = DenseGroupedLinear(ratio * channels, channels, num_groups)
        self.norm_2 = LayerNorm(channels // num_groups)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features [N, F] to [N, F]."""
        h = F.dropout(F.relu(self.lin_1(x, self.norm_1)), self.dropout, self.training)
        return F.dropout(self.lin_2(h, self.norm_2), self.dropout, self.training)


class DenseBlock(torch.nn.Module):
    """Attention and feed-forward network.

    Args:
        in_channels: Size of each input node feature vector.
        channels: Size of each output node feature vector.
        ratio: Hidden size of the feed-forward network as a multiple of it.
        num_groups: The number of groups of the feed-forward network.
        dropout: Dropout probability.
    """

    def __init__(
        self, in_channels: int, channels: int, ratio: int, num_groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv = DenseAttention(in_channels, channels)
        self.norm = LayerNorm(channels)
        self.ffn = DenseFeedForward(channels, ratio, num_groups, dropout)
        self.layer_scale = Parameter(torch.empty(channels))

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        """Maps node features [N, F_in] to [N, F]."""
        h = F.dropout(F.relu(self.conv(x, adj)), self.dropout, self.training)
        return h + self.layer_scale * self.ffn(self.norm(h))


class DenseFusion(torch.nn.Module):
    """The weights of the blocks in the readout of cells.

    Args:
        channels: Size of the node states.
        num_blocks: The number of blocks.
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        total = channels * num_blocks
        self.lin_1 = Linear(total, max(total // 4, 1))
        self.lin_2 = Linear(max(total // 4, 1), num_blocks)

    def forward(self, means: Tensor) -> Tensor:
        """Maps mean states [G, B, F] to graph states [G, F]."""
        weights = torch.sigmoid(self.lin_2(F.relu(self.lin_1(means.flatten(1)))))
        return (weights.unsqueeze(-1) * means).sum(dim=1)


class DenseHead(torch.nn.Module):
    """The regression head.

    Args:
        in_channels: Size of each graph state.
        hidden_channels: Size of the hidden layers.
        out_channels: The number of targets.
        dropout: Dropout probability.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.lin_1 = Linear(in_channels, hidden_channels)
        self.lin_2 = Linear(hidden_channels, hidden_channels)
        self.lin_3 = Linear(hidden_channels, out_channels)

    def forward(self, z: Tensor) -> Tensor:
        """Maps graph states [G, F] to positive predictions [G, T]."""
        z = F.dropout(F.relu(self.lin_1(z)), self.dropout, self.training)
        z = F.dropout(F.relu(self.lin_2(z)), self.dropout, self.training)
        return -F.logsigmoid(self.lin_3(z))


class DenseNARFormerV2(torch.nn.Module):
    """The whole model, with a copy of the parameters of another one.

    Args:
        model: The model; its layers must be those of the paper.

    Raises:
        ValueError: If it was built without a part that the paper's layers have.
    """

    def __init__(self, model: NARFormerV2) -> None:
        super().__init__()
        config = model.config
        switched_off = [
            name
            for name in ("undirected", "degree_gate", "normalize", "bias", "root_weight")
            if not config.get(name, True)
        ]
        if switched_off or config["readout"] not in ("sum", "fusion"):
            raise ValueError(f"Expected 'model' to have the layers of the paper (got {config})")
        channels, num_blocks = config["hidden_channels"], config["num_blocks"]
        self.dropout = config["dropout"]
        self.blocks = ModuleList(
            DenseBlock(
                channels if i > 0 else config["in_channels"],
                channels,
                config["ffn_ratio"],
                config["num_groups"],
                self.dropout,
            )
            for i in range(num_blocks)
        )
        fusion = config["readout"] == "fusion"
        self.readout = DenseFusion(channels, num_blocks) if fusion else None
        static_channels = config["static_channels"]
        self.lin_static = Linear(static_channels, channels) if static_channels > 0 else None
        self.head = DenseHead(
            channels * (2 if static_channels > 0 else 1),
            channels,
            config["out_channels"],
            self.dropout,
        )
        self.load_state_dict(model.state_dict())
        self.train(model.training)

    def forward(self, graphs: list[Graph], static: Tensor | None = None) -> Tensor:
        """Predicts the targets of graphs.

        Args:
            graphs: The node codes and the adjacency matrix of each.
            static: The codes of their graph features.

        Returns:
            Positive predictions [G, T].
        """
        vectors = []
        for x, adj in graphs:
            means = []
            for block in self.blocks:
                x = block(x, adj)
                if self.readout is not None:
                    means.append(x.mean(dim=0))
            vectors.append(x.sum(dim=0) if self.readout is None else torch.stack(means))
        z = torch.stack(vectors)
        if self.readout is not None:
            z = self.readout(z)
        if self.lin_static is not None:
            s = F.relu(F.dropout(self.lin_static(static), self.dropout, self.training))
            z = torch.cat([z, s], dim=-1)
        return self.head(z)
