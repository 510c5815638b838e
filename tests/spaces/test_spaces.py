"""Promises that the cells of every search space keep."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch
from graphs import same_graph
from torch_geometric.data import Batch, InMemoryDataset

from narformer_pyg.loader import DeviceLoader
from narformer_pyg.spaces import DARTSGenotype, NASBench101Cell, NASBench201Cell

SPACES = {"nasbench101": NASBench101Cell, "nasbench201": NASBench201Cell, "darts": DARTSGenotype}


@pytest.fixture(params=list(SPACES))
def space(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cells(space: str) -> list[Any]:
    rng = np.random.default_rng(0)
    return [SPACES[space].random(rng) for _ in range(20)]


def test_texts_and_copies(space: str, cells: list[Any]) -> None:
    for cell in cells:
        assert SPACES[space].from_str(str(cell)) == cell
        assert pickle.loads(pickle.dumps(cell)) == copy.deepcopy(cell) == cell
        assert hash(copy.deepcopy(cell)) == hash(cell)
    name = "normal" if space == "darts" else "operations"
    with pytest.raises(FrozenInstanceError):
        setattr(cells[0], name, ())
    for text in (None, 3, str(cells[0]).encode(), [str(cells[0])]):
        with pytest.raises(TypeError, match=rf"to be a string \(got {type(text).__name__}"):
            SPACES[space].from_str(text)
    for wrong in (None, 5, "none"):
        message = rf"'{name}' to be a (tuple|sequence) of.*got {wrong!r}"
        with pytest.raises(TypeError, match=message):
            replace(cells[0], **{name: wrong})


@pytest.mark.parametrize("rng", [None, 0, np.random])
def test_rng_is_checked(cells: list[Any], rng: Any) -> None:
    for name in {"random", "mutate", "permute"} & set(dir(cells[0])):
        with pytest.raises(TypeError, match=r"numpy\.random\.Generator.*default_rng\(0\)"):
            getattr(cells[0], name)(rng)


def test_mutants_are_neighbors(cells: list[Any]) -> None:
    rng = np.random.default_rng(0)
    neighbors = cells[0].neighbors()
    assert {cells[0].mutate(rng) for _ in range(30)} <= set(neighbors)
    assert cells[0] not in neighbors


def test_graphs(cells: list[Any]) -> None:
    for cell in cells:
        data = cell.to_data()
        assert sorted(data.keys()) == ["edge_index", "num_nodes", "op", "position"]
        assert data.op.dtype == data.position.dtype == data.edge_index.dtype == torch.long
        assert data.position.tolist() == list(range(data.num_nodes))
        assert data.edge_index.is_contiguous()
        assert data.validate()
        # Every edge leads to a later node; they are sorted by target, then by source.
        source, target = data.edge_index
        assert (source < target).all()
        assert torch.equal((target * 100 + source).argsort(), torch.arange(len(source)))


def test_graphs_name_their_space(space: str, cells: list[Any]) -> None:
    graphs = [cell.to_data() for cell in cells]
    dataset = InMemoryDataset()
    dataset.data, dataset.slices = dataset.collate(graphs)
    batch = next(iter(DeviceLoader(dataset, batch_size=2)))
    everything = [
        graphs[0], copy.copy(graphs[0]), graphs[0].to(torch.device("cpu")), dataset._data,
        dataset[1:][0], Batch.from_data_list(graphs), batch, batch[1],
    ]  # fmt: skip
    assert [data.space for data in everything] == [space] * len(everything)
    assert "space" not in graphs[0]  # no attribute that would be collated
    assert same_graph(batch[1], graphs[1])


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3"])
def test_sizes_of_networks_are_checked(space: str, cells: list[Any], value: Any) -> None:
    for name in ("num_classes", "C", "layers" if space == "darts" else "N"):
        message = rf"'{name}' to be a positive integer \(got {value!r}\)"
        with pytest.raises(ValueError, match=message):
            cells[0].to_module(**{name: value})


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 30, 32), (1, 3, 32, 31)])
def test_images_are_checked(space: str, cells: list[Any], shape: tuple[int, ...]) -> None:
    network = cells[0].to_module(C=8, **{"layers" if space == "darts" else "N": 1})
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\] with H and W divisible by 4"):
        network(torch.zeros(shape))
