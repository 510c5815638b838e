"""Graph-aided attention as a sparse message passing layer."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj
from torch_geometric.utils import scatter

from narformer_pyg._checks import check_integer
from narformer_pyg.nn import kernels
from narformer_pyg.nn.conv.checks import as_edge_index, check_node_features
from narformer_pyg.nn.linear import Linear

#: Added to the sum of the scores of a node, as in the authors' release.
EPSILON = 1e-6


@kernels.accelerated_by(kernels.graph_aided_attention)
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
        in_channels (int): Size :math:`F_{in}` of each input node feature vector, or :obj:`-1` to
            take it from the first input.
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

    #: The classes of the parts that kernels know.
    PARTS = {  # noqa: RUF012
        "aggr_module": SumAggregation,
        "lin_d": Linear,
        "lin_qk": Linear,
        "act": torch.nn.Sigmoid,
        "lin_l": Linear,
        "lin_r": Linear,
    }

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
        check_integer("in_channels", in_channels, lazy=True)
        check_integer("out_channels", out_channels)

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalize = normalize

        self.lin_d = Linear(1, in_channels) if degree_gate else None
        self.lin_qk = Linear(in_channels, in_channels)
        self.act = torch.nn.Sigmoid() if sigmoid else torch.nn.Identity()
        self.lin_l = Linear(in_channels, out_channels, bias=bias)
        self.lin_r = Linear(in_channels, out_channels, bias=False) if root_weight else None

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the layer."""
        super().reset_parameters()
        for lin in (self.lin_d, self.lin_qk, self.lin_l, self.lin_r):
            if lin is not None:
                lin.reset_parameters()

    def initialize_parameters(self, in_channels: int) -> None:
        r"""Gives a layer of :obj:`in_channels=-1` its parameters, before its first input."""
        self.in_channels = in_channels
        self.lin_qk.materialize(in_channels, in_channels)
        self.lin_l.materialize(in_channels, self.out_channels)
        if self.lin_d is not None:
            self.lin_d.materialize(1, in_channels)
        if self.lin_r is not None:
            self.lin_r.materialize(in_channels, self.out_channels)

    def forward(
        self, x: Tensor, edge_index: Adj, return_attention_weights: bool = False
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        r"""Runs the forward pass of the layer.

        Args:
            x (torch.Tensor): The node features :math:`(|\mathcal{V}|, F_{in})`.
            edge_index (torch.Tensor, EdgeIndex or SparseTensor): The edges, source to target.
            return_attention_weights (bool, optional): If set to :obj:`True`, will additionally
                return the edges and the weight of each, which sum to one over the incoming edges of
                a node. (default: :obj:`False`)

        Raises:
            ValueError: If :obj:`x` is not :math:`(|\mathcal{V}|, F_{in})`, or :obj:`edge_index` has
                another shape or type than stated, or names a node that does not exist.
        """
        if self.in_channels == -1:
            self.initialize_parameters(x.size(-1))
        check_node_features(x, self.in_channels)
        edge_index = as_edge_index(edge_index, x.size(0))

        if self.lin_d is not None:
            x = self.lin_d(self.degree(x, edge_index)).sigmoid() * x
        query = self.act(self.lin_qk(x))  # [num_nodes, in_channels]

        fast = None if return_attention_weights else kernels.takes_over(self, x, edge_index)
        if fast:
            out = fast(query, x, edge_index)
        else:
            # edge_updater_type: (query: Tensor)
            alpha = self.edge_updater(edge_index, query=query)  # [num_edges]
            # propagate_type: (x: Tensor, alpha: Tensor)
            out = self.propagate(edge_index, x=x, alpha=alpha)  # [num_nodes, in_channels]

        out = self.lin_l(out)
        if self.lin_r is not None:
            out = out + self.lin_r(x)
        if self.normalize:
            out = F.normalize(out, p=2.0, dim=-1)
        return (out, (edge_index, alpha)) if return_attention_weights else out

    def degree(self, x: Tensor, edge_index: Tensor) -> Tensor:
        r"""Returns the number of edges that arrive at each node, :math:`(|V|, 1)`, typed as x."""
        target = edge_index[1 if self.flow == "source_to_target" else 0]
        ones = x.new_ones(target.numel(), dtype=torch.float)  # half precision counts to 256
        degree = x.new_zeros(x.size(0), dtype=torch.float).scatter_add_(0, target, ones)
        return degree.to(x.dtype).unsqueeze(-1)

    def edge_update(
        self, query_i: Tensor, query_j: Tensor, index: Tensor, size_i: int | None
    ) -> Tensor:
        """Scores every edge and divides by the sum of the scores that arrive at its target."""
        score = (query_i * query_j).sum(dim=-1) / math.sqrt(self.in_channels)
        total = scatter(score, index, 0, size_i, reduce="sum")
        return score / (total + EPSILON).index_select(0, index)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """Weights the features of the neighbors. Shape: :math:`(|E|, F_{in})`."""
        return alpha.unsqueeze(-1) * x_j

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels})"
