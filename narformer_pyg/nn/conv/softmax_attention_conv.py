"""Vanilla self-attention between connected nodes, to compare graph-aided attention with."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.typing import Adj
from torch_geometric.utils import add_remaining_self_loops, softmax

from narformer_pyg._checks import check_integer
from narformer_pyg.nn.conv.checks import as_edge_index, check_node_features


class SoftmaxAttentionConv(MessagePassing):
    r"""Self-attention with a softmax over the neighbors of a node and the node itself.

    .. math::
        \mathbf{S} &= \mathrm{softmax} \left( \mathbf{Q} \mathbf{K}^{\top} / \sqrt{F_{in}} \right)

        \mathbf{Z} &= \mathbf{S} \mathbf{V} \mathbf{W}_a + \mathbf{b}_a

    Queries, keys and values have projections of their own: equations (4) to (6) of the supplement
    of `"NAR-Former V2" <https://arxiv.org/abs/2306.10792>`_, there the alternative to
    :class:`~narformer_pyg.nn.GraphAidedAttentionConv`. With edges between all nodes of a graph it
    is the attention of a transformer with one head.

    Args:
        in_channels (int): Size :math:`F_{in}` of each input node feature vector.
        out_channels (int): Size :math:`F_{out}` of each output node feature vector.
        normalize (bool, optional): If set to :obj:`False`, will not divide each output node
            feature vector by its Euclidean norm. (default: :obj:`True`)
        bias (bool, optional): If set to :obj:`False`, will not learn the additive bias
            :math:`\mathbf{b}_a`. (default: :obj:`True`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)` or a sparse *transposed* adjacency
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`; with
          :obj:`return_attention_weights=True` also
          :math:`((2, |\mathcal{E}'|), (|\mathcal{E}'|))`, self-loops among them
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            check_integer(name, value)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalize = normalize
        self.lin_query = Linear(in_channels, in_channels)
        # A bias would shift all scores of a node alike, which a softmax does not see.
        self.lin_key = Linear(in_channels, in_channels, bias=False)
        self.lin_value = Linear(in_channels, in_channels)
        self.lin_l = Linear(in_channels, out_channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the layer."""
        super().reset_parameters()
        for lin in (self.lin_query, self.lin_key, self.lin_value, self.lin_l):
            lin.reset_parameters()

    def forward(
        self, x: Tensor, edge_index: Adj, return_attention_weights: bool = False
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        r"""Runs the forward pass of the layer.

        Args:
            x (torch.Tensor): The node features :math:`(|\mathcal{V}|, F_{in})`.
            edge_index (torch.Tensor or SparseTensor): The edges, source to target. Self-loops are
                added where there are none.
            return_attention_weights (bool, optional): If set to :obj:`True`, will additionally
                return the edges and the weight of each, which sum to one over the incoming edges of
                a node. (default: :obj:`False`)

        Raises:
            ValueError: If :obj:`x` is not :math:`(|\mathcal{V}|, F_{in})`, or :obj:`edge_index` has
                another shape or type than stated, or names a node that does not exist.
        """
        check_node_features(x, self.in_channels)
        edge_index = as_edge_index(edge_index, x.size(0))
        edge_index, _ = add_remaining_self_loops(edge_index, num_nodes=x.size(0))
        # edge_updater_type: (query: Tensor, key: Tensor)
        alpha = self.edge_updater(edge_index, query=self.lin_query(x), key=self.lin_key(x))
        # propagate_type: (x: Tensor, alpha: Tensor)
        out = self.lin_l(self.propagate(edge_index, x=self.lin_value(x), alpha=alpha))
        if self.normalize:
            out = F.normalize(out, p=2.0, dim=-1)
        if return_attention_weights:
            return out, (edge_index, alpha)
        return out

    def edge_update(
        self, query_i: Tensor, key_j: Tensor, index: Tensor, size_i: int | None
    ) -> Tensor:
        """Scores every edge, and normalizes over those that arrive at the same target."""
        score = (query_i * key_j).sum(dim=-1) / math.sqrt(self.in_channels)
        return softmax(score, index, num_nodes=size_i)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """Weights the values of the neighbors. Shape: :math:`(|E|, F_{in})`."""
        return alpha.unsqueeze(-1) * x_j

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels})"
