"""The NAS-Bench-201 search space: cells of six operations between four feature maps."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces._checks import check_number, check_rng, check_text
from narformer_pyg.spaces.nasbench201.graph import (
    CELL_EDGES,
    NODE_TYPES,
    NUM_NODES,
    OPERATIONS,
    NASBench201Data,
    check_operations,
    graph_edge_index,
)
from narformer_pyg.spaces.nasbench201.network import NASBench201Network

NUM_CELLS = len(OPERATIONS) ** len(CELL_EDGES)

_DIGIT = {name: i for i, name in enumerate(OPERATIONS)}
_WEIGHTS = tuple(len(OPERATIONS) ** k for k in reversed(range(len(CELL_EDGES))))
_FORMAT = "'|op~0|+|op~0|op~1|+|op~0|op~1|op~2|'"


@dataclass(frozen=True, slots=True)
class NASBench201Cell:
    r"""A cell of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_.

    Four feature maps, the input :obj:`0` to the output :obj:`3`, are connected by six operations
    along :obj:`0->1, 0->2, 1->2, 0->3, 1->3, 2->3`; a feature map is the sum of its inputs.

    .. code-block:: python

        cell = NASBench201Cell.from_str(
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+"
            "|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
        )
        cell.index  # 0

    Args:
        operations (tuple of str): The six operations in the order above, each among
            :obj:`"nor_conv_1x1"`, :obj:`"nor_conv_3x3"`, :obj:`"avg_pool_3x3"`,
            :obj:`"skip_connect"` and :obj:`"none"`.

    Raises:
        ConversionError: If there are not six operations or one is unknown.
        TypeError: If :obj:`operations` is not a sequence of names.
    """

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", check_operations(self.operations))

    @classmethod
    def from_str(cls, arch_str: str) -> NASBench201Cell:
        """Parses the benchmark's own notation.

        Args:
            arch_str (str): A string such as
                :obj:`"|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"`: the operations of feature
                maps 1, 2 and 3, each with the feature map that it reads.

        Raises:
            ConversionError: If the string has another form or an unknown operation.
            TypeError: If :obj:`arch_str` is not a string.
        """
        groups = check_text("arch_str", arch_str).split("+")
        if len(groups) != 3:
            raise ConversionError(
                f"Expected 'arch_str' to describe 3 feature maps joined by '+', as in {_FORMAT} "
                f"(got {len(groups)}: {arch_str!r})"
            )
        operations: list[str] = []
        for target, group in enumerate(groups, start=1):
            terms = "".join(rf"([^|~]+)~{source}\|" for source in range(target))
            match = re.fullmatch(rf"\|{terms}", group)
            if match is None:
                raise ConversionError(
                    f"Expected feature map {target} to have {target} operation(s), which read "
                    f"feature maps 0 to {target - 1}, as in {_FORMAT} (got {group!r} in "
                    f"{arch_str!r})"
                )
            operations += match.groups()
        return cls(tuple(operations))

    @classmethod
    def from_index(cls, index: int) -> NASBench201Cell:
        """Returns the cell with an official index of the benchmark, :obj:`0` to :obj:`15624`."""
        return cls.from_code(int(cell_codes()[check_number("index", index, NUM_CELLS)]))

    @classmethod
    def from_code(cls, code: int) -> NASBench201Cell:
        """Returns the cell with a :attr:`code`, :obj:`0` to :obj:`15624`."""
        code = check_number("code", code, NUM_CELLS)
        return cls(tuple(OPERATIONS[code // weight % len(OPERATIONS)] for weight in _WEIGHTS))

    @classmethod
    def random(cls, rng: np.random.Generator) -> NASBench201Cell:
        """Draws a cell uniformly from all 15,625, with a NumPy generator."""
        return cls.from_code(int(check_rng(rng).integers(NUM_CELLS)))

    @property
    def code(self) -> int:
        """The operations read as a base-5 number, the first one most significant.

        Unlike :attr:`index`, it is regular: the digit of an operation is its place in
        :obj:`OPERATIONS`.
        """
        return sum(
            weight * _DIGIT[name] for weight, name in zip(_WEIGHTS, self.operations, strict=True)
        )

    @property
    def index(self) -> int:
        """The official index of the cell in the benchmark, :obj:`0` to :obj:`15624`."""
        return int(code_to_index()[self.code])

    def mutate(self, rng: np.random.Generator) -> NASBench201Cell:
        """Returns a cell that differs in one operation, drawn uniformly from the 24 such cells."""
        neighbors = self.neighbors()
        return neighbors[int(check_rng(rng).integers(len(neighbors)))]

    def neighbors(self) -> list[NASBench201Cell]:
        """Returns the 24 cells that differ in exactly one operation."""
        return [
            NASBench201Cell((*self.operations[:k], operation, *self.operations[k + 1 :]))
            for k in range(len(CELL_EDGES))
            for operation in OPERATIONS
            if operation != self.operations[k]
        ]

    def canonical(self) -> NASBench201Cell:
        r"""Returns the representative of all cells isomorphic to this one.

        Isomorphism is the benchmark's, with 6,466 classes: the expressions of the outputs are the
        same text. The expression of a feature map joins the sorted expressions of its summands by
        :obj:`+`; a :obj:`skip_connect` contributes the expression of its source, a :obj:`none` or
        any operation on a bare zero a zero. The representative has the lowest official index.
        Different classes can compute the same function, see
        :func:`~narformer_pyg.spaces.equivalent_indices`.
        """
        return NASBench201Cell.from_index(int(canonical_indices()[self.index]))

    def to_data(self) -> NASBench201Data:
        r"""Returns the cell as a graph with its operations on the nodes.

        Node 0 is the input, nodes 1 to 6 are the six operations in order (:obj:`none` included)
        and node 7 is the output; all cells share the same ten edges.

        Returns:
            NASBench201Data: :obj:`op` (long, :obj:`[8]`, a place in :obj:`NODE_TYPES`),
            :obj:`position` (long, :obj:`[8]`, :obj:`0..7`), :obj:`edge_index` (long,
            :obj:`[2, 10]`, in the direction of the data flow, sorted by target) and
            :obj:`num_nodes`.
        """
        op = [0, *(_DIGIT[name] + 1 for name in self.operations), NODE_TYPES.index("output")]
        return NASBench201Data(
            op=torch.tensor(op),
            position=torch.arange(NUM_NODES),
            edge_index=graph_edge_index(),
            num_nodes=NUM_NODES,
        )

    def to_module(self, num_classes: int = 10, C: int = 16, N: int = 5) -> NASBench201Network:
        """Builds the benchmark's network, see :class:`~narformer_pyg.spaces.NASBench201Network`."""
        return NASBench201Network(self.operations, num_classes, C, N)

    def __str__(self) -> str:
        groups: dict[int, str] = {}
        for (source, target), name in zip(CELL_EDGES, self.operations, strict=True):
            groups[target] = groups.get(target, "|") + f"{name}~{source}|"
        return "+".join(groups.values())


