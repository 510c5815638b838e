"""Graph-aided attention without a message on any edge: sparse products on the CPU, else Triton."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from narformer_pyg.nn.kernels import triton_attention
from narformer_pyg.nn.kernels.door import Kernel, refuse_double_backward

EPSILON = triton_attention.EPSILON

# PyTorch announces once per process that this format, there since 2021, is in beta.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.empty(0, dtype=torch.long), torch.empty(0), (1, 1))


class SortedEdges(NamedTuple):
    r"""The edges of a graph, sorted by target and by source, as both roles of a node need them.

    Args:
        colptr (torch.Tensor): Where the edges that arrive at each node begin, :math:`(|V| + 1)`.
        source (torch.Tensor): Their sources :math:`(|E|)`.
        target (torch.Tensor): Their targets :math:`(|E|)`, ascending.
        rowptr (torch.Tensor): Where the edges that leave each node begin, :math:`(|V| + 1)`.
        reverse_target (torch.Tensor): Their targets :math:`(|E|)`.
        order (torch.Tensor): Their places among the edges sorted by target, :math:`(|E|)`.
        is_symmetric (bool): Whether every edge has its reverse, which :obj:`order` then names.
    """

    colptr: Tensor
    source: Tensor
    target: Tensor
    rowptr: Tensor
    reverse_target: Tensor
    order: Tensor
    is_symmetric: bool


# Blocks share their edges: each tensor of edges is sorted once, as long as it lives unchanged.
_SORTED: Any = WeakIdKeyDictionary()


def _sort_once(sort: Callable[[Tensor, int], Any], edge_index: Tensor, num_nodes: int) -> Any:
    """Sorts the edges [2, E], or returns those that an earlier call has sorted."""
    version = None if edge_index.is_inference() else (edge_index._version, num_nodes)
    known = _SORTED.get(edge_index)
    if known is not None and version is not None and known[0] == version:
        return known[1]
    with torch.inference_mode(False), torch.no_grad():  # a later training step may use them
        edges = sort(edge_index.detach().clone(), num_nodes)
    if version is not None:
        _SORTED[edge_index] = (version, edges)
    return edges


def _sort(edge_index: Tensor, num_nodes: int) -> SortedEdges:
    source, target = edge_index.long()
    by_target = (target * num_nodes + source).argsort()
    source, target = source[by_target], target[by_target]
    order = source.argsort(stable=True)
    reverse_target = target[order]
    colptr, rowptr = (_pointers(nodes, num_nodes) for nodes in (target, source[order]))
    is_symmetric = torch.equal(colptr, rowptr) and torch.equal(source, reverse_target)
    return SortedEdges(colptr, source, target, rowptr, reverse_target, order, is_symmetric)


def _pointers(nodes: Tensor, num_nodes: int) -> Tensor:
    return torch._convert_indices_from_coo_to_csr(nodes, num_nodes)


def _accepts(module: Any, x: Tensor, edge_index: Tensor) -> bool:
    """Whether nothing asks for the messages: no explainer, no hook, no other aggregation."""
    return (
        (torch.backends.mkl.is_available() if x.is_cpu else triton_attention.is_supported(x))
        and module.aggr in ("add", "sum")
        and module.flow == "source_to_target"
        and module.decomposed_layers == 1
        and not module.explain
        and not (
            module._message_forward_pre_hooks
            or module._message_forward_hooks
            or module._aggregate_forward_pre_hooks
            or module._aggregate_forward_hooks
            or module._edge_update_forward_pre_hooks
            or module._edge_update_forward_hooks
            or module._propagate_forward_pre_hooks
            or module._propagate_forward_hooks
        )
    )


def _run(query: Tensor, value: Tensor, edge_index: Tensor) -> Tensor:
    num_nodes = query.size(0)
    if query.is_cpu:
        return sparse_attention(query, value, _sort_once(_sort, edge_index, num_nodes))
    edges = _sort_once(triton_attention.sort_edges, edge_index, num_nodes)
    if torch.is_autocast_enabled("cuda"):  # the linear map that follows rounds to this type
        value = value.to(query.dtype)
    return triton_attention.attention(query, value, edges)


def sparse_attention(query: Tensor, value: Tensor, edges: SortedEdges) -> Tensor:
    r"""Aggregates the values of the neighbors, weighted by linear attention.

    .. math::
        \mathbf{z}_i = \sum_{j \to i} \frac{s_{ij}}{\sum_{k \to i} s_{ik} + 10^{-6}} \mathbf{v}_j,
        \quad s_{ij} = \mathbf{q}_i^{\top} \mathbf{q}_j / \sqrt{F}

    Scores are a sampled dense-dense product and the aggregation is a sparse-dense product, forward
    and backward: memory beyond input and output is :math:`O(|\mathcal{E}|)`. Half precision is
    computed in single precision, and returned as it came.

    Args:
        query (torch.Tensor): Queries, which are the keys too, :math:`(|\mathcal{V}|, F)`.
        value (torch.Tensor): Values :math:`(|\mathcal{V}|, F')`.
        edges (SortedEdges): The edges.

    Returns:
        torch.Tensor: The aggregated values :math:`(|\mathcal{V}|, F')`.
    """
    dtype = value.dtype
    if query.dtype in (torch.float16, torch.bfloat16):
        query = query.float()
    query, value = query.contiguous(), value.to(query.dtype).contiguous()
    if torch.is_grad_enabled():
        return _SparseAttention.apply(query, value, *edges).to(dtype)
    alpha, _ = _weights(query, edges.colptr, edges.source, edges.target)
    return _product(alpha, value, edges.colptr, edges.source).to(dtype)


class _SparseAttention(torch.autograd.Function):
    """Rows of the sparse matrices are targets; those of the reverse ones are sources."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        value: Tensor,
        colptr: Tensor,
        source: Tensor,
        target: Tensor,
        rowptr: Tensor,
        reverse_target: Tensor,
        order: Tensor,
        is_symmetric: bool,
    ) -> Tensor:
        ctx.is_symmetric = is_symmetric
        alpha, total = _weights(query, colptr, source, target)
        ctx.save_for_backward(
            query, value, alpha, total, colptr, source, target, rowptr, reverse_target, order
        )
        return _product(alpha, value, colptr, source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward(graph_aided_attention.name)
        query, value, alpha, total, colptr, source, target, rowptr, reverse_target, order = (
            ctx.saved_tensors
        )
        grad = grad.contiguous()
        grad_query = grad_value = None
        if ctx.needs_input_grad[1]:
            grad_value = _product(alpha[order], grad, rowptr, reverse_target)
        if ctx.needs_input_grad[0]:
            grad_alpha = _sampled_product(grad, value, colptr, source, target)  # [num_edges]
            # The derivative of s / sum(s): each weight also lowers its neighbors'.
            mean = grad.new_zeros(grad.size(0)).index_add_(0, target, alpha * grad_alpha)
            grad_score = (grad_alpha - mean[target]) / total
            grad_score *= query.size(1) ** -0.5
            if ctx.is_symmetric:  # both roles of a node in one product
                grad_query = _product(grad_score + grad_score[order], query, colptr, source)
            else:
                grad_query = _product(grad_score, query, colptr, source)
                grad_query += _product(grad_score[order], query, rowptr, reverse_target)
        return grad_query, grad_value, *[None] * 7


def _weights(
    query: Tensor, colptr: Tensor, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the weight of every edge and the sum that its score was divided by."""
    score = _sampled_product(query, query, colptr, source, target)  # [num_edges]
    score *= query.size(1) ** -0.5
    total = score.new_full((query.size(0),), EPSILON).index_add_(0, target, score)
    total = total.index_select(0, target)
    return score.div_(total), total


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
    return torch.sparse.mm(matrix, right, "sum")  # faster than @ on the CPU


#: Attention by sparse products on the CPU with MKL, and by Triton's programs on a GPU.
graph_aided_attention = Kernel("graph_aided_attention", _accepts, _run)
