from __future__ import annotations

from collections import Counter, namedtuple
from dataclasses import replace
from itertools import product
from typing import Any

import networkx as nx
import numpy as np
import pytest

from narformer_pyg.convert import to_networkx
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype
from narformer_pyg.spaces.darts.cell import NUM_NEIGHBORS
from narformer_pyg.spaces.darts.graph import NODE_TYPES, node_orders, reorder_nodes

V2 = DARTS_GENOTYPES["DARTS_V2"]
# As DARTS prints it, and as its source code has it.
PRINTED = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
SKIPS = tuple(("skip_connect", source) for source in (0, 1) * 4)


def draw(seed: int, count: int) -> list[DARTSGenotype]:
    rng = np.random.default_rng(seed)
    return [DARTSGenotype.random(rng) for _ in range(count)]


def replace_edge(k: int, edge: Any) -> tuple[Any, ...]:
    return (*V2.normal[:k], edge, *V2.normal[k + 1 :])


def graph(genotype: DARTSGenotype) -> nx.DiGraph:
    return to_networkx(genotype.to_data())


def same_graph(a: DARTSGenotype, b: DARTSGenotype) -> bool:
    match = nx.algorithms.isomorphism.categorical_node_match("op", None)
    return nx.is_isomorphic(graph(a), graph(b), node_match=match)


def expressions(genotype: DARTSGenotype) -> tuple[Any, ...]:
    """The outputs as nested sorted sums: a second definition of what order does not change."""
    cells = []
    for cell in (genotype.normal, genotype.reduce):
        values: list[Any] = ["0", "1"]
        for k in range(0, 8, 2):
            terms = sorted(f"{name}({values[source]})" for name, source in cell[k : k + 2])
            values.append("+".join(terms))
        cells.append(tuple(sorted(values[2:])))
    return tuple(cells)


@pytest.mark.parametrize(
    "text",
    [
        PRINTED,
        PRINTED.replace("range(2, 6)", "[2, 3, 4, 5]"),
        PRINTED.replace("range(2, 6)", "(2, 3, 4, 5)").replace("[", "(").replace("]", ")"),
        PRINTED.replace(", ", ",\n    ").replace("'", '"') + "\n",
        "\n  " + PRINTED,
    ],
)
def test_from_str(text: str) -> None:
    genotype = DARTSGenotype.from_str(text)
    assert genotype == V2
    assert hash(genotype) == hash(V2)
    assert str(genotype) == PRINTED
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)


