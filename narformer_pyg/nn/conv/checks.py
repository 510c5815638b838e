"""Checks of the input that all layers and models share."""

from __future__ import annotations

import torch
from torch import Tensor


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

    The values are looked at on the CPU alone: on a GPU the look would wait for all queued work, and
    while a graph is being compiled or exported there are no values.
    """
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
    if torch.compiler.is_compiling() or edge_index.device.type != "cpu" or edge_index.numel() == 0:
        return
    low, high = torch.aminmax(edge_index.detach())
    if low < 0 or high >= num_nodes:
        wrong = int(low) if low < 0 else int(high)
        raise ValueError(
            f"Expected 'edge_index' to name nodes from 0 to {num_nodes - 1}, since 'x' has "
            f"{num_nodes} rows (got node {wrong})"
        )
