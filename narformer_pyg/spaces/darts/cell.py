"""The DARTS search space: a normal and a reduction cell of eight operations each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from narformer_pyg.spaces._checks import check_rng
from narformer_pyg.spaces.darts.graph import (
    CELLS,
    INTERMEDIATE_NODES,
    NODE_TYPES,
    NUM_NODES,
    OPERATIONS,
    Cell,
    DARTSData,
    Edge,
    check_cell,
    check_concat,
    node_orders,
    reorder_nodes,
    split_cell,
)
from narformer_pyg.spaces.darts.network import DARTSNetwork
from narformer_pyg.spaces.darts.text import parse_genotype

#: The changes that :meth:`DARTSGenotype.neighbors` makes.
NUM_NEIGHBORS = 120

_DIGIT = {name: i for i, name in enumerate(OPERATIONS)}
_OP = {name: i for i, name in enumerate(NODE_TYPES)}


@dataclass(frozen=True, slots=True)
class DARTSGenotype:
    r"""A pair of cells of `DARTS <https://arxiv.org/abs/1806.09055>`_.

    A cell has two inputs, the outputs of the cell before the last (node :obj:`0`, :math:`c_{k-2}`)
    and of the last one (node :obj:`1`, :math:`c_{k-1}`), and four intermediate nodes :obj:`2` to
    :obj:`5`. Each of these is the sum of two operations on two different nodes before it; the
    output concatenates all four. A network repeats the normal cell; in the reduction cell,
    operations on the inputs halve the resolution.

    .. code-block:: python

        genotype = DARTS_GENOTYPES["DARTS_V2"]
        genotype == DARTSGenotype.from_str(str(genotype))  # True

    The fields are those of DARTS' own namedtuple: :obj:`DARTSGenotype(**genotype._asdict())`
    converts one. Genotypes are equal if their cells are equal in the given order; compare
    :meth:`canonical` to recognise the same network with its nodes in another order.

    Args:
        normal (sequence): The operations of the normal cell as pairs :obj:`(operation, node)`, two
            for each intermediate node, with the node that the operation reads. The operations are
            those of :obj:`narformer_pyg.spaces.darts.OPERATIONS`.
        reduce (sequence): The operations of the reduction cell.
        normal_concat, reduce_concat (sequence of int, optional): The nodes that each cell
            concatenates, always all intermediate ones. (default: :obj:`(2, 3, 4, 5)`)

    Raises:
        ConversionError: If it is not a genotype of this space.
        TypeError: If a cell is not a sequence of pairs.
    """

    normal: Cell
    reduce: Cell
    normal_concat: tuple[int, ...] = INTERMEDIATE_NODES
    reduce_concat: tuple[int, ...] = INTERMEDIATE_NODES

    def __post_init__(self) -> None:
        for name in CELLS:
            object.__setattr__(self, name, check_cell(name, getattr(self, name)))
            concat = f"{name}_concat"
            object.__setattr__(self, concat, check_concat(concat, getattr(self, concat)))

    @classmethod
    def from_str(cls, text: str) -> DARTSGenotype:
        """Parses DARTS' own notation, which is also the text of a genotype, without running it.

        Lists and tuples are the same, and a concatenation is :obj:`range(2, 6)` or
        :obj:`[2, 3, 4, 5]`.

        Raises:
            ConversionError: If the text has another form or is not a genotype of this space.
            TypeError: If :obj:`text` is not a string.
        """
        return cls(**parse_genotype(text))

    @classmethod
    def random(cls, rng: np.random.Generator) -> DARTSGenotype:
        r"""Draws two inputs and two operations for each intermediate node with a NumPy generator.

        All :math:`(180 \cdot 7^8)^2 \approx 1.1 \cdot 10^{18}` genotypes whose edges are sorted by
        input are equally likely, so a network is the likelier the more orders its nodes allow.
        """
        check_rng(rng)
        return cls(_random_cell(rng), _random_cell(rng))

    def mutate(self, rng: np.random.Generator) -> DARTSGenotype:
        """Returns one of the 120 :meth:`neighbors`, drawn uniformly with a NumPy generator."""
        drawn = int(check_rng(rng).integers(NUM_NEIGHBORS))
        return self._change(*list(self._changes())[drawn])

    def neighbors(self) -> list[DARTSGenotype]:
        """Returns the 120 genotypes that differ in one operation or in the node it reads.

        A few may be isomorphic to each other or to the genotype itself.
        """
        return [self._change(*change) for change in self._changes()]

    def canonical(self) -> DARTSGenotype:
        r"""Returns the representative of all genotypes isomorphic to this one.

        Two genotypes are isomorphic if one becomes the other when intermediate nodes of its cells,
        or the two operations of a node, change places. Their networks compute the same functions,
        up to the order of the concatenated channels, which the next layer's weights undo. Nodes
        that are equal only because they have no weights count as different.
        """
        return DARTSGenotype(_canonical_cell(self.normal), _canonical_cell(self.reduce))

    def to_data(self) -> DARTSData:
        r"""Returns both cells as one graph with their operations on the nodes.

        The cells share nodes 0 and 1, the inputs :math:`c_{k-2}` and :math:`c_{k-1}`. Two
        operations and their sum for each intermediate node of the normal cell follow, and the
        concatenation; then the nodes of the reduction cell, whose types differ; the output joins
        both. Genotypes have isomorphic graphs if and only if they are isomorphic.

        Returns:
            DARTSData: :obj:`op` (long, :obj:`[29]`, a place in :obj:`NODE_TYPES`),
            :obj:`position` (long, :obj:`[29]`, :obj:`0..28`), :obj:`edge_index` (long,
            :obj:`[2, 42]`, in the direction of the data flow, sorted by target, then by source) and
            :obj:`num_nodes`.
        """
        op = [0, 1]
        edges: list[tuple[int, int]] = []

        def add(node_type: str, sources: Sequence[int]) -> int:
            edges.extend((source, len(op)) for source in sources)
            op.append(_OP[node_type])
            return len(op) - 1

        concats = []
        for name, cell in zip(CELLS, (self.normal, self.reduce), strict=True):
            states = [0, 1]
            for pair in split_cell(cell):
                summands = [add(f"{name} {op_name}", [states[source]]) for op_name, source in pair]
                states.append(add(f"{name} sum", summands))
            concats.append(add(f"{name} concat", states[2:]))
        add("output", concats)
        return DARTSData(
            op=torch.tensor(op),
            position=torch.arange(NUM_NODES),
            edge_index=torch.tensor(edges).t().contiguous(),
            num_nodes=NUM_NODES,
        )

    def to_module(self, *args: Any, **kwargs: Any) -> DARTSNetwork:
        """Builds DARTS' evaluation network.

        The arguments are those of :class:`~narformer_pyg.spaces.DARTSNetwork` after the cells.
        """
        return DARTSNetwork(self.normal, self.reduce, *args, **kwargs)

    def __str__(self) -> str:
        nodes = f"range({INTERMEDIATE_NODES[0]}, {INTERMEDIATE_NODES[-1] + 1})"
        cells = (f"{name}={list(getattr(self, name))}, {name}_concat={nodes}" for name in CELLS)
        return f"Genotype({', '.join(cells)})"

    def _changes(self) -> Iterator[tuple[str, int, Edge]]:
        """Yields the changes of :meth:`neighbors`: cell, place in it, and new edge."""
        for name in CELLS:
            for node, pair in enumerate(split_cell(getattr(self, name)), start=2):
                read = {source for _, source in pair}
                for k, (operation, source) in enumerate(pair, start=2 * (node - 2)):
                    for other in OPERATIONS:
                        if other != operation:
                            yield name, k, (other, source)
                    for other_source in range(node):
                        if other_source not in read:
                            yield name, k, (operation, other_source)

    def _change(self, name: str, k: int, edge: Edge) -> DARTSGenotype:
        cell: Cell = getattr(self, name)
        changed: Any = {name: (*cell[:k], edge, *cell[k + 1 :])}
        return dataclasses.replace(self, **changed)


def _canonical_cell(cell: Cell) -> Cell:
    """Returns the form whose sorted edges, as inputs and operations, come first in the order."""

    def key(edge: Edge) -> tuple[int, int]:
        return edge[1], _DIGIT[edge[0]]

    forms = (
        tuple(key(edge) for pair in reorder_nodes(cell, order) for edge in sorted(pair, key=key))
        for order in node_orders(cell)
    )
    return tuple((OPERATIONS[digit], source) for source, digit in min(forms))


def _random_cell(rng: np.random.Generator) -> Cell:
    cell: list[Edge] = []
    for node in INTERMEDIATE_NODES:
        sources = sorted(rng.choice(node, size=2, replace=False).tolist())
        digits = rng.integers(len(OPERATIONS), size=2).tolist()
        cell += [(OPERATIONS[d], source) for d, source in zip(digits, sources, strict=True)]
    return tuple(cell)
