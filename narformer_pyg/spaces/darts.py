"""The DARTS search space: a normal and a reduction cell of eight operations each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch_geometric.data import Data

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces._darts_text import parse_genotype
from narformer_pyg.spaces._random import check_rng

if TYPE_CHECKING:
    from narformer_pyg.spaces.darts_network import DARTSNetwork

#: The seven operations of derived cells; :obj:`none` is only a candidate in DARTS' own search.
OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
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
#: The changes that :meth:`DARTSGenotype.neighbors` makes.
NUM_NEIGHBORS = 120

_DIGIT = {name: i for i, name in enumerate(OPERATIONS)}
_OP = {name: i for i, name in enumerate(NODE_TYPES)}

Edge = tuple[str, int]
Cell = tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class DARTSGenotype:
    r"""A pair of cells of `DARTS <https://arxiv.org/abs/1806.09055>`_.

    A cell has two inputs, the outputs of the cell before the last (node :obj:`0`, :math:`c_{k-2}`)
    and of the last one (node :obj:`1`, :math:`c_{k-1}`), and four intermediate nodes :obj:`2` to
    :obj:`5`. Each of these is the sum of two operations on two different nodes before it; the
    output concatenates all four. A network repeats the normal cell; in the reduction cell,
    operations on the inputs halve the resolution.

    .. code-block:: python

        genotype = DARTSGenotype.from_str(
            "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
            "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
            "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
            "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
            "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
            "reduce_concat=range(2, 6))"
        )
        genotype == DARTS_GENOTYPES["DARTS_V2"]  # True

    The fields are those of DARTS' own namedtuple, so that of a :obj:`Genotype` of that code
    :obj:`DARTSGenotype(**genotype._asdict())` is the same. Genotypes are equal if their cells are,
    in the order given. Use :meth:`canonical` to recognise the same network with nodes in another
    order.

    Args:
        normal (sequence): The operations of the normal cell as pairs :obj:`(operation, node)`, two
            for each intermediate node, with the node that the operation reads. Operations are
            among :obj:`"max_pool_3x3"`, :obj:`"avg_pool_3x3"`, :obj:`"skip_connect"`,
            :obj:`"sep_conv_3x3"`, :obj:`"sep_conv_5x5"`, :obj:`"dil_conv_3x3"` and
            :obj:`"dil_conv_5x5"`.
        reduce (sequence): The operations of the reduction cell.
        normal_concat (sequence of int, optional): The nodes that the normal cell concatenates,
            which are always all intermediate ones. (default: :obj:`(2, 3, 4, 5)`)
        reduce_concat (sequence of int, optional): Those of the reduction cell.
            (default: :obj:`(2, 3, 4, 5)`)

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
            object.__setattr__(self, name, _check_cell(name, getattr(self, name)))
            concat = f"{name}_concat"
            object.__setattr__(self, concat, _check_concat(concat, getattr(self, concat)))

    @classmethod
    def from_str(cls, text: str) -> DARTSGenotype:
        r"""Parses DARTS' own notation, which is what :class:`str` makes of a genotype.

        The text is read, never run. Lists and tuples are the same, and a concatenation is
        :obj:`range(2, 6)` or :obj:`[2, 3, 4, 5]`.

        Args:
            text (str): A text such as :obj:`"Genotype(normal=[('sep_conv_3x3', 0), ...],
                normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))"`.

        Raises:
            ConversionError: If the text has another form or is not a genotype of this space.
            TypeError: If :obj:`text` is not a string.
        """
        return cls(**parse_genotype(text))

    @classmethod
    def random(cls, rng: np.random.Generator) -> DARTSGenotype:
        r"""Draws a genotype: two different inputs and two operations for each intermediate node.

        All :math:`(180 \cdot 7^8)^2 \approx 1.1 \cdot 10^{18}` genotypes whose edges are sorted by
        input are equally likely, so that networks with many orders of their nodes are more likely
        than others.

        Args:
            rng (numpy.random.Generator): The source of randomness.

        Raises:
            TypeError: If :obj:`rng` is something else.
        """
        check_rng(rng)
        return cls(_random_cell(rng), _random_cell(rng))

    def mutate(self, rng: np.random.Generator) -> DARTSGenotype:
        r"""Returns one of the 120 :meth:`neighbors`, drawn uniformly.

        Args:
            rng (numpy.random.Generator): The source of randomness.

        Raises:
            TypeError: If :obj:`rng` is something else.
        """
        drawn = int(check_rng(rng).integers(NUM_NEIGHBORS))
        return self._change(*list(self._changes())[drawn])

    def neighbors(self) -> list[DARTSGenotype]:
        """Returns the 120 genotypes in which one operation is another or reads another node.

        A few may be isomorphic to each other, or even to the genotype itself.
        """
        return [self._change(*change) for change in self._changes()]

    def canonical(self) -> DARTSGenotype:
        r"""Returns the representative of all genotypes isomorphic to this one.

        Two genotypes are isomorphic if intermediate nodes of either cell in another order, and the
        two operations of nodes, make one of the other. Their networks are the same functions, up
        to the order of the concatenated channels, which the next layer's weights undo. Nodes that
        would only be equal because they have no weights are not recognised.
        """
        return DARTSGenotype(_canonical_cell(self.normal), _canonical_cell(self.reduce))

    def permute(self, rng: np.random.Generator) -> DARTSGenotype:
        r"""Returns a genotype isomorphic to this one: the same network in another order.

        The intermediate nodes of each cell are brought into an order drawn uniformly from those
        that their inputs allow, and the two operations of each node change places at random. The
        result can be the genotype itself. As augmentation, its graph differs from that of
        :class:`~narformer_pyg.transforms.InformationFlowAugmentation` in keeping the nodes of the
        normal cell together and before those of the reduction cell.

        Args:
            rng (numpy.random.Generator): The source of randomness.

        Raises:
            TypeError: If :obj:`rng` is something else.
        """
        check_rng(rng)
        return DARTSGenotype(_permute_cell(self.normal, rng), _permute_cell(self.reduce, rng))

    def to_data(self) -> Data:
        r"""Returns both cells as one graph with their operations on the nodes.

        Nodes 0 and 1 are the inputs :math:`c_{k-2}` and :math:`c_{k-1}`, which the two cells
        share. Then follow the nodes of the normal cell: for each intermediate node its two
        operations and their sum, and at the end the concatenation; then those of the reduction
        cell; the last node, the output, joins the two. Without sums, different genotypes could
        have the same graph: nothing else says which operations are added to each other. Types tell
        the cells apart. Genotypes have isomorphic graphs if and only if they are isomorphic.

        Returns:
            Data: :obj:`op` (long, :obj:`[29]`, a place in :obj:`NODE_TYPES`), :obj:`position`
            (long, :obj:`[29]`, :obj:`0..28`), :obj:`edge_index` (long, :obj:`[2, 42]`, in the
            direction of the data flow, sorted by target, then by source) and :obj:`num_nodes`.
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
            for pair in _split(cell):
                summands = [add(f"{name} {op_name}", [states[source]]) for op_name, source in pair]
                states.append(add(f"{name} sum", summands))
            concats.append(add(f"{name} concat", states[2:]))
        add("output", concats)
        return Data(
            op=torch.tensor(op),
            position=torch.arange(NUM_NODES),
            edge_index=torch.tensor(edges).t().contiguous(),
            num_nodes=NUM_NODES,
        )

    def to_module(
        self,
        num_classes: int = 10,
        C: int = 36,
        layers: int = 20,
        *,
        auxiliary: bool = False,
        drop_path: float = 0.0,
        stem: Literal["cifar", "imagenet"] = "cifar",
    ) -> DARTSNetwork:
        r"""Builds DARTS' evaluation network with these cells, freshly initialised.

        Args:
            num_classes (int, optional): The number of classes. (default: :obj:`10`)
            C (int, optional): The channels of each node in the first cells. (default: :obj:`36`)
            layers (int, optional): The number of cells. (default: :obj:`20`)
            auxiliary (bool, optional): Whether there is a second classifier, for training, after
                two thirds of the cells. (default: :obj:`False`)
            drop_path (float, optional): The probability with which the result of an operation is
                dropped in training. (default: :obj:`0.0`)
            stem (str, optional): :obj:`"cifar"` for small images, :obj:`"imagenet"` for large
                ones, whose resolution the stem divides by eight. (default: :obj:`"cifar"`)

        Raises:
            ValueError: If an argument is wrong.
        """
        # The network needs the genotype's class, so that module imports this one.
        from narformer_pyg.spaces.darts_network import DARTSNetwork

        return DARTSNetwork(
            self, num_classes, C, layers, auxiliary=auxiliary, drop_path=drop_path, stem=stem
        )

    def __str__(self) -> str:
        nodes = f"range({INTERMEDIATE_NODES[0]}, {INTERMEDIATE_NODES[-1] + 1})"
        cells = (f"{name}={list(getattr(self, name))}, {name}_concat={nodes}" for name in CELLS)
        return f"Genotype({', '.join(cells)})"

    def _changes(self) -> Iterator[tuple[str, int, Edge]]:
        """Yields the changes of :meth:`neighbors`: cell, place in it, and what comes there."""
        for name in CELLS:
            for node, pair in enumerate(_split(getattr(self, name)), start=2):
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


def node_orders(cell: Cell) -> Iterator[tuple[int, ...]]:
    """Yields the orders of a cell's intermediate nodes in which each follows what it reads."""
    pairs = _split(cell)
    for order in permutations(INTERMEDIATE_NODES):
        place = {node: i for i, node in enumerate((0, 1, *order))}
        if all(place[s] < place[n] for n, pair in enumerate(pairs, start=2) for _, s in pair):
            yield order


