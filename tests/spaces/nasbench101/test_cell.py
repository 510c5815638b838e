from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench101Cell
from narformer_pyg.spaces.nasbench101 import (
    NODE_TYPES,
    NUM_CELLS,
    OPERATIONS,
    all_edge_bits,
    unpack_codes,
)

# The classes of isomorphic cells by their number of vertices, and the labelled graphs.
NUM_CLASSES = {2: 1, 3: 6, 4: 84, 5: 2441}
NUM_GRAPHS = {2: 1, 3: 2, 4: 10, 5: 121, 6: 1545, 7: 4793}

MATRIX = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
NAMES = ["input", "conv1x1-bn-relu", "maxpool3x3", "output"]


@pytest.fixture(scope="module")
def cells() -> list[NASBench101Cell]:
    rng = np.random.default_rng(0)
    return [NASBench101Cell.random(rng) for _ in range(1000)]


@pytest.fixture(scope="module")
def small_cells() -> list[NASBench101Cell]:
    """Every cell of up to five vertices in every topological order."""
    return [
        NASBench101Cell.from_code(n, bits, op_code)
        for n, bits in all_edge_bits()[0]
        if n <= 5
        for op_code in range(3 ** (n - 2))
    ]


def relabelled(cell: NASBench101Cell, rng: random.Random) -> NASBench101Cell:
    """The cell with its vertices in a random topological order."""
    n = cell.num_vertices
    order = [0]
    while len(order) < n - 1:
        ready = [
            y
            for y in range(1, n - 1)
            if y not in order and all(x in order for x in range(n) if cell.matrix[x][y])
        ]
        order.append(rng.choice(ready))
    order.append(n - 1)
    matrix = np.array(cell.matrix)[order][:, order]
    return NASBench101Cell(matrix, [cell.operations[v] for v in order])  # type: ignore[arg-type]


def test_constants() -> None:
    assert NODE_TYPES == ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")
    assert NUM_CELLS == 423624
    graphs, ends = all_edge_bits()
    assert Counter(n for n, _ in graphs) == NUM_GRAPHS
    assert ends[-1] == sum(count * 3 ** (n - 2) for n, count in NUM_GRAPHS.items())


def test_constructor_takes_any_matrix() -> None:
    cell = NASBench101Cell(MATRIX, NAMES)  # type: ignore[arg-type]
    assert cell.matrix == tuple(map(tuple, MATRIX))
    assert cell.operations == tuple(NAMES)
    assert cell.num_vertices == 4
    for matrix in (np.array(MATRIX), np.array(MATRIX, bool), torch.tensor(MATRIX).float()):
        assert NASBench101Cell(matrix, NAMES) == cell  # type: ignore[arg-type]
    assert type(cell.matrix[0][0]) is int
    assert len({cell, NASBench101Cell(cell.matrix, cell.operations)}) == 1


def test_dangling_vertices_are_dropped() -> None:
    # Vertex 2 leads nowhere, vertex 3 is not reached, vertex 4 is only reached from vertex 3.
    matrix = np.zeros((6, 6), int)
    for x, y in [(0, 1), (1, 5), (0, 2), (3, 4), (3, 5), (4, 5)]:
        matrix[x, y] = 1
    names = ["input", "maxpool3x3", *["conv1x1-bn-relu"] * 3, "output"]
    cell = NASBench101Cell(matrix, names)  # type: ignore[arg-type]
    assert str(cell) == "maxpool3x3~0+output~1"


