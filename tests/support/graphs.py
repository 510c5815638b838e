"""Comparison of graphs, attribute by attribute."""

from __future__ import annotations

import torch
from torch_geometric.data import Data


def same_graph(a: Data, b: Data) -> bool:
    """Whether two graphs have the same attributes, with equal values and types."""
    first, second = a.to_dict(), b.to_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) and value.dtype == second[key].dtype
        if isinstance(value, torch.Tensor)
        else value == second[key]
        for key, value in first.items()
    )