def reorder_nodes(cell: Cell, order: Sequence[int]) -> list[tuple[Edge, Edge]]:
    """Returns the two edges of each intermediate node, which are numbered anew in an order."""
    place = {node: i for i, node in enumerate((0, 1, *order))}
    pairs = _split(cell)
    renamed = [[(name, place[source]) for name, source in pairs[node - 2]] for node in order]
    return [(first, second) for first, second in renamed]


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


def _permute_cell(cell: Cell, rng: np.random.Generator) -> Cell:
    orders = list(node_orders(cell))
    pairs = reorder_nodes(cell, orders[int(rng.integers(len(orders)))])
    swap = rng.integers(2, size=len(pairs)).tolist()
    return tuple(
        e for pair, s in zip(pairs, swap, strict=True) for e in (pair[::-1] if s else pair)
    )


def _split(cell: Cell) -> list[tuple[Edge, Edge]]:
    return list(zip(cell[::2], cell[1::2], strict=True))


def _check_cell(name: str, edges: Any) -> Cell:
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
        if not isinstance(edge, (tuple, list)) or len(edge) != 2:
            raise ConversionError(f"Expected '{name}' to hold {pairs} (got {edge!r:.100})")
        operation, source = edge
        if operation not in OPERATIONS:
            raise ConversionError(
                f"Expected the operations of '{name}' to be among {', '.join(OPERATIONS)} (got "
                f"{operation!r} at node {node})"
            )
        if isinstance(source, bool) or not isinstance(source, (int, np.integer)):
            raise ConversionError(
                f"Expected the operations of '{name}' to read nodes given as integers (got "
                f"{source!r} in {edge!r} at node {node})"
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


def _check_concat(name: str, nodes: Any) -> tuple[int, ...]:
    # A range is compared without writing it out, however long it is.
    expected = range(2, 6) if isinstance(nodes, range) else INTERMEDIATE_NODES
    if not isinstance(nodes, (range, tuple)):
        nodes = tuple(nodes) if isinstance(nodes, Iterable) else nodes
    if nodes != expected:
        raise ConversionError(
            f"Expected '{name}' to be range(2, 6), all intermediate nodes in order, which is what "
            f"cells of DARTS concatenate (got {nodes!r})"
        )
    return INTERMEDIATE_NODES
