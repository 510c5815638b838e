"""Operations, limits and graph algorithms of NAS-Bench-101 cells, in plain Python.

A graph is a list of predecessor masks: bit :obj:`x` of entry :obj:`y` is the edge :obj:`x -> y`.
Vertex 0 is the input, the last vertex the output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import md5
from typing import Any

import numpy as np
from torch_geometric.data import Data

from narformer_pyg.errors import ConversionError

#: The three operations; the id of an operation in a graph is its place here plus one.
OPERATIONS = ("conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3")
#: The names behind the values :obj:`0..4` of the attribute :obj:`op` of a graph.
NODE_TYPES = ("input", *OPERATIONS, "output")
MAX_VERTICES = 7
MAX_EDGES = 9


class NASBench101Data(Data):
    """The graph of a NAS-Bench-101 cell."""

    #: The search space, by which predictors tell its graphs from those of other spaces.
    space = "nasbench101"


def read_cell(matrix: Any, operations: Any) -> tuple[list[int], tuple[str, ...]]:
    """Returns graph and operations of a cell, without vertices off the paths to the output.

    Raises:
        ConversionError: If matrix and operations are not a cell of this space.
        TypeError: If :obj:`operations` is not a sequence of names.
    """
    operations = _check_operations(operations)
    predecessors = _read_matrix(matrix, len(operations))
    kept = useful_vertices(predecessors)
    if not kept:
        edges = [f"{x}->{y}" for y, p in enumerate(predecessors) for x in range(y) if p >> x & 1]
        raise ConversionError(
            "Expected 'matrix' to hold a path from the input to the output (got "
            f"{'the edges ' + ', '.join(edges) if edges else 'no edges'})"
        )
    predecessors = select_vertices(predecessors, kept)
    edge_count = num_edges(predecessors)
    if len(kept) > MAX_VERTICES or edge_count > MAX_EDGES:
        raise ConversionError(
            f"Expected 'matrix' to hold at most {MAX_VERTICES} vertices and {MAX_EDGES} edges "
            f"on paths from input to output (got {len(kept)} vertices and {edge_count} edges)"
        )
    return predecessors, tuple(operations[v] for v in kept)


def is_cell(predecessors: Sequence[int]) -> bool:
    """Whether a graph has a path from input to output and, pruned, is small enough."""
    kept = useful_vertices(predecessors)
    if not kept or len(kept) > MAX_VERTICES:
        return False
    return num_edges(select_vertices(predecessors, kept)) <= MAX_EDGES


def num_edges(predecessors: Sequence[int]) -> int:
    """Returns the number of edges."""
    return sum(p.bit_count() for p in predecessors)


def split_bits(vertices: int, edge_bits: int) -> list[int]:
    """Returns the graph whose edge ``x -> y`` is bit ``x + y * (y - 1) / 2``."""
    return [edge_bits >> y * (y - 1) // 2 & ((1 << y) - 1) for y in range(vertices)]


def useful_vertices(predecessors: Sequence[int]) -> list[int]:
    """Returns the vertices on a path from input to output, in order; none if there is no path."""
    n = len(predecessors)
    reached = 1  # from the input
    for y in range(1, n):
        if predecessors[y] & reached:
            reached |= 1 << y
    useful = 1 << n - 1  # to the output
    for y in reversed(range(n)):
        if useful >> y & 1:
            useful |= predecessors[y]
    useful &= reached
    return [y for y in range(n) if useful >> y & 1] if useful & 1 else []


def select_vertices(predecessors: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Returns the subgraph of some vertices, which are numbered anew in the given order."""
    return [sum((predecessors[y] >> x & 1) << i for i, x in enumerate(kept)) for y in kept]


def topological_order(predecessors: Sequence[int]) -> list[int]:
    """Returns the vertices of a graph as early in number as its edges allow, the output last."""
    n = len(predecessors)
    order: list[int] = []
    done = 0
    while len(order) < n - 1:
        ready = (y for y in range(n - 1) if not done >> y & 1 and not predecessors[y] & ~done)
        order.append(next(ready))
        done |= 1 << order[-1]
    return [*order, n - 1]


