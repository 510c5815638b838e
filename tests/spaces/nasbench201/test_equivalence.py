from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from narformer_pyg.datasets import FakeNAS
from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.spaces.nasbench201 import CELL_EDGES, cell_indices, function_indices

RNG = np.random.default_rng(0)
INPUT, POOL = RNG.normal(size=3), RNG.normal(size=(3, 3))
# As many weights as a cell can need, for each kind of convolution.
WEIGHTS = {name: RNG.normal(size=(6, 3, 3)) for name in ("nor_conv_1x1", "nor_conv_3x3")}


def convolutions(cell: NASBench201Cell) -> dict[str, list[int]]:
    """Returns the edges of the convolutions of each kind."""
    return {
        name: [edge for edge, other in enumerate(cell.operations) if other == name]
        for name in WEIGHTS
    }


def output(cell: NASBench201Cell, weights: dict[int, np.ndarray]) -> tuple[float, ...]:
    """Computes a cell whose convolutions, maps of zero to zero, have a weight for each edge."""
    maps = [INPUT]
    for target in range(1, 4):
        value = np.zeros(3)
        for edge, ((source, end), name) in enumerate(zip(CELL_EDGES, cell.operations, strict=True)):
            if end != target or name == "none":
                continue
            if name == "skip_connect":
                value = value + maps[source]
            elif name == "avg_pool_3x3":
                value = value + POOL @ maps[source]
            else:
                value = value + np.tanh(weights[edge] @ maps[source])
        maps.append(value)
    return tuple((maps[-1] + 0.0).round(9))


def outputs(cell: NASBench201Cell) -> set[tuple[float, ...]]:
    """Computes a cell with every assignment of the first weights to its convolutions."""
    edges = convolutions(cell)
    orders = [itertools.permutations(range(len(part))) for part in edges.values()]
    return {
        output(
            cell,
            {
                edge: WEIGHTS[name][i]
                for (name, part), order in zip(edges.items(), chosen, strict=True)
                for edge, i in zip(part, order, strict=True)
            },
        )
        for chosen in itertools.product(*orders)
    }


def is_alive(cell: NASBench201Cell, edge: int) -> bool:
    """Whether another weight of a convolution changes the output."""
    weights = {e: WEIGHTS[cell.operations[e]][e] for p in convolutions(cell).values() for e in p}
    other = {**weights, edge: weights[edge] + 1.0}
    return output(cell, weights) != output(cell, other)


def without_dead(cell: NASBench201Cell) -> NASBench201Cell:
    """Returns the cell without convolutions that make no difference."""
    alive = [
        name if name not in WEIGHTS or is_alive(cell, edge) else "none"
        for edge, name in enumerate(cell.operations)
    ]
    return NASBench201Cell(tuple(alive))


def same_function(cell: NASBench201Cell, other: NASBench201Cell) -> bool:
    """Whether the weights of one cell can be given to the other so that the outputs are equal."""
    return outputs(without_dead(cell)) == outputs(without_dead(other))


def test_members_of_a_class_have_the_same_function() -> None:
    functions = function_indices().tolist()
    members = [i for i, first in enumerate(functions) if i != first]
    assert len(members) > 10_000
    for i in members[::3]:
        cell, first = NASBench201Cell.from_index(i), NASBench201Cell.from_index(functions[i])
        assert same_function(cell, first), (str(cell), str(first))


def test_classes_have_different_functions() -> None:
    # All of those that one output cannot tell apart when convolutions of a kind share a weight.
    shared = {}
    for i in function_indices().unique().tolist():
        cell = NASBench201Cell.from_index(i)
        edges = convolutions(cell)
        tied = {edge: WEIGHTS[name][0] for name, part in edges.items() for edge in part}
        shared.setdefault(output(cell, tied), []).append(cell)
    assert len(shared) == 4660
    groups = [cells for cells in shared.values() if len(cells) > 1]
    assert sum(map(len, groups)) - len(groups) == 5044 - 4660
    for cells in groups:
        for cell, other in itertools.combinations(cells, 2):
            assert not same_function(cell, other), (str(cell), str(other))


def test_one_convolution_used_twice_is_not_two() -> None:
    once = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|skip_connect~1|skip_connect~2|"
    twice = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"
    indices = [NASBench201Cell.from_str(text).index for text in (once, twice)]
    assert indices[1] not in equivalent_indices(indices[0])


def test_the_cache_cannot_be_changed() -> None:
    before = equivalent_indices(5)
    equivalent_indices(5).add_(1)
    assert torch.equal(equivalent_indices(5), before)


def test_equivalent_indices() -> None:
    functions = function_indices()
    sizes = functions.bincount()
    for i in [0, 7, 1000, 15624, int(sizes.argmax())]:
        members = equivalent_indices(i)
        assert (functions[members] == functions[i]).all()
        assert len(members) == min(int(sizes[functions[i]]), 64)
        assert (members.diff() > 0).all()
        assert i in members or len(members) == 64


def test_cell_indices() -> None:
    indices = [0, 12345, 15624, 17]
    graphs = [NASBench201Cell.from_index(i).to_data() for i in indices]
    assert cell_indices(graphs).tolist() == indices
    assert cell_indices([]).tolist() == []


@pytest.mark.parametrize("what", ["foreign", "operation", "edges", "empty"])
def test_no_cell(what: str) -> None:
    data = NASBench201Cell.from_index(5).to_data()
    if what == "foreign":
        data = next(iter(FakeNAS(1)))
    elif what == "operation":
        data.op[3] = 6
    elif what == "edges":
        data.edge_index = data.edge_index[:, :-1]
    else:
        data = Data()
    graphs = [NASBench201Cell.from_index(4).to_data(), data]
    with pytest.raises(ValueError, match=r"cells of NAS-Bench-201, .* \(got graph 1: .*Data"):
        cell_indices(graphs)
