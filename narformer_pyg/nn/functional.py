"""Graph-aided attention as one sparse operation, without a message on any edge."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric import EdgeIndex

#: Added to the sum of the scores of a node, as in the authors' release.
EPSILON = 1e-6


def is_fusable(x: Tensor) -> bool:
    """Whether :func:`graph_aided_attention` can run on tensors like ``x``, here and now.

    Graphs that are being compiled, exported or transformed by :mod:`torch.func`, devices without
    sparse kernels and a PyTorch without MKL take the way over messages instead.
    """
    if is_traced():
        return False
    if x.device.type == "cpu":
        return torch.backends.mkl.is_available()
    return x.device.type == "cuda"


def is_traced() -> bool:
    """Whether code is compiled, exported or transformed by :mod:`torch.func`.

    What is faster step by step on the CPU (in place, with gradients by hand) is then left out.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def sort_edges(edge_index: Tensor, num_nodes: int) -> EdgeIndex:
    r"""Returns the edges sorted by target, with the pointers that both directions need.

    Args:
        edge_index (torch.Tensor or EdgeIndex): The edges :math:`(2, |\mathcal{E}|)`. An
            :class:`~torch_geometric.EdgeIndex` that is sorted by target is used as it is, and
            keeps its pointers for the next call.
        num_nodes (int): The number of nodes.
    """
    if isinstance(edge_index, EdgeIndex):
        if edge_index.is_sorted_by_col and edge_index.sparse_size() == (num_nodes, num_nodes):
            return edge_index
        edge_index = edge_index.as_tensor()
    order = edge_index[1].argsort(stable=True)
    return EdgeIndex(edge_index[:, order], sparse_size=(num_nodes, num_nodes), sort_order="col")


