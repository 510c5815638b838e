from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from narformer_pyg.datasets import NASBench201
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import NARFormerV2
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.predictor.batches import map_batches

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def chains(count: int) -> list[Data]:
    return [
        Data(
            op=torch.arange(n) % 5,
            position=torch.arange(n),
            edge_index=torch.stack([torch.arange(n - 1), torch.arange(1, n)]),
            num_nodes=n,
        )
        for n in torch.randint(2, 9, (count,)).tolist()
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["cells", "chains"])
@torch.no_grad()
def test_padded_batches_predict_the_same(kind: str, device: str) -> None:
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    model = NARFormerV2(encoder.out_channels, 16, num_blocks=2)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0).eval().to(device)
    graphs = chains(70) if kind == "chains" else NASBench201()[:70]
    outputs = []
    for padded in (False, True):
        loader = DeviceLoader(graphs, 8, device=device)
        outputs.append(torch.cat(list(map_batches(predictor, loader, encoder.tokens, padded))))
    assert outputs[0].shape == (70, 1)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predictor.predict(graphs, 8), outputs[0].cpu(), rtol=1e-5, atol=1e-5)