def test_darts_own_namedtuple() -> None:
    genotype_type = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")
    theirs = genotype_type(list(V2.normal), range(2, 6), list(V2.reduce), [2, 3, 4, 5])
    assert DARTSGenotype(**theirs._asdict()) == V2
    assert DARTSGenotype.from_str(str(theirs)) == V2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'text' to be of the form Genotype\(normal=.*got '': "),
        ("Genotype", r"of the form .*got 'Genotype'\)"),
        (PRINTED[:-1], r"of the form .*never closed\)"),
        (PRINTED.replace("Genotype", "Genome"), r'of the form .*got "Genome\('),
        ("Genotype([], [], [], [])", r"of the form .*got 'Genotype\(\[\]"),
        ("Genotype()", r"name each of normal, normal_concat, reduce, reduce_concat once.*no names"),
        (PRINTED.replace("reduce=", "reduction="), r"name each of .*got normal, .*, reduction,"),
        ("Genotype(**{})", r"name each of .*got None in"),
        (PRINTED.replace("('sep_conv_3x3', 0)", "exit(5)"), r"'normal' to be written as a list"),
        (
            PRINTED.replace("normal_concat=range(2, 6)", "normal_concat=range(2, n)"),
            r"'normal_concat' to be written as range\(2, 6\).*got range\(2, n\)",
        ),
        (PRINTED.replace("range(2, 6)", "range()"), r"'normal_concat' to be written as range"),
        (
            PRINTED.replace("range(2, 6)", f"range({10**30})"),
            r"'normal_concat' to be range\(2, 6\).*got range\(0, 10{30}\)",
        ),
        (
            f"Genotype(normal=range({10**12}), normal_concat=[], reduce=[], reduce_concat=[])",
            r"'normal' to be written as a list of constants",
        ),
        ("Genotype(" + "-" * 9000 + "1)", r"of the form"),
        ("Genotype(" + "(" * 900, r"of the form .*too many nested parentheses"),
        ("Genotype(" + " " * 10_000 + ")", r"at most 10000 characters long \(got 10010"),
    ],
)
def test_from_str_rejects(text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        DARTSGenotype.from_str(text)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (V2.normal[:7], r"hold 8 operations, two for each of the nodes 2 to 5 \(got 7: "),
        (
            replace_edge(3, ("none", 1)),
            r"among max_.*dil_conv_5x5 \(got 'none' at node 3",
        ),
        (replace_edge(0, (3, 0)), r"got 3 at node 2\)"),
        (replace_edge(5, ("skip_connect", 4)), r"at node 4 of 'normal' .* 0 to 3 \(got \('skip_co"),
        (replace_edge(0, ("skip_connect", -1)), r"a node before it, 0 to 1 \(got"),
        (
            replace_edge(7, ("dil_conv_3x3", 0)),
            r"two operations at node 5 of 'normal' to read different nodes.*got 0 twice: "
            r"\('skip_connect', 0\) and \('dil_conv_3x3', 0\)",
        ),
        (replace_edge(0, ("skip_connect", True)), r"pairs of an .*got \('skip_connect', True\) at"),
        (
            replace_edge(0, ("skip_connect",)),
            r"pairs of an operation and.*\('skip_connect",
        ),
        (replace_edge(0, "skip_connect"), r"pairs of an operation.*got 'skip_connect'"),
    ],
)
def test_cells_are_checked(cell: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        DARTSGenotype(cell, V2.reduce)
    with pytest.raises(ConversionError, match=message.replace("'normal'", "'reduce'")):
        DARTSGenotype(V2.normal, cell)


@pytest.mark.parametrize(
    "concat",
    [range(2, 5), [2, 3, 4], (5, 4, 3, 2), [*range(2, 7)], range(10**30), None, 4, "2345"],
)
def test_concatenations_are_checked(concat: Any) -> None:
    with pytest.raises(ConversionError, match=r"'normal_concat' to be range\(2, 6\)"):
        DARTSGenotype(V2.normal, V2.reduce, normal_concat=concat)
    with pytest.raises(ConversionError, match=r"'reduce_concat' to be range\(2, 6\)"):
        DARTSGenotype(V2.normal, V2.reduce, reduce_concat=concat)


def test_random_is_uniform_and_seeded() -> None:
    assert draw(0, 20) == draw(0, 20)
    assert draw(0, 20) != draw(1, 20)
    genotypes = draw(0, 3000)
    for cell, k in product(("normal", "reduce"), range(8)):
        edges = [getattr(genotype, cell)[k] for genotype in genotypes]
        counts = Counter(name for name, _ in edges)
        # 3,000 draws at 1/7: 429 expected, standard deviation 19.
        assert len(counts) == 7
        assert 340 < min(counts.values()) <= max(counts.values()) < 520
    # The ten pairs of inputs of node 5, sorted: 300 expected, standard deviation 16.
    pairs = Counter((g.reduce[6][1], g.reduce[7][1]) for g in genotypes)
    assert len(pairs) == 10
    assert all(a < b for a, b in pairs)
    assert 220 < min(pairs.values()) <= max(pairs.values()) < 380


def test_neighbors_and_mutate() -> None:
    def differences(other: DARTSGenotype) -> list[tuple[Any, Any]]:
        edges = zip((*V2.normal, *V2.reduce), (*other.normal, *other.reduce), strict=True)
        return [(a, b) for a, b in edges if a != b]

    neighbors = V2.neighbors()
    assert len(neighbors) == len(set(neighbors)) == NUM_NEIGHBORS
    kinds: Counter[str] = Counter()
    for other in neighbors:
        ((before, after),) = differences(other)
        changed = [before[0] != after[0], before[1] != after[1]]
        assert sum(changed) == 1
        kinds["operation" if changed[0] else "input"] += 1
    # Six other operations at each of 16 edges; 0, 1, 2 and 3 other inputs at the nodes' edges.
    assert kinds == {"operation": 96, "input": 24}
    rng = np.random.default_rng(0)
    assert {V2.mutate(rng) for _ in range(2000)} == set(neighbors)


def test_node_orders() -> None:
    # Nothing but the inputs is read: all 4! orders. In a chain, there is one.
    assert len(list(node_orders(SKIPS))) == 24
    chain = tuple(("skip_connect", source) for node in range(2, 6) for source in (0, node - 1))
    assert list(node_orders(chain)) == [(2, 3, 4, 5)]
    # In the normal cell of DARTS_V2, node 5 alone reads a node, 2.
    assert len(list(node_orders(V2.normal))) == 12


def test_canonical() -> None:
    for genotype in (*DARTS_GENOTYPES.values(), *draw(1, 60)):
        canonical = genotype.canonical()
        assert canonical.canonical() == canonical
        assert expressions(canonical) == expressions(genotype)
        assert same_graph(genotype, canonical)
        for order in list(node_orders(genotype.normal))[:10]:
            pairs = reorder_nodes(genotype.normal, order)
            normal = tuple(edge for pair in pairs for edge in pair[::-1])
            assert replace(genotype, normal=normal).canonical() == canonical
    assert len({genotype.canonical() for genotype in DARTS_GENOTYPES.values()}) == 5
    swapped = DARTSGenotype(V2.reduce, V2.normal)
    assert swapped.canonical() != V2.canonical()
    assert not same_graph(swapped, V2)


def test_canonical_tells_neighbors_apart() -> None:
    # Of two neighbours, those with one canonical form are those with isomorphic graphs.
    neighbors = V2.neighbors()[::4]
    forms = [genotype.canonical() for genotype in neighbors]
    isomorphic = 0
    for i, a in enumerate(neighbors):
        for j in range(i):
            expected = same_graph(a, neighbors[j])
            assert (forms[i] == forms[j]) == expected
            isomorphic += expected
    assert isomorphic > 0


def test_to_data() -> None:
    data = V2.to_data()
    assert data.num_nodes == 29
    pairs = [tuple(pair) for pair in data.edge_index.t().tolist()]
    assert len(pairs) == 42
    assert [NODE_TYPES[i] for i in data.op.tolist()][:15] == [
        "c_{k-2}", "c_{k-1}",
        "normal sep_conv_3x3", "normal sep_conv_3x3", "normal sum",
        "normal sep_conv_3x3", "normal sep_conv_3x3", "normal sum",
        "normal sep_conv_3x3", "normal skip_connect", "normal sum",
        "normal skip_connect", "normal dil_conv_3x3", "normal sum",
        "normal concat",
    ]  # fmt: skip
    assert NODE_TYPES[int(data.op[-1])] == "output"
    # The normal cell's edges, and how the reduction cell begins.
    assert pairs[:22] == [
        (0, 2), (1, 3), (2, 4), (3, 4),
        (0, 5), (1, 6), (5, 7), (6, 7),
        (1, 8), (0, 9), (8, 10), (9, 10),
        (0, 11), (4, 12), (11, 13), (12, 13),
        (4, 14), (7, 14), (10, 14), (13, 14),
        (0, 15), (1, 16),
    ]  # fmt: skip
    assert pairs[-2:] == [(14, 28), (27, 28)]
