"""Operations and nodes of DARTS cells, and orders of their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from torch_geometric.data import Data

from narformer_pyg.errors import ConversionError

#: The seven operations of derived cells; :obj:`none` is only a candidate in DARTS' own search.
OPERATIONS = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5",
    "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
#: The nodes of a cell that the operations compute, after its two inputs 0 and 1.
INTERMEDIATE_NODES = (2, 3, 4, 5)
NUM_EDGES = 2 * len(INTERMEDIATE_NODES)
#: The fields of a genotype that are cells.
CELLS = ("normal", "reduce")
#: The names behind the values :obj:`0..20` of the attribute :obj:`op` of a graph.
NODE_TYPES = (
    "c_{k-2}",
    "c_{k-1}",
    *(f"{cell} {name}" for cell in CELLS for name in (*OPERATIONS, "sum", "concat")),
    "output",
)
#: Two inputs; eight operations, four sums and a concatenation in each cell; the output.
NUM_NODES = 2 + len(CELLS) * (NUM_EDGES + len(INTERMEDIATE_NODES) + 1) + 1

Edge = tuple[str, int]
Cell = tuple[Edge, ...]


class DARTSData(Data):
    """The graph of a DARTS genotype."""

    #: The search space, by which predictors tell its graphs from those of other spaces.
    space = "darts"


def split_cell(cell: Cell) -> list[tuple[Edge, Edge]]:
    """Returns the two edges of each intermediate node."""
    return list(zip(cell[::2], cell[1::2], strict=True))


def node_orders(cell: Cell) -> Iterator[tuple[int, ...]]:
    """Yields the orders of a cell's intermediate nodes in which each follows what it reads."""
    pairs = split_cell(cell)
    for order in permutations(INTERMEDIATE_NODES):
        place = {node: i for i, node in enumerate((0, 1, *order))}
        if all(place[s] < place[n] for n, pair in enumerate(pairs, start=2) for _, s in pair):
            yield order


def reorder_nodes(cell: Cell, order: Sequence[int]) -> list[tuple[Edge, Edge]]:
    """Returns the two edges of each intermediate node after numbering the nodes in an order."""
    place = {node: i for i, node in enumerate((0, 1, *order))}
    pairs = split_cell(cell)
    renamed = [[(name, place[source]) for name, source in pairs[node - 2]] for node in order]
    return [(first, second) for first, second in renamed]


def check_cell(name: str, edges: Any) -> Cell:
    """Returns the eight edges of a cell, or raises if they are something else."""
    pairs = f"pairs of an operation and the node it reads, as ('{OPERATIONS[3]}', 0)"
    if isinstance(edges, str) or not isinstance(edges, Iterable):
        raise TypeError(
            f"Expected '{name}' to be a sequence of {NUM_EDGES} {pairs} (got {edges!r}); use "
            "'from_str' to parse a text"
        )
    edges = tuple(edges)
    if len(edges) != NUM_EDGES:
        raise ConversionError(
            f"Expected '{name}' to hold {NUM_EDGES} operations, two for each of the nodes 2 to 5 "
            f"(got {len(edges)}: {edges!r:.300})"
        )
    checked: list[Edge] = []
    for k, edge in enumerate(edges):
        node = 2 + k // 2
        is_pair = isinstance(edge, (tuple, list)) and len(edge) == 2
        if not is_pair or isinstance(edge[1], bool) or not isinstance(edge[1], (int, np.integer)):
            raise ConversionError(
                f"Expected '{name}' to hold {pairs} (got {edge!r:.100} at node {node})"
            )
        operation, source = edge
        if operation not in OPERATIONS:
            raise ConversionError(
                f"Expected the operations of '{name}' to be among {', '.join(OPERATIONS)} (got "
                f"{operation!r} at node {node})"
            )
        if not 0 <= source < node:
            raise ConversionError(
                f"Expected the operations at node {node} of '{name}' to read a node before it, 0 "
                f"to {node - 1} (got {edge!r}); bring the nodes into topological order"
            )
        if k % 2 and source == checked[-1][1]:
            raise ConversionError(
                f"Expected the two operations at node {node} of '{name}' to read different nodes, "
                f"as in all cells that DARTS derives (got {source} twice: {edges[k - 1]!r} and "
                f"{edge!r})"
            )
        checked.append((str(operation), int(source)))
    return tuple(checked)


def check_concat(name: str, nodes: Any) -> tuple[int, ...]:
    """Returns the nodes that a cell concatenates, or raises unless they are all of its own."""
    # A range is compared without writing it out, however long it is.
    expected = range(2, 6) if isinstance(nodes, range) else INTERMEDIATE_NODES
    if not isinstance(nodes, (range, tuple)):
        nodes = tuple(nodes) if isinstance(nodes, Iterable) else nodes
    if nodes != expected:
        raise ConversionError(
            f"Expected '{name}' to be range(2, 6), all intermediate nodes in order, as in all "
            f"cells of DARTS (got {nodes!r})"
        )
    return INTERMEDIATE_NODES
