"""Checks of the input that all layers and models share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor, to_edge_index

from narformer_pyg._checks import value_range


def check_node_features(x: Tensor, in_channels: int) -> None:
    """Raises a :class:`ValueError` unless ``x`` is a float tensor of shape [N, in_channels]."""
    if x.dim() != 2 or x.size(1) != in_channels:
        raise ValueError(
            f"Expected 'x' to have shape [num_nodes, {in_channels}], one row of 'in_channels' "
            f"features per node (got {list(x.shape)})"
        )
    if not x.is_floating_point():
        raise ValueError(
            f"Expected 'x' to hold floating point features (got {x.dtype}); encode tokens first, "
            "for instance with narformer_pyg.nn.CellTokenEncoder"
        )


def check_edge_index(edge_index: Tensor, num_nodes: int) -> None:
    """Raises a :class:`ValueError` unless ``edge_index`` is [2, E] and names existing nodes only.

    Whether nodes exist is checked on the CPU alone, see :func:`~narformer_pyg._checks.value_range`.
    """
    if not isinstance(edge_index, Tensor):
        raise ValueError(
            "Expected 'edge_index' to be a tensor of shape [2, num_edges], an EdgeIndex or a "
            f"sparse tensor (got {type(edge_index).__name__})"
        )
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(
            "Expected 'edge_index' to have shape [2, num_edges], sources in the first row and "
            f"targets in the second (got {list(edge_index.shape)})"
        )
    if edge_index.dtype not in (torch.long, torch.int32):
        raise ValueError(
            "Expected 'edge_index' to hold node numbers of type torch.long "
            f"(got {edge_index.dtype}); convert it with 'edge_index.long()'"
        )
    low, high = value_range(edge_index) or (0, 0)
    if low < 0 or high >= max(num_nodes, 1):
        raise ValueError(
            f"Expected 'edge_index' to name nodes from 0 to {num_nodes - 1}, since 'x' has "
            f"{num_nodes} rows (got node {low if low < 0 else high})"
        )


def as_edge_index(edge_index: Adj, num_nodes: int) -> Tensor:
    """Returns the edges [2, E] of any form of adjacency, checked.

    A sparse matrix is transposed, as everywhere in PyG; its entries become edges of the same order.
    """
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    elif is_sparse(edge_index):
        edge_index = _edges_of_matrix(edge_index, num_nodes)
    check_edge_index(edge_index, num_nodes)
    return edge_index


def _edges_of_matrix(edge_index: Adj, num_nodes: int) -> Tensor:
    if tuple(edge_index.size(i) for i in range(2)) != (num_nodes, num_nodes):
        raise ValueError(
            f"Expected the adjacency matrix 'edge_index' to have shape [{num_nodes}, {num_nodes}], "
            f"one row and one column for each row of 'x' (got {list(edge_index.size())})"
        )
    if is_torch_sparse_tensor(edge_index):
        target, source = to_edge_index(edge_index)[0]
    else:
        target, source, _ = edge_index.coo()
    return torch.stack([source, target])