class SortedEdges:
    r"""Edges sorted by target, and what all layers that see the same edges derive from them once.

    Args:
        edge_index (torch.Tensor or EdgeIndex): The edges :math:`(2, |\mathcal{E}|)`, see
            :func:`sort_edges`. They must name existing nodes only.
        num_nodes (int): The number of nodes.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self._edge_index: EdgeIndex | None = sort_edges(edge_index, num_nodes)
        # The edges keep their pointers, which a later training step must be able to use.
        with torch.inference_mode(False):
            (colptr, source), _ = self._edge_index.get_csc()
        self._set(colptr, source, self._edge_index.as_tensor()[1])

    def _set(self, colptr: Tensor, source: Tensor, target: Tensor) -> None:
        self.colptr, self.source, self.target = colptr, source, target
        self.num_nodes = colptr.numel() - 1
        #: Whether the reverse of every edge is among them, at the place that `reverse` says.
        self.is_symmetric = False
        self._reverse: tuple[Tensor, Tensor, Tensor | None] | None = None
        self._gates: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}

    @classmethod
    def from_neighbors(cls, index: Tensor, ptr: Tensor, reverse: Tensor) -> SortedEdges:
        r"""Returns the edges of a graph with both directions of every edge, without a sort.

        Nothing is checked. A :class:`~narformer_pyg.loader.DeviceLoader` with
        :obj:`neighbors=True` makes such lists.

        Args:
            index (torch.Tensor): The neighbors of each node, one behind another,
                :math:`(2 |\mathcal{E}|)`.
            ptr (torch.Tensor): Where those of each node begin, :math:`(|\mathcal{V}| + 1)`.
            reverse (torch.Tensor): For each edge the place of the reverse one,
                :math:`(2 |\mathcal{E}|)`.
        """
        edges = cls.__new__(cls)
        nodes = torch.arange(ptr.numel() - 1, device=ptr.device)
        edges._edge_index = None
        edges._set(ptr, index, nodes.repeat_interleave(ptr.diff(), output_size=index.numel()))
        # The edges that leave a node are the reverse ones of those that arrive.
        edges._reverse = (ptr, index, reverse)
        edges.is_symmetric = True
        return edges

    @property
    def edge_index(self) -> EdgeIndex:
        """The edges, sorted by target."""
        if self._edge_index is None:
            size = (self.num_nodes, self.num_nodes)
            edge_index = torch.stack([self.source, self.target])
            self._edge_index = EdgeIndex(edge_index, sparse_size=size, sort_order="col")
        return self._edge_index

    @property
    def reverse(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pointers of the sources, targets, and the places of these edges; for gradients."""
        if self._reverse is None:
            edge_index = self.edge_index
            with torch.inference_mode(False):
                (rowptr, target), order = edge_index.get_csr()
            self._reverse = (rowptr, target, order)
        return self._reverse

    def degrees(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Returns all in-degrees that occur, [n, 1], and the place of each node's among them.

        Few degrees occur, so that what depends on them alone can be computed once and looked up.
        Without places, the degrees are those of the nodes in turn: this is so where to find out
        would wait for a GPU.
        """
        if dtype not in self._gates:
            with torch.inference_mode(False):
                degree = self.colptr.diff()
                table, place = degree, None
                if degree.device.type == "cpu" and degree.numel() > 0:
                    size = int(degree.max()) + 1
                    if size < degree.numel():
                        table, place = torch.arange(size), degree
                self._gates[dtype] = (table.to(dtype).unsqueeze(-1), place)
        return self._gates[dtype]


def graph_aided_attention(
    query: Tensor, value: Tensor, edge_index: EdgeIndex | SortedEdges
) -> Tensor:
    r"""Aggregates the values of the neighbors, weighted by linear attention.

    .. math::
        \mathbf{z}_i = \sum_{j \to i} \frac{s_{ij}}{\sum_{k \to i} s_{ik} + 10^{-6}} \mathbf{v}_j,
        \quad s_{ij} = \mathbf{q}_i^{\top} \mathbf{q}_j / \sqrt{F}

    Scores are a sampled dense-dense product and the aggregation is a sparse-dense product, forward
    and backward: memory beyond input and output is :math:`O(|\mathcal{E}|)`. The gradient is
    derived by hand and cannot be differentiated again; the way over messages can. Half precision is
    computed in single precision, for which the sparse kernels are made, and returned as it came.

    Args:
        query (torch.Tensor): Queries, which are the keys too, :math:`(|\mathcal{V}|, F)`.
        value (torch.Tensor): Values :math:`(|\mathcal{V}|, F')`.
        edge_index (EdgeIndex or SortedEdges): Edges sorted by target, see :func:`sort_edges`.

    Returns:
        torch.Tensor: The aggregated values :math:`(|\mathcal{V}|, F')`.
    """
    edges = edge_index
    if not isinstance(edges, SortedEdges):
        edges = SortedEdges(edges, query.size(0))
    dtype = value.dtype
    if query.dtype in (torch.float16, torch.bfloat16):
        query = query.float()
    value = value.to(query.dtype)
    pattern = (edges.colptr, edges.source, edges.target)
    if torch.is_grad_enabled() and (query.requires_grad or value.requires_grad):
        arguments = (*pattern, *edges.reverse, edges.is_symmetric)
        return _GraphAidedAttention.apply(query, value, *arguments).to(dtype)
    query, value = query.contiguous(), value.contiguous()
    alpha, _ = _weights(query, *pattern)
    return _product(alpha, value, edges.colptr, edges.source).to(dtype)


def _weights(
    query: Tensor, colptr: Tensor, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the weight of every edge and the sum that its score was divided by."""
    score = _sampled_product(query, query, colptr, source, target)  # [num_edges]
    score *= query.size(1) ** -0.5
    total = score.new_full((query.size(0),), EPSILON).index_add_(0, target, score)
    total = total.index_select(0, target)
    return score.div_(total), total


class _GraphAidedAttention(torch.autograd.Function):
    """Rows of the sparse matrices are targets; those of the reverse ones are sources."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        value: Tensor,
        colptr: Tensor,
        source: Tensor,
        target: Tensor,
        rowptr: Tensor | None,
        reverse_target: Tensor | None,
        order: Tensor | None,
        is_symmetric: bool,
    ) -> Tensor:
        ctx.is_symmetric = is_symmetric
        query, value = query.contiguous(), value.contiguous()
        alpha, total = _weights(query, colptr, source, target)
        ctx.save_for_backward(
            query, value, alpha, total, colptr, source, target, rowptr, reverse_target, order
        )
        return _product(alpha, value, colptr, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, value, alpha, total, colptr, source, target, rowptr, reverse_target, order = (
            ctx.saved_tensors
        )
        grad = grad.contiguous()

        def reversed_(weight: Tensor) -> Tensor:
            return weight if order is None else weight.index_select(0, order)

        grad_query = grad_value = None
        if ctx.needs_input_grad[1]:
            grad_value = _product(reversed_(alpha), grad, rowptr, reverse_target)
        if ctx.needs_input_grad[0]:
            grad_alpha = _sampled_product(grad, value, colptr, source, target)  # [num_edges]
            # The derivative of s / sum(s): each weight also lowers its neighbors'.
            mean = grad.new_zeros(grad.size(0)).index_add_(0, target, alpha * grad_alpha)
            grad_score = (grad_alpha - mean.index_select(0, target)) / total
            grad_score *= query.size(1) ** -0.5
            if ctx.is_symmetric:  # both roles of a node in one product
                grad_score += reversed_(grad_score)
                grad_query = _product(grad_score, query, colptr, source)
            else:
                grad_query = _product(grad_score, query, colptr, source)
                grad_query += _product(reversed_(grad_score), query, rowptr, reverse_target)
        return grad_query, grad_value, *[None] * 7


def gate_rows(gates: Tensor, place: Tensor, x: Tensor) -> Tensor:
    r"""Multiplies every row by one of a few gates.

    Only these few wait for the backward pass, which cannot be differentiated again.

    Args:
        gates (torch.Tensor): The gates :math:`(n, F)`.
        place (torch.Tensor): Which of them each row is multiplied by, :math:`(N)`.
        x (torch.Tensor): The rows :math:`(N, F)`, of the type of the gates.
    """
    return _GateRows.apply(gates, place, x)


class _GateRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, place: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gates, place, x)
        return gates.index_select(0, place).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, place, x = ctx.saved_tensors
        grad_gates = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_gates = torch.zeros_like(gates).index_add_(0, place, grad * x)
        if ctx.needs_input_grad[2]:
            grad_x = gates.index_select(0, place).mul_(grad)
        return grad_gates, None, grad_x


def normalize_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Divides every row by its Euclidean norm, as :func:`torch.nn.functional.normalize`.

    Reads and writes about half as much in the backward pass, which cannot be differentiated again.

    Args:
        x (torch.Tensor): The rows :math:`(N, F)`.
        eps (float, optional): The smallest divisor. (default: :obj:`1e-12`)
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _NormalizeRows.apply(x, eps)
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=eps)


class _NormalizeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        divisor = norm.clamp(min=eps)
        out = x / divisor
        ctx.save_for_backward(out, divisor, norm >= eps)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out, divisor, is_unit = ctx.saved_tensors
        radial = (grad * out).sum(dim=-1, keepdim=True).mul_(is_unit)
        return torch.addcmul(grad, out, radial, value=-1.0).div_(divisor), None


# PyTorch announces once per process that this format, there since 2021, is in beta.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.empty(0, dtype=torch.long), torch.empty(0), (1, 1))


def _csr(weight: Tensor, pointers: Tensor, indices: Tensor, num_columns: int) -> Tensor:
    size = (pointers.numel() - 1, num_columns)
    return torch.sparse_csr_tensor(pointers, indices, weight, size, check_invariants=False)


def _sampled_product(
    left: Tensor, right: Tensor, pointers: Tensor, indices: Tensor, rows: Tensor
) -> Tensor:
    """Returns the inner product of a row of ``left`` and one of ``right`` for every edge."""
    if indices.numel() == 0:
        return left.new_zeros(0)
    if indices.numel() > left.size(0) * right.size(0):  # torch refuses so many repeated edges
        return (left.index_select(0, rows) * right.index_select(0, indices)).sum(dim=-1)
    pattern = _csr(left.new_zeros(indices.numel()), pointers, indices, right.size(0))
    return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()


def _product(weight: Tensor, right: Tensor, pointers: Tensor, indices: Tensor) -> Tensor:
    """Returns the weighted sum of the rows of ``right`` for every row of the sparse matrix."""
    matrix = _csr(weight, pointers, indices, right.size(0))
    if right.device.type == "cpu":
        return torch.sparse.mm(matrix, right, "sum")  # faster than @, and on the CPU alone
    return matrix @ right
