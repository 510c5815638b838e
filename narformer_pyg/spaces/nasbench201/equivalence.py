"""Classes of NAS-Bench-201 cells that compute the same function."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from narformer_pyg.spaces.nasbench201.cell import NUM_CELLS, NASBench201Cell, code_to_index
from narformer_pyg.spaces.nasbench201.graph import (
    CELL_EDGES,
    NUM_NODES,
    OPERATIONS,
    graph_edge_index,
)

# Hundreds of cells compute nothing at all; a sample of such a class says as much as all of it.
MAX_MEMBERS = 64


@functools.cache
def function_indices() -> Tensor:
    """Returns for each official index the lowest one with the same function: long, [15625].

    The function of a cell is a sum of terms: a :obj:`skip_connect` contributes the terms of its
    source, a :obj:`none` or an operation on an empty sum nothing, an average pooling, which is
    linear, each term pooled, and a convolution one term that holds all of its input. Cells with the
    same terms from the same number of convolutions in the same places can represent the same
    functions, up to biases of convolutions of an empty sum, with as many parameters.
    """
    first: dict[Any, int] = {}
    return torch.tensor(
        [first.setdefault(_function(NASBench201Cell.from_index(i)), i) for i in range(NUM_CELLS)]
    )


@functools.cache
def _members() -> dict[int, Tensor]:
    """Returns the official indices of the cells of each class, :obj:`MAX_MEMBERS` at most."""
    functions, order = function_indices().sort(stable=True)
    classes, sizes = functions.unique(return_counts=True)
    out = {}
    for key, part in zip(classes.tolist(), order.split(sizes.tolist()), strict=True):
        kept = torch.linspace(0, len(part) - 1, min(len(part), MAX_MEMBERS)).round().long()
        out[key] = part[kept]
    return out


def equivalent_indices(index: int) -> Tensor:
    r"""Returns the official indices of cells with the same function, in ascending order.

    They include the cell itself. A class of more than 64 cells is represented by 64 of them,
    spread evenly, which may leave the cell out.

    Args:
        index (int): An official index.
    """
    cell = NASBench201Cell.from_index(index)  # checks the range
    return _members()[int(function_indices()[cell.index])].clone()  # the cache stays as it is


def cell_indices(graphs: Sequence[Data]) -> Tensor:
    r"""Returns the official index of each graph's cell: long, :math:`(n)`.

    Raises:
        ValueError: If one is not such a graph; the message says which.
    """
    edges = graph_edge_index()
    for i, data in enumerate(graphs):
        op = data.op if "op" in data else None
        if not (
            isinstance(op, Tensor)
            and op.shape == (NUM_NODES,)
            and op[0] == 0
            and op[-1] == NUM_NODES - 2
            and bool(((op[1:-1] > 0) & (op[1:-1] <= len(OPERATIONS))).all())
            and "edge_index" in data
            and torch.equal(data.edge_index.cpu(), edges)
        ):
            raise ValueError(
                "Expected the graphs to be cells of NAS-Bench-201, whose equivalent cells are "
                f"known (got graph {i}: {data})"
            )
    if len(graphs) == 0:
        return torch.empty(0, dtype=torch.long)
    digits = torch.stack([data.op.cpu() for data in graphs])[:, 1:-1] - 1
    weights = len(OPERATIONS) ** torch.arange(len(CELL_EDGES) - 1, -1, -1)
    return torch.from_numpy(code_to_index().astype(np.int64))[(digits * weights).sum(dim=1)]


def _function(cell: NASBench201Cell) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Returns the terms of the output, and for each convolution its text and that of its terms."""
    # A term is its text and how often each convolution (an edge of the cell) is in it.
    values: list[list[tuple[str, Counter[int]]]] = [[("x", Counter())]]
    texts: dict[int, str] = {}
    for target in range(1, 4):
        terms = []
        for edge, ((source, end), name) in enumerate(zip(CELL_EDGES, cell.operations, strict=True)):
            if end != target or name == "none" or not values[source]:
                continue
            if name == "skip_connect":
                terms += values[source]
            elif name == "avg_pool_3x3":
                terms += [(f"pool({text})", uses) for text, uses in values[source]]
            else:
                texts[edge] = f"{name}({'+'.join(text for text, _ in values[source])})"
                inner = sum((uses for _, uses in values[source]), Counter({edge: 1}))
                terms.append((texts[edge], inner))
        values.append(sorted(terms, key=lambda term: term[0]))
    uses_of = {
        edge: tuple(sorted((text, uses[edge]) for text, uses in values[-1] if uses[edge] > 0))
        for edge in texts
    }
    return (
        tuple(text for text, _ in values[-1]),
        tuple(sorted((texts[edge], uses) for edge, uses in uses_of.items() if uses)),
    )
