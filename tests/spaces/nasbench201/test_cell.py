from __future__ import annotations

import numpy as np
import pytest

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench201Cell
from narformer_pyg.spaces.nasbench201.cell import NUM_CELLS, canonical_indices, cell_codes
from narformer_pyg.spaces.nasbench201.graph import (
    CELL_EDGES,
    GRAPH_EDGES,
    OPERATIONS,
)

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"


@pytest.fixture(scope="module")
def cells() -> list[NASBench201Cell]:
    return [NASBench201Cell.from_index(i) for i in range(NUM_CELLS)]


def test_graph_edges_follow_from_cell_edges() -> None:
    # Node k + 1 is operation k; an operation on feature map 0 reads the input.
    expected = {(0, k + 1) for k, (source, _) in enumerate(CELL_EDGES) if source == 0}
    expected |= {(k + 1, 7) for k, (_, target) in enumerate(CELL_EDGES) if target == 3}
    expected |= {
        (k + 1, m + 1)
        for k, (_, target) in enumerate(CELL_EDGES)
        for m, (source, _) in enumerate(CELL_EDGES)
        if target == source
    }
    assert set(GRAPH_EDGES) == expected
    assert list(GRAPH_EDGES) == sorted(GRAPH_EDGES, key=lambda edge: edge[::-1])


def test_from_str() -> None:
    cell = NASBench201Cell.from_str(ARCH)
    names = "nor_conv_3x3 nor_conv_3x3 avg_pool_3x3 skip_connect nor_conv_1x1 none"
    assert cell.operations == tuple(names.split())
    assert str(cell) == ARCH
    assert NASBench201Cell(list(cell.operations)) == cell  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("index", "arch"),
    [
        (
            0,
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+"
            "|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        ),
        (
            1,
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+"
            "|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
        ),
        (
            2,
            "|avg_pool_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
            "|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|",
        ),
    ],
)
def test_official_index(index: int, arch: str) -> None:
    assert str(NASBench201Cell.from_index(index)) == arch
    assert NASBench201Cell.from_str(arch).index == index


def test_round_trips(cells: list[NASBench201Cell]) -> None:
    assert len(set(cells)) == NUM_CELLS
    for i, cell in enumerate(cells):
        assert cell.index == i
        assert NASBench201Cell.from_str(str(cell)) == cell
        assert NASBench201Cell.from_code(cell.code) == cell
    assert cell_codes().tolist() == [cell.code for cell in cells]


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("", r"describe 3 feature maps.*got 1"),
        (ARCH.replace("+", "-"), r"describe 3 feature maps.*got 1"),
        (ARCH + "+|none~0|", r"describe 3 feature maps.*got 4"),
        (ARCH.rsplit("+", 1)[0], r"describe 3 feature maps.*got 2"),
        (ARCH[1:], r"feature map 1 to have 1 .*got 'nor_conv_3x3~0\|'"),
        (ARCH.replace("avg_pool_3x3~1|", ""), r"feature map 2 to have 2 operation\(s\)"),
        (ARCH + "none~3|", r"feature map 3 to have 3 operation\(s\)"),
        (ARCH.replace("avg_pool_3x3~1", "avg_pool_3x3"), r"got '\|nor_conv_3x3~0\|avg_pool_3x3\|'"),
        (ARCH.replace("avg_pool_3x3~1", "~1"), r"feature map 2 .* read feature maps 0 to 1"),
        (ARCH.replace("avg_pool_3x3", "max_pool_3x3"), r"nor_conv_1x1.*none \(got 'max_pool_3x3'"),
        (ARCH.replace("none~2", " none~2"), r"nor_conv_1x1.*none \(got ' none'"),
        (ARCH.replace("avg_pool_3x3~1", "avg_pool_3x3~0"), r"feature map 2 to have"),
        (ARCH.replace("none~2", "none~02"), r"feature map 3 to have"),
        (ARCH + "\n", r"feature map 3 to have"),
    ],
)
def test_from_str_rejects(arch: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        NASBench201Cell.from_str(arch)


def test_constructor_rejects() -> None:
    with pytest.raises(ConversionError, match=r"6 names \(got 5"):
        NASBench201Cell(("none",) * 5)
    with pytest.raises(ConversionError, match=r"skip_connect, none \(got 'identity'\)"):
        NASBench201Cell((*("none",) * 5, "identity"))
    with pytest.raises(ConversionError, match=r"skip_connect, none \(got 3\)"):
        NASBench201Cell((3,) * 6)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"from_str'"):
        NASBench201Cell(ARCH)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"six names \(got 4\)"):
        NASBench201Cell(4)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["index", "code"])
