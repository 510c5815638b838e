"""Graph-aided attention on a GPU: one Triton program a node, nothing stored for an edge."""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from narformer_pyg.nn.kernels.door import refuse_double_backward

_LOG = logging.getLogger(__name__)

#: Added to the sum of the scores of a node, as in the authors' release.
EPSILON = 1e-6
# A program walks at most so many edges of a node; graphs with fewer edges are never split.
_CHUNK = 256
_MIN_SPLIT = 4096
_TILE = 4  # edges that a program reads at a time
_MAX_WIDTH = 4096  # features that a program holds
_MIN_CAPABILITY = (7, 5)  # of the GPU


class TritonEdges(NamedTuple):
    r"""The edges of a graph as the programs walk them.

    All of it is computed on the device, without waiting for it, so that CUDA graphs can record it.

    Args:
        colptr (torch.Tensor): Where the edges that arrive at each node begin, :math:`(|V| + 1)`.
        source (torch.Tensor): Their sources :math:`(|E|)`, ascending for each node.
        rowptr (torch.Tensor): Where the edges that leave each node begin, :math:`(|V| + 1)`.
        target (torch.Tensor): Their targets :math:`(|E|)`, ascending for each node.
        is_symmetric (torch.Tensor): 1 where every edge has its reverse, else 0.
        num_slots (int): Programs behind those of the nodes, for chunks of long lists of edges.
        node_of (torch.Tensor): The node of each program; -1 for none.
        chunk_of (torch.Tensor): The chunk of each program.
    """

    colptr: Tensor
    source: Tensor
    rowptr: Tensor
    target: Tensor
    is_symmetric: Tensor
    num_slots: int
    node_of: Tensor
    chunk_of: Tensor


