from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_networkx

from narformer_pyg.datasets import FakeNAS


@pytest.mark.parametrize("num_nodes", [(5, 8), (2, 4), 3, 2, [6, 20]])
def test_cells_are_well_formed(num_nodes: int | tuple[int, int]) -> None:
    dataset = FakeNAS(num_graphs=60, num_nodes=num_nodes, num_operations=4, num_targets=2)
    low, high = num_nodes if isinstance(num_nodes, (tuple, list)) else (num_nodes, num_nodes)
    assert len(dataset) == 60
    assert {data.num_nodes for data in dataset} <= set(range(low, high + 1))
    assert dataset.num_node_types == 6
    for data in dataset:
        n = data.num_nodes
        assert sorted(data.keys()) == ["edge_index", "num_nodes", "op", "position", "y"]
        assert data.op.dtype == data.position.dtype == data.edge_index.dtype == torch.long
        assert data.y.dtype == torch.float32
        assert data.y.shape == (1, 2)
        assert data.op[0] == 0
        assert data.op[-1] == 5
        assert all(1 <= op <= 4 for op in data.op[1:-1])
        assert data.position.tolist() == list(range(n))
        source, target = data.edge_index
        assert (source < target).all()
        key = target * n + source
        assert torch.equal(key, key.unique())  # sorted by target, then by source; none twice
        graph = to_networkx(data)
        assert nx.descendants(graph, 0) == set(range(1, n))
        assert nx.ancestors(graph, n - 1) == set(range(n - 1))
        assert data.validate()


def test_labels_follow_the_documented_formula() -> None:
    for data in FakeNAS(num_graphs=50, num_nodes=(2, 9), num_operations=3, num_targets=4, seed=5):
        operations = data.op[1:-1].numpy()
        path = nx.dag_longest_path_length(to_networkx(data))
        for t in range(4):
            value = [((o - 1 + t) % 3 + 0.5) / 3 for o in operations] or [0.5]
            logit = 4 * (np.mean(value) - 0.5) + 2 * (path / (len(operations) + 1) - 0.5)
            assert data.y[0, t].item() == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_labels_differ_and_lie_between_zero_and_one() -> None:
    y = FakeNAS(num_graphs=500).y
    assert y.shape == (500, 1)
    assert y.min() > 0
    assert y.max() < 1
    assert y.std() > 0.1
    assert len(y.unique()) > 100


def test_seed() -> None:
    def ops(dataset: FakeNAS) -> list[list[int]]:
        return [data.op.tolist() + data.edge_index.flatten().tolist() for data in dataset]

    assert ops(FakeNAS(seed=1)) == ops(FakeNAS(seed=1))
    assert ops(FakeNAS(seed=1)) != ops(FakeNAS(seed=2))
    assert ops(FakeNAS(200, seed=1))[:100] == ops(FakeNAS(100, seed=1))


@pytest.mark.filterwarnings("error")
def test_batch_and_transform() -> None:
    def double(data: Data) -> Data:
        data.y = data.y * 2
        return data

    dataset = FakeNAS(num_graphs=10)
    doubled = FakeNAS(num_graphs=10, transform=double)
    assert torch.equal(doubled[3].y, dataset[3].y * 2)
    batch = Batch.from_data_list(list(dataset))
    assert batch.num_nodes == sum(data.num_nodes for data in dataset)
    assert torch.equal(batch[7].edge_index, dataset[7].edge_index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_graphs": 0}, r"'num_graphs' to be a positive integer \(got 0\)"),
        ({"num_operations": 0}, r"'num_operations' to be a positive integer \(got 0\)"),
        ({"num_targets": -2}, r"'num_targets' to be a positive integer \(got -2\)"),
        ({"seed": -1}, r"'seed' to be between 0 .*\(got -1\)"),
        ({"num_nodes": 1}, r"'num_nodes' to be an integer >= 2 \(got 1\)"),
        ({"num_nodes": (1, 5)}, r"'num_nodes' to be an integer >= 2 \(got 1\)"),
        ({"num_nodes": (6, 5)}, r"an ascending range of two \(got \(6, 5\)\)"),
        ({"num_nodes": (5, 6, 7)}, r"an ascending range of two \(got \(5, 6, 7\)\)"),
    ],
)
def test_values_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FakeNAS(**arguments)
