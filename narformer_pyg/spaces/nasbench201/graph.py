"""Operations and connections of NAS-Bench-201 cells, and the form of their graphs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from narformer_pyg.errors import ConversionError

#: The five operations; the id of an operation in a graph is its place here plus one.
OPERATIONS = ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none")
#: The names behind the values :obj:`0..6` of the attribute :obj:`op` of a graph.
NODE_TYPES = ("input", *OPERATIONS, "output")
#: The feature maps (source, target) that each of the six operations connects.
CELL_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
#: The graph has operations as nodes and connects two of them where one's target is the other's
#: source. Sorted by target, then by source.
GRAPH_EDGES = (
    (0, 1), (0, 2), (1, 3), (0, 4), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7),
)  # fmt: skip
NUM_NODES = len(NODE_TYPES) + 1


class NASBench201Data(Data):
    """The graph of a NAS-Bench-201 cell."""

    #: The search space, by which predictors tell its graphs from those of other spaces.
    space = "nasbench201"


def graph_edge_index() -> Tensor:
    """Returns the connections of every cell's graph: long, :obj:`[2, 10]`."""
    return torch.tensor(GRAPH_EDGES).t().contiguous()


def check_operations(operations: Any) -> tuple[str, ...]:
    """Returns the six operations of a cell, or raises if they are something else."""
    if isinstance(operations, str) or not isinstance(operations, Iterable):
        raise TypeError(
            f"Expected 'operations' to be a tuple of six names (got {operations!r}); use "
            "'NASBench201Cell.from_str' to parse an architecture string"
        )
    operations = tuple(operations)
    if len(operations) != len(CELL_EDGES):
        raise ConversionError(
            f"Expected 'operations' to hold {len(CELL_EDGES)} names "
            f"(got {len(operations)}: {operations!r})"
        )
    for operation in operations:
        if operation not in OPERATIONS:
            raise ConversionError(
                f"Expected 'operations' to be among {', '.join(OPERATIONS)} (got {operation!r})"
            )
    return operations