@functools.cache
def cell_codes() -> np.ndarray:
    """Returns the :attr:`NASBench201Cell.code` of each official index: uint16, [15625]."""
    path = resources.files("narformer_pyg.spaces") / "data" / "nasbench201_order.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        codes = content["code"]
    codes.flags.writeable = False  # shared by all callers
    return codes


@functools.cache
def code_to_index() -> np.ndarray:
    """Returns the official index of each :attr:`NASBench201Cell.code`: uint16, [15625]."""
    codes = cell_codes()
    index = np.empty_like(codes)
    index[codes] = np.arange(NUM_CELLS, dtype=codes.dtype)
    return index


@functools.cache
def canonical_indices() -> np.ndarray:
    """Returns for each official index that of its class's representative: int64, [15625].

    See :meth:`NASBench201Cell.canonical`.
    """
    first: dict[str, int] = {}
    indices = [
        first.setdefault(_expression(NASBench201Cell.from_index(i).operations), i)
        for i in range(NUM_CELLS)
    ]
    out = np.array(indices)
    out.flags.writeable = False
    return out


def _expression(operations: tuple[str, ...]) -> str:
    zero = "#"
    values = ["x"]
    for target in range(1, 4):
        summands = []
        for (source, end), name in zip(CELL_EDGES, operations, strict=True):
            if end != target:
                continue
            if name == "none" or values[source] == zero:
                summands.append(zero)
            elif name == "skip_connect":
                summands.append(values[source])
            else:
                summands.append(f"({values[source]})@{name}")
        values.append("+".join(sorted(summands)))
    return values[-1]