def labelled_forms(predecessors: Sequence[int], digits: Sequence[int]) -> set[tuple[int, int]]:
    """Returns edge bits and base-3 labels of a pruned graph in all of its topological orders."""
    n = len(predecessors)
    edges = [(x, y) for y in range(n) for x in range(y) if predecessors[y] >> x & 1]
    place = [0] * n
    place[n - 1] = n - 1
    forms: set[tuple[int, int]] = set()

    def extend(done: int, position: int, label: int) -> None:
        if position == n - 1:
            bits = 0
            for x, y in edges:
                target = place[y]
                bits |= 1 << place[x] + target * (target - 1) // 2
            forms.add((bits, label))
            return
        for y in range(1, n - 1):
            if not done >> y & 1 and not predecessors[y] & ~done:
                place[y] = position
                extend(done | 1 << y, position + 1, 3 * label + digits[y])

    extend(1, 1, 0)
    return forms


def ancestors(predecessors: Sequence[int]) -> list[int]:
    """Returns for each vertex the mask of itself and all vertices with a path to it."""
    masks: list[int] = []
    for y, direct in enumerate(predecessors):
        mask = 1 << y
        for x in range(y):
            if direct >> x & 1:
                mask |= masks[x]
        masks.append(mask)
    return masks


def module_hash(predecessors: Sequence[int], labels: Sequence[int]) -> str:
    """Returns the benchmark's fingerprint of a labelled graph, equal for isomorphic graphs.

    The digest of a vertex starts as the MD5 of the text of its out-degree, in-degree and label.
    Each of as many rounds as there are vertices replaces all digests at once: the sorted digests of
    the predecessors, those of the successors and the vertex's own, joined by bars, are hashed. The
    fingerprint is the digest of the text of the sorted list; see section 2.1 of `"NAS-Bench-101:
    Towards Reproducible Neural Architecture Search" <https://arxiv.org/abs/1902.09635>`_.
    """
    n = len(predecessors)
    sources = [[x for x in range(n) if predecessors[y] >> x & 1] for y in range(n)]
    targets = [[y for y in range(n) if predecessors[y] >> x & 1] for x in range(n)]
    digests = [_digest(str((len(targets[v]), len(sources[v]), labels[v]))) for v in range(n)]
    for _ in range(n):
        digests = [
            _digest(
                "|".join(
                    (
                        "".join(sorted(digests[x] for x in sources[v])),
                        "".join(sorted(digests[y] for y in targets[v])),
                        digests[v],
                    )
                )
            )
            for v in range(n)
        ]
    return _digest(str(sorted(digests)))


def _digest(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def _read_matrix(matrix: Any, num_vertices: int) -> list[int]:
    try:
        array = np.asarray(matrix)
    except ValueError:  # rows of different length
        array = np.empty(0)
    if array.shape != (num_vertices, num_vertices):
        raise ConversionError(
            f"Expected 'matrix' to have a row and a column for each of the {num_vertices} "
            f"operations (got {matrix!r:.200})"
        )
    rows = array.tolist()
    predecessors = [0] * num_vertices
    for x, row in enumerate(rows):
        for y, entry in enumerate(row):
            if entry not in (0, 1):
                raise ConversionError(
                    f"Expected 'matrix' to hold zeros and ones (got {entry!r} at [{x}][{y}])"
                )
            if entry and x >= y:
                raise ConversionError(
                    "Expected 'matrix' to be upper triangular, so that edges lead to later "
                    f"vertices (got an edge {x}->{y}); bring the vertices into topological order"
                )
            if entry:
                predecessors[y] |= 1 << x
    return predecessors


def _check_operations(operations: Any) -> tuple[str, ...]:
    if isinstance(operations, str) or not isinstance(operations, Iterable):
        raise TypeError(
            "Expected 'operations' to be a sequence of names, one for each vertex "
            f"(got {operations!r})"
        )
    operations = tuple(operations)
    if len(operations) < 2 or operations[0] != "input" or operations[-1] != "output":
        raise ConversionError(
            "Expected 'operations' to begin with 'input' and to end with 'output' "
            f"(got {operations!r})"
        )
    for name in operations[1:-1]:
        if name not in OPERATIONS:
            raise ConversionError(
                f"Expected 'operations' between input and output to be among "
                f"{', '.join(OPERATIONS)} (got {name!r})"
            )
    return operations
