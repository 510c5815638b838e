"""The NAS-Bench-101 search space: cells of up to seven vertices and nine edges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces._checks import check_number, check_rng, check_text
from narformer_pyg.spaces.nasbench101.codes import DIGITS, all_edge_bits
from narformer_pyg.spaces.nasbench101.graph import (
    MAX_EDGES,
    MAX_VERTICES,
    NODE_TYPES,
    OPERATIONS,
    NASBench101Data,
    ancestors,
    is_cell,
    labelled_forms,
    module_hash,
    read_cell,
    select_vertices,
    split_bits,
    topological_order,
    useful_vertices,
)
from narformer_pyg.spaces.nasbench101.network import NASBench101Network

#: The number of cells that are not isomorphic to each other.
NUM_CELLS = 423624

_OP = {name: i for i, name in enumerate(NODE_TYPES)}
_DIGIT = {name: i for i, name in enumerate(DIGITS)}
_HASH_LABEL = {"input": -1, "output": -2, **_DIGIT}
_TERM = re.compile(r"([^~+]+)~([0-9]+(?:,[0-9]+)*)")
_FORMAT = "'conv3x3-bn-relu~0+maxpool3x3~0,1+output~1,2'"


@dataclass(frozen=True, slots=True)
class NASBench101Cell:
    r"""A cell of `NAS-Bench-101 <https://arxiv.org/abs/1902.09635>`_.

    A directed acyclic graph with an operation on each vertex between the first, the input, and
    the last, the output. Vertices that are not on a path from input to output are dropped, as in
    the benchmark: they do not change the network. What is left has at most seven vertices and
    nine edges.

    .. code-block:: python

        cell = NASBench101Cell(
            [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
            ["input", "conv3x3-bn-relu", "maxpool3x3", "output"],
        )
        str(cell)  # "conv3x3-bn-relu~0+maxpool3x3~1+output~0,2"

    Cells are equal if matrix and operations are. Use :meth:`canonical` or :attr:`module_hash` to
    recognise the same cell with its vertices in another order.

    Args:
        matrix (array_like): The adjacency matrix, upper triangular, of zeros and ones: entry
            :obj:`[x][y]` is an edge from :obj:`x` to :obj:`y`. Stored as a tuple of tuples,
            without dropped vertices.
        operations (sequence of str): The operation of each vertex: :obj:`"input"` first,
            :obj:`"output"` last, between them :obj:`"conv1x1-bn-relu"`,
            :obj:`"conv3x3-bn-relu"` and :obj:`"maxpool3x3"`.

    Raises:
        ConversionError: If matrix and operations are not a cell of this space.
        TypeError: If :obj:`operations` is not a sequence of names.
    """

    matrix: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        predecessors, operations = read_cell(self.matrix, self.operations)
        matrix = tuple(tuple(p >> x & 1 for p in predecessors) for x in range(len(predecessors)))
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "operations", operations)

    @classmethod
    def from_str(cls, text: str) -> NASBench101Cell:
        """Parses the text of a cell, in a notation of ours; the benchmark has none.

        Args:
            text (str): The vertices after the input, joined by :obj:`+`, each an operation with
                the vertices that it reads: :obj:`"conv3x3-bn-relu~0+maxpool3x3~0,1+output~1,2"`.

        Raises:
            ConversionError: If the text has another form or is not a cell.
            TypeError: If :obj:`text` is not a string.
        """
        check_text("text", text)
        operations, predecessors = ["input"], [0]
        for vertex, term in enumerate(text.split("+"), start=1):
            match = _TERM.fullmatch(term)
            if match is None:
                raise ConversionError(
                    f"Expected 'operation~source,source' at vertex {vertex}, as in {_FORMAT} "
                    f"(got {term!r} in {text!r})"
                )
            sources = [int(source) for source in match[2].split(",")]
            if len(set(sources)) < len(sources) or max(sources) >= vertex:
                raise ConversionError(
                    f"Expected vertex {vertex} to read vertices before it, each once "
                    f"(got {term!r} in {text!r})"
                )
            operations.append(match[1])
            predecessors.append(sum(1 << source for source in sources))
        return _make_cell(predecessors, operations)

    @classmethod
    def from_code(cls, vertices: int, edge_bits: int, op_code: int) -> NASBench101Cell:
        """Returns the cell with a :attr:`code`.

        Raises:
            TypeError: If a number is not an integer.
            ValueError: If there is no such cell.
        """
        if check_number("vertices", vertices, MAX_VERTICES + 1) < 2:
            raise ValueError(
                f"Expected 'vertices' to be between 2 and {MAX_VERTICES} (got {vertices})"
            )
        check_number("edge_bits", edge_bits, 1 << vertices * (vertices - 1) // 2)
        check_number("op_code", op_code, 3 ** (vertices - 2))
        names = [DIGITS[op_code // 3**k % 3] for k in reversed(range(vertices - 2))]
        predecessors = split_bits(vertices, edge_bits)
        if not is_cell(predecessors) or len(useful_vertices(predecessors)) < vertices:
            raise ValueError(
                f"Expected 'edge_bits' to hold at most {MAX_EDGES} edges between {vertices} "
                f"vertices, all of them on a path from input to output (got {edge_bits})"
            )
        return _make_cell(predecessors, ["input", *names, "output"])

    @classmethod
    def random(cls, rng: np.random.Generator) -> NASBench101Cell:
        """Draws one of the 423,624 cells, in one of its topological orders, with a NumPy generator.

        All cells are equally likely.
        """
        check_rng(rng)
        graphs, ends = all_edge_bits()
        while True:
            # Uniform over labelled matrices, so each cell is drawn once for each of its forms.
            drawn = int(rng.integers(ends[-1]))
            row = int(np.searchsorted(ends, drawn, side="right"))
            vertices, edge_bits = graphs[row]
            op_code = drawn - (int(ends[row - 1]) if row else 0)
            cell = cls.from_code(vertices, edge_bits, op_code)
            if rng.random() * len(cell._forms()) < 1:
                return cell

    @property
    def num_vertices(self) -> int:
        """The number of vertices, input and output included: 2 to 7."""
        return len(self.operations)

    @property
    def code(self) -> tuple[int, int, int]:
        r"""The cell as three numbers :obj:`(vertices, edge_bits, op_code)`.

        Bit :math:`x + y (y - 1) / 2` of the second number is the edge :math:`x \to y`. The third
        number reads the operations between input and output as base-3 digits (conv3x3 0, conv1x1 1,
        maxpool3x3 2), the first one most significant. :func:`unpack_codes` takes arrays of them.
        """
        edge_bits = sum(p << y * (y - 1) // 2 for y, p in enumerate(self._predecessors()))
        op_code = 0
        for name in self.operations[1:-1]:
            op_code = 3 * op_code + _DIGIT[name]
        return self.num_vertices, edge_bits, op_code

    @property
    def module_hash(self) -> str:
        """The benchmark's name of the cell: 32 hexadecimal digits, the same for isomorphic ones."""
        return module_hash(self._predecessors(), [_HASH_LABEL[name] for name in self.operations])

    def mutate(self, rng: np.random.Generator) -> NASBench101Cell:
        """Returns one of :meth:`neighbors`, drawn uniformly with a NumPy generator."""
        check_rng(rng)
        neighbors = self.neighbors()
        return neighbors[int(rng.integers(len(neighbors)))]

    def neighbors(self) -> list[NASBench101Cell]:
        """Returns all cells that are one change away, each of its isomorphism class once.

        A change replaces an operation, removes or adds an edge, or adds a vertex with one ingoing
        and one outgoing edge. Isomorphic cells have isomorphic neighbours, and changes lead from
        every cell to every other.
        """
        found: dict[tuple[int, int, int], NASBench101Cell] = {}
        for predecessors, operations in self._changes():
            order = topological_order(predecessors)
            # Sources move along with the vertices.
            ordered = select_vertices(predecessors, order)
            if is_cell(ordered):
                cell = _make_cell(ordered, [operations[v] for v in order])
                found.setdefault((cell.num_vertices, *min(cell._forms())), cell)
        found.pop((self.num_vertices, *min(self._forms())), None)
        return list(found.values())

    def canonical(self) -> NASBench101Cell:
        r"""Returns the representative of all cells isomorphic to this one.

        It has the smallest :attr:`code`. Its network can have a few parameters more or less, as the
        remainder of the output's channels goes to the first vertices.
        """
        return self.from_code(self.num_vertices, *min(self._forms()))

    def to_data(self) -> NASBench101Data:
        r"""Returns the cell as a graph with its operations on the nodes.

        Returns:
            NASBench101Data: :obj:`op` (long, :obj:`[num_vertices]`, a place in
            :obj:`NODE_TYPES`), :obj:`position` (long, :obj:`[num_vertices]`, the vertex's place in
            the order), :obj:`edge_index` (long, :obj:`[2, num_edges]`, in the direction of the data
            flow, sorted by target, then by source) and :obj:`num_nodes`.
        """
        n = self.num_vertices
        edges = [(x, y) for y in range(n) for x in range(y) if self.matrix[x][y]]
        return NASBench101Data(
            op=torch.tensor([_OP[name] for name in self.operations]),
            position=torch.arange(n),
            edge_index=torch.tensor(edges).t().contiguous(),
            num_nodes=n,
        )

    def to_module(self, num_classes: int = 10, C: int = 128, N: int = 3) -> NASBench101Network:
        """Builds the benchmark's network, see :class:`~narformer_pyg.spaces.NASBench101Network`."""
        return NASBench101Network(self.matrix, self.operations, num_classes, C, N)

    def __str__(self) -> str:
        return "+".join(
            f"{name}~{','.join(str(x) for x in range(y) if self.matrix[x][y])}"
            for y, name in enumerate(self.operations)
            if y > 0
        )

    def _predecessors(self) -> list[int]:
        n = self.num_vertices
        return [sum(self.matrix[x][y] << x for x in range(y)) for y in range(n)]

    def _forms(self) -> set[tuple[int, int]]:
        digits = [_DIGIT.get(name, -1) for name in self.operations]
        return labelled_forms(self._predecessors(), digits)

    def _changes(self) -> Iterable[tuple[list[int], list[str]]]:
        """Yields the changes of :meth:`neighbors`: not pruned, perhaps too large, without cycle."""
        predecessors, operations = self._predecessors(), list(self.operations)
        n = self.num_vertices
        above = ancestors(predecessors)
        for v in range(1, n - 1):
            for name in OPERATIONS:
                if name != operations[v]:
                    yield predecessors, [*operations[:v], name, *operations[v + 1 :]]
        for x in range(n - 1):
            for y in range(1, n):
                if above[x] >> y & 1:
                    continue  # a path leads from y to x, so that an edge back is a cycle
                changed = predecessors.copy()
                changed[y] ^= 1 << x
                yield changed, operations
        if n == MAX_VERTICES:
            return
        for x in range(n - 1):
            for y in range(1, n):
                if above[x] >> y & 1:
                    continue
                # The new vertex is number n - 1, and the output moves behind it.
                changed = [*predecessors[:-1], 1 << x, predecessors[-1]]
                changed[y if y < n - 1 else n] |= 1 << n - 1
                for name in OPERATIONS:
                    yield changed, [*operations[:-1], name, "output"]


def _make_cell(predecessors: Sequence[int], operations: Sequence[str]) -> NASBench101Cell:
    n = len(predecessors)
    matrix = [[p >> x & 1 for p in predecessors] for x in range(n)]
    return NASBench101Cell(matrix, operations)  # type: ignore[arg-type]