def test_limits_hold_after_pruning() -> None:
    # Ten edges, one of which leads to a vertex that leads nowhere.
    edges = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (0, 5), (1, 5), (3, 5)]
    matrix = np.zeros((6, 6), int)
    for x, y in [*edges, (3, 4)]:
        matrix[x, y] = 1
    names = ["input", *["maxpool3x3"] * 4, "output"]
    cell = NASBench101Cell(matrix, names)  # type: ignore[arg-type]
    assert (cell.num_vertices, np.sum(cell.matrix)) == (5, 9)
    matrix[4, 5] = 1
    with pytest.raises(ConversionError, match=r"7 vertices and 9 edges .* \(got 6 .* 11 edges\)"):
        NASBench101Cell(matrix, names)  # type: ignore[arg-type]
    chain = np.eye(8, k=1, dtype=int)
    with pytest.raises(ConversionError, match=r"\(got 8 vertices and 7 edges\)"):
        NASBench101Cell(chain, ["input", *["maxpool3x3"] * 6, "output"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (MATRIX, NAMES[:-1], r"begin with 'input' and to end with 'output'"),
        (MATRIX, NAMES[::-1], r"begin with 'input'"),
        (MATRIX, [*NAMES[:2], "avgpool", "output"], r"among conv1x1.*\(got 'avgpool'\)"),
        (MATRIX, [*NAMES[:2], "input", "output"], r"among conv1x1.*\(got 'input'\)"),
        (MATRIX, ["input", "output"], r"a row and a column for each of the 2 operations"),
        ([[0, 1], [0]], ["input", "output"], r"each of the 2 operations"),
        (None, NAMES, r"each of the 4 operations \(got None\)"),
        ([[0, 2], [0, 0]], ["input", "output"], r"zeros and ones \(got 2 at \[0\]\[1\]\)"),
        ([[0, 1], [1, 0]], ["input", "output"], r"upper triangular.*got an edge 1->0"),
        ([[1, 1], [0, 0]], ["input", "output"], r"upper triangular.*got an edge 0->0"),
        ([[0, 0], [0, 0]], ["input", "output"], r"a path from the input.*\(got no edges\)"),
        (
            [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
            ["input", "maxpool3x3", "output"],
            r"a path from the input to the output \(got the edges 0->1\)",
        ),
    ],
)
def test_constructor_rejects(matrix: object, names: list, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        NASBench101Cell(matrix, names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'operation~source,source' at vertex 1.*\(got ''"),
        ("maxpool3x3~0,+output~1", r"at vertex 1.*got 'maxpool3x3~0,'"),
        ("maxpool3x3~1+output~1", r"vertex 1 to read vertices before it.*got 'maxpool3x3~1'"),
        ("maxpool3x3~0+output~1,1", r"vertex 2 to read vertices before it, each once"),
        ("avgpool~0+output~1", r"among conv1x1.*got 'avgpool'"),
        ("maxpool3x3~0", r"end with 'output'"),
    ],
)
def test_from_str_rejects(text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        NASBench101Cell.from_str(text)


def test_code() -> None:
    cell = NASBench101Cell.from_str("conv1x1-bn-relu~0+output~0,1")
    assert cell.code == (3, 0b111, 1)
    for code, message in [
        ((1, 0, 0), r"'vertices' to be between 2 and 7 \(got 1\)"),
        ((8, 1, 0), r"'vertices'.*\(got 8\)"),
        ((2, 0, 0), r"'edge_bits'.*\(got 0\)"),
        ((2, 2, 0), r"'edge_bits'.*\(got 2\)"),
        ((3, 0b110, 0), r"'edge_bits'.*on a path"),
        ((5, 0b1111111111, 0), r"'edge_bits' to hold at most 9 edges"),
        ((3, 0b111, 3), r"'op_code' to be between 0 and 2.*\(got 3\)"),
        ((2, 1, 1), r"'op_code' to be between 0 and 0.*\(got 1\)"),
        ((2, 1, -1), r"'op_code'.*\(got -1\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            NASBench101Cell.from_code(*code)
        with pytest.raises(ValueError, match=f"'{message.split(chr(39))[1]}'"):
            unpack_codes(*([number] for number in code))
    with pytest.raises(TypeError, match=r"'op_code' to be an integer \(got float: 0.0\)"):
        NASBench101Cell.from_code(2, 1, 0.0)  # type: ignore[arg-type]


def test_unpack_codes(cells: list[NASBench101Cell]) -> None:
    vertices, adjacency, op = unpack_codes(*zip(*(cell.code for cell in cells), strict=True))
    for i, cell in enumerate(cells):
        n = cell.num_vertices
        assert vertices[i] == n
        assert np.array_equal(adjacency[i, :n, :n], cell.matrix)
        assert adjacency[i].sum() == np.sum(cell.matrix)
        assert [NODE_TYPES[k] for k in op[i, :n]] == list(cell.operations)
        assert (op[i, n:] == -1).all()
    with pytest.raises(ValueError, match=r"\(got 2, 1, 2 entries\)"):
        unpack_codes([2, 2], [1], [0, 0])
    with pytest.raises(ValueError, match=r"'edge_bits' to be a vector \(got shape \[1, 2\]\)"):
        unpack_codes([2, 2], [[1, 1]], [0, 0])
    with pytest.raises(TypeError, match=r"'op_code' to hold integers \(got float64\)"):
        unpack_codes([2], [1], [0.0])
    with pytest.raises(ValueError, match=r"'edge_bits'.*\(got 4 in row 1\)"):
        unpack_codes([2, 3], [1, 4], [0, 0])


def test_hash_and_canonical_do_not_know_the_order(cells: list[NASBench101Cell]) -> None:
    rng = random.Random(0)
    moved = 0
    for cell in cells[:300]:
        other = relabelled(cell, rng)
        moved += other != cell
        assert other.module_hash == cell.module_hash
        assert other.canonical() == cell.canonical()
        assert cell.canonical().module_hash == cell.module_hash
        assert cell.canonical().code <= cell.code
        assert cell.canonical().canonical() == cell.canonical()
    assert moved > 100


def test_classes_of_small_cells(small_cells: list[NASBench101Cell]) -> None:
    canonical = [cell.canonical() for cell in small_cells]
    assert Counter(cell.num_vertices for cell in set(canonical)) == NUM_CLASSES
    # A random cell is kept with the inverse of the number of its forms, so classes weigh the same.
    weight = sum(1 / len(cell._forms()) for cell in small_cells)
    assert weight == pytest.approx(sum(NUM_CLASSES.values()))
    by_hash = {cell.module_hash: cell.canonical() for cell in small_cells}
    assert len(by_hash) == len(set(canonical))
    for cell, representative in zip(small_cells, canonical, strict=True):
        assert by_hash[cell.module_hash] == representative


def test_random_is_uniform_and_seeded(cells: list[NASBench101Cell]) -> None:
    rng = np.random.default_rng(0)
    assert [NASBench101Cell.random(rng) for _ in range(10)] == cells[:10]
    assert NASBench101Cell.random(np.random.default_rng(1)) != cells[0]
    # Of the 423,624 cells, 359,082 have 7 vertices and 62,010 have 6; 328,269 have 9 edges and
    # 78,822 have 8. Four standard deviations of 1,000 draws are at most 0.063.
    vertices = Counter(cell.num_vertices for cell in cells)
    edges = Counter(int(np.sum(cell.matrix)) for cell in cells)
    assert vertices[7] / 1000 == pytest.approx(359082 / NUM_CELLS, abs=0.046)
    assert vertices[6] / 1000 == pytest.approx(62010 / NUM_CELLS, abs=0.045)
    assert edges[9] / 1000 == pytest.approx(328269 / NUM_CELLS, abs=0.053)
    assert edges[8] / 1000 == pytest.approx(78822 / NUM_CELLS, abs=0.050)
    for name in OPERATIONS:
        count = sum(cell.operations.count(name) for cell in cells)
        assert count / sum(cell.num_vertices - 2 for cell in cells) == pytest.approx(
            1 / 3, abs=0.03
        )


def test_neighbors_of_a_small_cell() -> None:
    cell = NASBench101Cell.from_str("maxpool3x3~0+output~0,1")
    pool, one, three = "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu"
    expected = [f"{one}~0+output~0,1", f"{three}~0+output~0,1"]  # another operation
    expected += ["output~0", f"{pool}~0+output~1"]  # an edge less
    for new in (pool, one, three):  # a vertex more: from 0 to 1, from 0 to 2, from 1 to 2
        expected.append(f"{new}~0+{pool}~0,1+output~0,2")
        expected.append(f"{pool}~0+{new}~0+output~0,1,2")
        expected.append(f"{pool}~0+{new}~1+output~0,1,2")
    found = [neighbor.canonical() for neighbor in cell.neighbors()]
    assert len(found) == len(expected)
    assert set(found) == {NASBench101Cell.from_str(text).canonical() for text in expected}


def test_neighbors_are_cells_and_do_not_know_the_order(cells: list[NASBench101Cell]) -> None:
    rng = random.Random(0)
    for cell in cells[:25]:
        neighbors = cell.neighbors()
        hashes = {neighbor.module_hash for neighbor in neighbors}
        assert len(hashes) == len(neighbors) >= 10  # 3 or more operations, 2 others each, edges
        assert cell.module_hash not in hashes
        assert {other.module_hash for other in relabelled(cell, rng).neighbors()} == hashes
        for neighbor in neighbors:
            assert NASBench101Cell(neighbor.matrix, neighbor.operations) == neighbor


def test_neighbors_reach_every_small_cell() -> None:
    start = NASBench101Cell.from_str("output~0")
    reached, waiting = {start}, [start]
    while waiting:
        for neighbor in waiting.pop().neighbors():
            neighbor = neighbor.canonical()
            if neighbor.num_vertices <= 4 and neighbor not in reached:
                reached.add(neighbor)
                waiting.append(neighbor)
    assert len(reached) == NUM_CLASSES[2] + NUM_CLASSES[3] + NUM_CLASSES[4]


def test_to_data() -> None:
    text = "conv1x1-bn-relu~0+conv3x3-bn-relu~0,1+maxpool3x3~0+output~2,3"
    data = NASBench101Cell.from_str(text).to_data()
    assert data.op.tolist() == [0, 1, 2, 3, 4]
    assert data.edge_index.t().tolist() == [[0, 1], [0, 2], [1, 2], [0, 3], [2, 4], [3, 4]]
    assert NASBench101Cell.from_str("output~0").to_data().edge_index.tolist() == [[0], [1]]


def test_published_hashes_and_parameters(published: Path) -> None:
    with (published / "nasbench101_published.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [NASBench101Cell.from_str(row["cell"]) for row in rows]
    assert [str(cell) for cell in cells] == [row["cell"] for row in rows]
    assert [cell.module_hash for cell in cells] == [row["hash"] for row in rows]
    parameters = [int(row["parameters"]) for row in rows]
    with torch.device("meta"):
        networks = [cell.to_module() for cell in cells]
    sizes = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert sizes == parameters
    for cell in cells:
        assert NASBench101Cell.from_code(*cell.code) == cell
