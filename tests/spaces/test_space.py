from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, InMemoryDataset

from narformer_pyg.loader import DeviceLoader
from narformer_pyg.spaces import DARTSGenotype, NASBench101Cell, NASBench201Cell


@pytest.mark.parametrize(
    ("cell_class", "space"),
    [
        (NASBench101Cell, "nasbench101"),
        (NASBench201Cell, "nasbench201"),
        (DARTSGenotype, "darts"),
    ],
)
def test_graphs_name_their_space(cell_class: Any, space: str) -> None:
    rng = np.random.default_rng(0)
    graphs = [cell_class.random(rng).to_data() for _ in range(3)]
    dataset = InMemoryDataset()
    dataset.data, dataset.slices = dataset.collate(graphs)
    batch = next(iter(DeviceLoader(dataset, batch_size=2)))
    everything = [
        graphs[0], copy.copy(graphs[0]), graphs[0].to(torch.device("cpu")), dataset._data,
        dataset[1:][0], Batch.from_data_list(graphs), batch, batch[1],
    ]  # fmt: skip
    assert [data.space for data in everything] == [space] * len(everything)
    assert "space" not in graphs[0]  # no attribute that would be collated
