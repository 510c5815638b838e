"""Graph-aided attention as a sparse message passing layer."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.typing import Adj
from torch_geometric.utils import scatter

from narformer_pyg._checks import check_integer
from narformer_pyg.nn.conv.checks import as_edges, check_edge_index, check_node_features
from narformer_pyg.nn.functional import (
    EPSILON,
    SortedEdges,
    gate_rows,
    graph_aided_attention,
    is_fusable,
    normalize_rows,
)
from narformer_pyg.nn.linear import linear


class GraphAidedAttentionConv(MessagePassing):
    r"""The linear graph-aided attention of NAR-Former V2.

    From the `"NAR-Former V2: Rethinking Transformer for Universal Neural Network Representation
    Learning" <https://arxiv.org/abs/2306.10792>`_ paper:

    .. math::
        \tilde{\mathbf{H}} &= \sigma(\mathbf{D} \mathbf{W}_d + \mathbf{b}_d) \odot \mathbf{H}

        \mathbf{X} &= \sigma(\tilde{\mathbf{H}} \mathbf{W}_q + \mathbf{b}_q)

        \mathbf{S} &= \left( \mathbf{X} \mathbf{X}^{\top} / \sqrt{F_{in}} \right)
        \odot \mathbf{A}

        \mathbf{Z} &= \mathrm{Norm}(\mathbf{S}) \tilde{\mathbf{H}} \mathbf{W}_a + \mathbf{b}_a
        + \tilde{\mathbf{H}} \mathbf{W}_r

    where :math:`\mathbf{D}` holds the number of incoming edges of each node,
    :math:`\mathbf{A}_{ij}` counts the edges :math:`j \to i`, and :math:`\mathrm{Norm}` divides each
    row by its sum (plus :math:`10^{-6}`). One projection serves as query and as key, and the
    sigmoid keeps the scores positive, so no softmax is needed. Scores exist on edges alone: memory
    grows with :math:`|\mathcal{E}|`, never with :math:`|\mathcal{V}|^2`.

    The equations are (1) to (3) of the paper's supplement. The degree gate, the root projection
    :math:`\mathbf{W}_r`, the constant :math:`10^{-6}` and the final normalization are in the
    authors' released code only; each of the first two and the last can be switched off. The paper
    uses undirected graphs without self-loops: pass both directions of every edge to get them.

    Args:
        in_channels (int): Size :math:`F_{in}` of each input node feature vector.
        out_channels (int): Size :math:`F_{out}` of each output node feature vector.
        degree_gate (bool, optional): If set to :obj:`False`, will not scale the input by a learned
            function of the node degree. (default: :obj:`True`)
        normalize (bool, optional): If set to :obj:`False`, will not divide each output node
            feature vector by its Euclidean norm. (default: :obj:`True`)
        bias (bool, optional): If set to :obj:`False`, will not learn the additive bias
            :math:`\mathbf{b}_a`. (default: :obj:`True`)
        root_weight (bool, optional): If set to :obj:`False`, will not add the transformed root
            node features :math:`\tilde{\mathbf{H}} \mathbf{W}_r`. (default: :obj:`True`)
        sigmoid (bool, optional): If set to :obj:`False`, queries are the bare projections, for
            ablations: scores may then be negative and their sum close to zero.
            (default: :obj:`True`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)` (a tensor, a :class:`torch_geometric.EdgeIndex`, or a sparse
          tensor that holds the *transposed* adjacency, as everywhere in PyG; its values are not
          looked at)
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`; with
          :obj:`return_attention_weights=True` also
          :math:`((2, |\mathcal{E}|), (|\mathcal{E}|))`
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        degree_gate: bool = True,
        normalize: bool = True,
        bias: bool = True,
        root_weight: bool = True,
        sigmoid: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            check_integer(name, value)

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalize = normalize
        self.sigmoid = sigmoid

        self.lin_d = Linear(1, in_channels) if degree_gate else None
        self.lin_qk = Linear(in_channels, in_channels)
        self.lin_l = Linear(in_channels, out_channels, bias=bias)
        self.lin_r = Linear(in_channels, out_channels, bias=False) if root_weight else None

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the layer."""
        super().reset_parameters()
        for lin in (self.lin_d, self.lin_qk, self.lin_l, self.lin_r):
            if lin is not None:
                lin.reset_parameters()

    def forward(
        self, x: Tensor, edge_index: Adj | SortedEdges, return_attention_weights: bool = False
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        r"""Runs the forward pass of the layer.

        Args:
            x (torch.Tensor): The node features :math:`(|\mathcal{V}|, F_{in})`.
            edge_index (torch.Tensor, EdgeIndex or SparseTensor): The edges, source to target.
                Layers that see the same edges can share what they derive from them, in a
                :class:`narformer_pyg.nn.functional.SortedEdges`.
            return_attention_weights (bool, optional): If set to :obj:`True`, will additionally
                return the edges and the weight of each, which sum to one over the incoming edges of
                a node. (default: :obj:`False`)

        Raises:
            ValueError: If :obj:`x` is not :math:`(|\mathcal{V}|, F_{in})`, or :obj:`edge_index` has
                another shape or type than stated, or names a node that does not exist.
        """
        check_node_features(x, self.in_channels)
        num_nodes = x.size(0)
        fused = not return_attention_weights and self._is_fused(x)
        shared = isinstance(edge_index, SortedEdges) and edge_index.num_nodes == num_nodes
        if not (fused and shared):
            if isinstance(edge_index, SortedEdges):
                edge_index = edge_index.edge_index
            edge_index = as_edges(edge_index, num_nodes)
            plain = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
            check_edge_index(plain, num_nodes)
            edge_index = SortedEdges(edge_index, num_nodes) if fused else plain

        if self.lin_d is not None:
            x = self._gate(edge_index, x)
        query = linear(x, self.lin_qk)  # [num_nodes, in_channels]
        if self.sigmoid:
            query = query.sigmoid()

        alpha: Tensor | None = None
        if isinstance(edge_index, SortedEdges) and not self._is_propagation_watched():
            # What `propagate` would call; its preparations take longer than a small graph.
            out = self.message_and_aggregate(edge_index, x, query)
        else:
            if isinstance(edge_index, SortedEdges):
                edge_index = edge_index.edge_index
            else:
                # edge_updater_type: (query: Tensor)
                alpha = self.edge_updater(edge_index, query=query)  # [num_edges]
            # propagate_type: (x: Tensor, query: Tensor, alpha: OptTensor)
            out = self.propagate(edge_index, x=x, query=query, alpha=alpha)
        # out: [num_nodes, in_channels]
        out = linear(out, self.lin_l)
        if self.lin_r is not None:
            out = linear(x, self.lin_r, add_to=out)
        if self.normalize:
            out = normalize_rows(out) if fused else F.normalize(out, p=2.0, dim=-1)

        if return_attention_weights:
            return out, (cast(Tensor, edge_index), cast(Tensor, alpha))
        return out

    def _gate(self, edges: Tensor | SortedEdges, x: Tensor) -> Tensor:
        """Multiplies every feature by a factor that depends on the number of incoming edges."""
        lin_d = cast(Linear, self.lin_d)
        if isinstance(edges, SortedEdges):
            degree, place = edges.degrees(x.dtype)
            gate = lin_d(degree).sigmoid()
            if place is None:
                return gate * x
            return gate_rows(gate, place, x) if gate.dtype == x.dtype else gate[place] * x
        target = edges[1 if self.flow == "source_to_target" else 0]
        ones = x.new_ones(target.numel(), dtype=torch.float)  # a GPU counts to 256 in half
        degree = scatter(ones, target, 0, x.size(0), reduce="sum").to(x.dtype)
        return lin_d(degree.unsqueeze(-1)).sigmoid() * x

    def edge_update(
        self, query_i: Tensor, query_j: Tensor, index: Tensor, size_i: int | None
    ) -> Tensor:
        """Scores every edge and divides by the sum of the scores that arrive at its target."""
        score = (query_i * query_j).sum(dim=-1) / math.sqrt(self.in_channels)
        total = scatter(score, index, 0, size_i, reduce="sum")
        return score / (total + EPSILON).index_select(0, index)

    def _is_fused(self, x: Tensor) -> bool:
        """Whether nothing needs the messages: no subclass, no explainer, no hook."""
        kind = type(self)
        own_messages = (
            kind.message is not GraphAidedAttentionConv.message
            or kind.edge_update is not GraphAidedAttentionConv.edge_update
            or self.aggr not in ("add", "sum")
            or self.flow != "source_to_target"
            or self.decomposed_layers > 1
        )
        hooks = (
            self._message_forward_pre_hooks,
            self._message_forward_hooks,
            self._aggregate_forward_pre_hooks,
            self._aggregate_forward_hooks,
            self._edge_update_forward_pre_hooks,
            self._edge_update_forward_hooks,
        )
        watched = self.explain or any(hooks)
        return self.fuse and not own_messages and not watched and is_fusable(x)

    def _is_propagation_watched(self) -> bool:
        return bool(
            self._propagate_forward_pre_hooks
            or self._propagate_forward_hooks
            or self._message_and_aggregate_forward_pre_hooks
            or self._message_and_aggregate_forward_hooks
        )

    def message_and_aggregate(
        self, edge_index: EdgeIndex | SortedEdges, x: Tensor, query: Tensor
    ) -> Tensor:
        """Does all three steps at once; see :mod:`narformer_pyg.nn.functional`."""
        return graph_aided_attention(query, x, edge_index)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """Weights the features of the neighbors. Shape: :math:`(|E|, F_{in})`."""
        return alpha.unsqueeze(-1) * x_j

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels})"
