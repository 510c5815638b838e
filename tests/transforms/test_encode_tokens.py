from __future__ import annotations

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from narformer_pyg.datasets import FakeNAS, NASBench201
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.transforms import EncodeTokens


def test_datasets_have_features() -> None:
    encoder = CellTokenEncoder(num_frequencies=4)
    dataset = NASBench201(transform=EncodeTokens(encoder))
    assert dataset.num_features == dataset.num_node_features == encoder.out_channels == 16
    assert NASBench201().num_features == 0
    assert torch.equal(dataset[3].x, encoder(dataset[3]))
    assert "x" not in dataset.get(3)  # graphs of the dataset stay as they are
    batch = next(iter(DataLoader(dataset[:4], batch_size=4)))
    assert batch.x.shape == (32, 16)


def test_as_pre_transform() -> None:
    graphs = [T.Compose([EncodeTokens(CellTokenEncoder())])(data) for data in FakeNAS(5)]
    batch = next(iter(DeviceLoader(graphs, batch_size=5)))
    torch.testing.assert_close(batch.x, CellTokenEncoder()(batch))
    assert not batch.x.requires_grad


def test_graph_features() -> None:
    encoder = OperatorTokenEncoder()
    data = Data(
        op=torch.tensor([1, 2]),
        attr=torch.zeros(2, 12),
        static=torch.ones(1, 4),
        edge_index=torch.tensor([[0], [1]]),
    )
    out = EncodeTokens(encoder)(data)
    assert out.num_features == encoder.out_channels
    assert out.static_x.shape == (1, encoder.static_channels)
    assert "x" not in data


def test_arguments() -> None:
    transform = EncodeTokens(CellTokenEncoder(8, 16, 2))
    encoder = "CellTokenEncoder(num_operations=8, num_positions=16, num_frequencies=2)"
    assert repr(transform) == f"EncodeTokens({encoder})"
    with pytest.raises(TypeError, match=r"'encoder' to be a module .* \(got 'cells'\)"):
        EncodeTokens("cells")  # type: ignore[arg-type]
