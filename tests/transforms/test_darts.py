from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from torch_geometric.data import Data

from narformer_pyg.convert import to_networkx
from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype
from narformer_pyg.spaces.darts import NODE_TYPES
from narformer_pyg.transforms import InformationFlowAugmentation, augment

same_op = nx.algorithms.isomorphism.categorical_node_match("op", None)


def genotypes() -> list[DARTSGenotype]:
    rng = np.random.default_rng(0)
    return [*DARTS_GENOTYPES.values(), *(DARTSGenotype.random(rng) for _ in range(15))]


def key(data: Data) -> tuple[Any, ...]:
    return (*data.op.tolist(), *data.edge_index.flatten().tolist())


def assert_same_architecture(new: Data, old: Data) -> None:
    assert nx.is_isomorphic(to_networkx(new), to_networkx(old), node_match=same_op)
    pairs = new.edge_index.t().tolist()
    assert all(source < target for source, target in pairs)
    assert pairs == sorted(pairs, key=lambda pair: pair[::-1])
    assert new.position.tolist() == list(range(29))
    assert NODE_TYPES[int(new.op[0])] == "c_{k-2}"
    assert NODE_TYPES[int(new.op[-1])] == "output"


@pytest.mark.parametrize("mode", ["first", "random"])
def test_augmented_graphs_are_the_same_architecture(mode: Any) -> None:
    transform = InformationFlowAugmentation(mode, seed=0)
    for genotype in genotypes():
        data = genotype.to_data()
        new = transform(data)
        assert key(new) != key(data)
        assert_same_architecture(new, data)


def test_random_copies_differ() -> None:
    data = DARTS_GENOTYPES["DARTS_V2"].to_data()
    copies = augment([data], num_copies=20, mode="random", seed=1)
    assert len({key(copy) for copy in [data, *copies]}) == 21


def test_permuted_genotypes_are_augmented_graphs() -> None:
    # The same architecture, its nodes still cell by cell: normal, then reduction.
    rng = np.random.default_rng(2)
    for genotype in genotypes():
        data, new = genotype.to_data(), genotype.permute(rng).to_data()
        assert_same_architecture(new, data)
        assert [NODE_TYPES[i].split(" ")[0] for i in new.op.tolist()] == [
            "c_{k-2}", "c_{k-1}", *["normal"] * 13, *["reduce"] * 13, "output",
        ]  # fmt: skip