def test_numbers_are_checked(name: str) -> None:
    make = getattr(NASBench201Cell, f"from_{name}")
    for value in (-1, NUM_CELLS):
        with pytest.raises(ValueError, match=rf"'{name}' to be between 0 and 15624 \(got {value}"):
            make(value)
    for value in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match=rf"'{name}' to be an integer"):
            make(value)
    assert make(np.int64(7)) == make(7)


def test_random_is_uniform_and_seeded() -> None:
    def draw(seed: int) -> list[NASBench201Cell]:
        rng = np.random.default_rng(seed)
        return [NASBench201Cell.random(rng) for _ in range(2000)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    counts = np.zeros((6, 5))
    for cell in draw(0):
        for k, name in enumerate(cell.operations):
            counts[k, OPERATIONS.index(name)] += 1
    # 2,000 draws at 1/5: 400 expected, standard deviation 18.
    assert counts.min() > 310
    assert counts.max() < 490


def test_neighbors_and_mutate() -> None:
    def distance(a: NASBench201Cell, b: NASBench201Cell) -> int:
        return sum(x != y for x, y in zip(a.operations, b.operations, strict=True))

    cell = NASBench201Cell.from_str(ARCH)
    neighbors = cell.neighbors()
    assert len(neighbors) == len(set(neighbors)) == 24
    assert {distance(cell, other) for other in neighbors} == {1}
    rng = np.random.default_rng(0)
    assert {cell.mutate(rng) for _ in range(500)} == set(neighbors)


def test_canonical_has_6466_classes(cells: list[NASBench201Cell]) -> None:
    canonical = [cell.canonical() for cell in cells]
    assert len(set(canonical)) == 6466
    for cell, representative in zip(cells, canonical, strict=True):
        assert representative.index <= cell.index
    assert all(representative.canonical() == representative for representative in set(canonical))


def test_canonical_keeps_the_function(cells: list[NASBench201Cell]) -> None:
    # Every operation becomes one scalar function with f(0) = 0; all cells are evaluated at once.
    functions = {
        "nor_conv_1x1": lambda x: np.sin(1.3 * x),
        "nor_conv_3x3": lambda x: np.tanh(0.7 * x) * 1.9,
        "avg_pool_3x3": lambda x: np.expm1(0.3 * x),
        "skip_connect": lambda x: x,
        "none": np.zeros_like,
    }
    names = np.array([cell.operations for cell in cells])  # [15625, 6]
    values = np.zeros((4, NUM_CELLS))
    values[0] = 0.8
    for k, (source, target) in enumerate(CELL_EDGES):
        for name, function in functions.items():
            values[target] += (names[:, k] == name) * function(values[source])
    output = values[3]
    np.testing.assert_allclose(output, output[canonical_indices()], rtol=0, atol=1e-12)
    assert len(np.unique(output.round(9))) == 4930


def test_to_data() -> None:
    data = NASBench201Cell.from_str(ARCH).to_data()
    assert data.op.tolist() == [0, 2, 2, 3, 4, 1, 5, 6]
    assert data.edge_index.t().tolist() == [
        [0, 1], [0, 2], [1, 3], [0, 4], [1, 5], [2, 6], [3, 6], [4, 7], [5, 7], [6, 7],
    ]  # fmt: skip
    # A caller that edits its graph edits no other.
    data.edge_index.zero_()
    assert NASBench201Cell.from_str(ARCH).to_data().edge_index.max() == 7
