from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_device_loader import (
    InMemory,
    cell,
    equal_nodes_ragged_edges,
    equal_sizes,
    no_edges,
    ragged,
    ragged_nodes_equal_edges,
)
from torch_geometric.data import Batch, Data

from narformer_pyg.loader import DeviceLoader


def check(batch: Batch) -> None:
    """The lists say what the edges say."""
    index, ptr, reverse = batch.neighbor_index, batch.neighbor_ptr, batch.neighbor_reverse
    source, target = batch.edge_index.tolist()
    assert ptr.tolist()[0] == 0
    assert ptr.numel() == batch.num_nodes + 1
    for i in range(batch.num_nodes):
        expected = [s for s, t in zip(source, target, strict=True) if t == i]
        expected += [t for s, t in zip(source, target, strict=True) if s == i]
        assert sorted(index[ptr[i] : ptr[i + 1]].tolist()) == sorted(expected)
    owner = torch.arange(batch.num_nodes).repeat_interleave(ptr.diff())
    assert torch.equal(owner[reverse], index)
    assert torch.equal(index[reverse], owner)
    assert torch.equal(reverse[reverse], torch.arange(index.numel()))


@pytest.mark.parametrize(
    "graph",
    [equal_sizes, ragged, no_edges, equal_nodes_ragged_edges, ragged_nodes_equal_edges],
)
@pytest.mark.parametrize("as_dataset", [True, False])
def test_lists(graph: Callable[[int], Data], as_dataset: bool) -> None:
    graphs = [graph(i) for i in range(9)]
    dataset = InMemory(graphs) if as_dataset else graphs
    loader = DeviceLoader(dataset, batch_size=4, shuffle=True, seed=0, neighbors=True)
    for _ in range(2):
        for batch in loader:
            check(batch)
    check(loader.collate([3, 3, 0]))


def test_subset_of_a_dataset() -> None:
    dataset = InMemory([ragged(i) for i in range(9)])
    loader = DeviceLoader(dataset[torch.tensor([7, 2, 5])], batch_size=2, neighbors=True)
    for batch in loader:
        check(batch)


def test_everything_else_stays() -> None:
    graphs = [ragged(i) for i in range(5)]
    (batch,) = DeviceLoader(graphs, batch_size=5, neighbors=True)
    (plain,) = DeviceLoader(graphs, batch_size=5)
    lists = {"neighbor_index", "neighbor_ptr", "neighbor_reverse"}
    assert set(batch.keys()) == set(plain.keys()) | lists
    assert torch.equal(batch.edge_index, plain.edge_index)
    for single, graph in zip(batch.to_data_list(), graphs, strict=True):
        assert set(single.keys()) == set(graph.keys())
        assert torch.equal(single.edge_index, graph.edge_index)


def test_moves_with_the_loader() -> None:
    loader = DeviceLoader([cell(0), cell(1)], batch_size=2, neighbors=True).to("meta")
    (batch,) = loader
    assert batch.neighbor_index.device.type == "meta"


class Renumbered(Data):
    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 7 if key == "edge_index" else super().__inc__(key, value, *args, **kwargs)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (Data(x=torch.zeros(2, 1)), r"'neighbors' is set \(got \['x'\]\)"),
        (Data(x=torch.zeros(2, 1), edge_index=torch.empty(2, 0)), "torch.float32"),
        (Data(x=torch.zeros(2, 1), edge_index=torch.zeros(3, 1).long()), r"got \[3, 1\]"),
        (Renumbered(x=torch.zeros(2, 1), edge_index=torch.zeros(2, 1).long()), "own __inc__"),
    ],
)
def test_graphs_without_edges_to_list(graph: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeviceLoader([graph], neighbors=True)


def test_short_numbers() -> None:
    graph = cell(0)
    graph.edge_index = graph.edge_index.int()
    (batch,) = DeviceLoader([graph, graph], batch_size=2, neighbors=True)
    check(batch)