def is_supported(x: Tensor) -> bool:
    """Whether the programs compute rows of this type and width, on a GPU that Triton knows."""
    return (
        x.device.type == "cuda"
        and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and x.size(-1) <= _MAX_WIDTH
        and _works(x.device)
    )


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether a small attention runs on this GPU; logs the reason if not."""
    if torch.cuda.get_device_capability(device) < _MIN_CAPABILITY:
        reason = f"{torch.cuda.get_device_name(device)} is too old for Triton"
    elif importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed"
    else:
        try:
            with torch.inference_mode(False), torch.enable_grad():
                x = torch.ones(2, 16, device=device, requires_grad=True)
                edges = sort_edges(torch.ones(2, 1, dtype=torch.long, device=device), 2)
                attention(x, x, edges).sum().backward()
            return True
        except Exception as error:  # of a compiler that is missing or fails in its own way
            reason = f"Triton fails ({type(error).__name__}: {error})"
    _LOG.warning("Attention stores a message for every edge: %s", reason)
    return False


def sort_edges(edge_index: Tensor, num_nodes: int) -> TritonEdges:
    r"""Sorts the edges :math:`(2, |E|)` by target and by source.

    Args:
        edge_index (torch.Tensor): The edges, sources in the first row.
        num_nodes (int): The number of nodes.
    """
    source, target = edge_index[0].long(), edge_index[1].long()
    by_target, by_source = target * num_nodes + source, source * num_nodes + target
    by_target, by_source = by_target.sort()[0], by_source.sort()[0]
    is_symmetric = (by_target == by_source).all().int()
    nodes = torch.arange(num_nodes + 1, device=source.device)
    colptr, rowptr = (
        torch.searchsorted(keys, nodes * num_nodes) for keys in (by_target, by_source)
    )
    num_edges = source.numel()
    # A node is split if it has more than one chunk; then it has less than 2 d / _CHUNK of them.
    num_slots = 4 * num_edges // _CHUNK if num_edges > _MIN_SPLIT else 0
    node_of, chunk_of = nodes[:0], nodes[:0]
    if num_slots > 0:
        degree = torch.maximum(colptr.diff(), rowptr.diff())
        count = torch.where(degree > _CHUNK, (degree + _CHUNK - 1) // _CHUNK, 0)
        ends = count.cumsum(0)
        slots = torch.arange(num_slots, device=source.device)
        owner = torch.searchsorted(ends, slots, right=True).clamp(max=num_nodes - 1)
        used = slots < ends[-1]
        node_of = torch.cat([torch.where(count > 0, -1, nodes[:-1]), torch.where(used, owner, -1)])
        chunk_of = torch.cat([torch.zeros_like(count), slots - (ends - count)[owner]])
    source, target = by_target % num_nodes, by_source % num_nodes
    return TritonEdges(colptr, source, rowptr, target, is_symmetric, num_slots, node_of, chunk_of)


def attention(query: Tensor, value: Tensor, edges: TritonEdges) -> Tensor:
    r"""Aggregates the values of the neighbors, weighted by linear attention.

    .. math::
        \mathbf{z}_i = \sum_{j \to i} \frac{s_{ij}}{\sum_{k \to i} s_{ik} + 10^{-6}} \mathbf{v}_j,
        \quad s_{ij} = \mathbf{q}_i^{\top} \mathbf{q}_j / \sqrt{F}

    Sums are in single precision, whatever the inputs are, and never in TF32. Lists of more than
    256 edges are split among programs, whose sums are added in a fixed order: results are the same
    in every run.

    Args:
        query (torch.Tensor): Queries, which are the keys too, :math:`(|\mathcal{V}|, F)`.
        value (torch.Tensor): Values :math:`(|\mathcal{V}|, F)`.
        edges (TritonEdges): The edges.

    Returns:
        torch.Tensor: The aggregated values :math:`(|\mathcal{V}|, F)`, of the type of the values.
    """
    return _Attention.apply(query.contiguous(), value.contiguous(), edges)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, value: Tensor, edges: TritonEdges) -> Tensor:
        from narformer_pyg.nn.kernels import _triton_programs as programs

        (num_nodes, size), slots = query.shape, edges.num_slots
        out = torch.empty_like(value)
        total = query.new_empty(num_nodes, dtype=torch.float32)
        part = query.new_empty(slots, size, dtype=torch.float32)
        part_total = query.new_empty(slots, dtype=torch.float32)
        ctx.edges = edges
        ctx.save_for_backward(query, value, out, total)
        if num_nodes == 0:
            return out
        with torch.cuda.device_of(query):
            programs.attend[(num_nodes + slots,)](
                query, value, edges.colptr, edges.source, edges.node_of, edges.chunk_of, out,
                total, part, part_total, num_nodes, size**-0.5, EPSILON,
                **_constants(size, slots),
            )  # fmt: skip
            _combine(part, part_total, out, total, edges, divide=True)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        refuse_double_backward("graph_aided_attention")
        from narformer_pyg.nn.kernels import _triton_programs as programs

        query, value, out, total = ctx.saved_tensors
        edges, grad = ctx.edges, grad.contiguous()
        (num_nodes, size), slots = query.shape, edges.num_slots
        grad_query, grad_value = torch.empty_like(query), torch.empty_like(value)
        mean = torch.empty_like(total)
        part_query = query.new_empty(slots, size, dtype=torch.float32)
        part_value = query.new_empty(slots, size, dtype=torch.float32)
        if num_nodes == 0:
            return grad_query, grad_value, None
        constants = _constants(size, slots)
        with torch.cuda.device_of(query):
            programs.weighted_mean[(num_nodes,)](grad, out, mean, size, constants["BLOCK"])
            programs.gradients[(num_nodes + slots,)](
                query, value, grad, total, mean, edges.colptr, edges.source, edges.rowptr,
                edges.target, edges.is_symmetric, edges.node_of, edges.chunk_of, grad_query,
                grad_value, part_query, part_value, num_nodes, size**-0.5, **constants,
            )  # fmt: skip
            _combine(part_query, mean, grad_query, total, edges, divide=False)
            _combine(part_value, mean, grad_value, total, edges, divide=False)
        return grad_query, grad_value, None


def _constants(size: int, num_slots: int) -> dict[str, Any]:
    """Returns the constants of a compilation; rows are held whole, padded to a power of two."""
    block = _power_of_two(size)
    return {
        "F": size,
        "BLOCK": block,
        "TILE": _TILE,
        "CHUNK": _CHUNK if num_slots > 0 else 1 << 30,
        "SPLIT": num_slots > 0,
        "num_warps": min(max(block * _TILE // 512, 1), 8),
    }


def _combine(
    part: Tensor, part_total: Tensor, out: Tensor, total: Tensor, edges: TritonEdges, divide: bool
) -> None:
    from narformer_pyg.nn.kernels import _triton_programs as programs

    size, slots = out.size(1), edges.num_slots
    if slots > 0:
        programs.combine[(slots,)](
            part, part_total, out, total, edges.node_of, edges.chunk_of, out.size(0), slots,
            EPSILON, F=size, BLOCK=_power_of_two(size), TILE=8, DIVIDE=divide, num_warps=4,
        )  # fmt: skip


def _power_of_two(size: int) -> int:
    """Returns the smallest power of two that is not less."""
    return 1 << (size - 1).bit_length()
