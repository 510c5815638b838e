from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from narformer_pyg.datasets import NASBench201
from narformer_pyg.spaces import equivalent_indices
from narformer_pyg.spaces.nasbench201 import cell_indices
from narformer_pyg.transforms import equivalent_graphs


def test_equivalent_graphs() -> None:
    dataset = NASBench201()
    graphs = [dataset[i] for i in (3, 99, 4000)]
    variants = equivalent_graphs(graphs)
    for i, data, group in zip((3, 99, 4000), graphs, variants, strict=True):
        assert torch.equal(cell_indices(group), equivalent_indices(i))
        assert all(torch.equal(variant.y, data.y) for variant in group)
    assert max(map(len, variants)) > 1


def test_without_labels() -> None:
    data = NASBench201()[3].clone()
    del data.y
    assert all("y" not in variant for variant in equivalent_graphs([data])[0])


def test_further_attributes() -> None:
    data = NASBench201()[3].clone()
    data.mark = torch.zeros(8)
    with pytest.raises(ValueError, match=r"\(got mark in graph 1\)"):
        equivalent_graphs([NASBench201()[4], data])


def test_other_graph() -> None:
    with pytest.raises(ValueError, match="got graph 0"):
        equivalent_graphs([Data(num_nodes=3)])
