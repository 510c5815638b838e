from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from narformer_pyg.datasets import FakeNAS
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import MODELS, NARFormerV2, create_model, list_models
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.testing import (
    assert_all_parameters_receive_gradients,
    assert_batch_invariant,
    assert_permutation_invariant,
)


def test_names() -> None:
    assert set(list_models()) == {"narformer_v2", "gcn", "gat", "gin", "graphsage"}
    assert isinstance(create_model("narformer_v2", 4, hidden_channels=16), NARFormerV2)
    list_models().clear()
    assert list_models()


@pytest.mark.parametrize("readout", ["fusion", "sum", "mean"])
@pytest.mark.parametrize("name", list_models())
def test_model(name: str, readout: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoder = CellTokenEncoder(7, 8, num_frequencies=4)
    model = create_model(
        name,
        encoder.out_channels,
        hidden_channels=16,
        num_blocks=2,
        out_channels=3,
        readout=readout,
        dropout=0.1,
    )
    assert MODELS.name_of(model) == name
    predictor = ArchitecturePredictor(encoder, model, scale=[1.0, 10.0, 0.5])
    graphs = list(FakeNAS(6))
    batch = Batch.from_data_list(graphs)

    predictor.train()
    out = predictor(batch)
    assert out.shape == (6, 3)
    assert (out > 0).all()
    assert_all_parameters_receive_gradients(predictor, out.sum())

    predictor.eval()
    assert_batch_invariant(predictor, graphs, atol=1e-5)
    assert_permutation_invariant(model, encoder(batch), batch.edge_index, batch.batch, atol=1e-5)
    assert len(predictor(batch)[:, 0].unique()) > 1

    loaded = ArchitecturePredictor.from_pretrained(predictor.save_pretrained(tmp_path))
    assert repr(loaded) == repr(predictor)
    assert loaded.model.config == model.config
    assert torch.equal(loaded(batch), predictor(batch))


@pytest.mark.parametrize("name", list_models())
def test_graph_features(name: str) -> None:
    model = create_model(name, 4, hidden_channels=16, num_blocks=2, static_channels=5).eval()
    x, edges = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
    out = model(x, edges, static=torch.randn(1, 5))
    assert out.shape == (1, 1)
    assert not torch.equal(out, model(x, edges, static=torch.randn(1, 5)))
    assert_all_parameters_receive_gradients(model, model(x, edges, static=torch.randn(1, 5)).sum())


@pytest.mark.parametrize("name", list_models())
def test_undirected(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 4, hidden_channels=16, num_blocks=2).eval()
    directed = create_model(name, 4, hidden_channels=16, num_blocks=2, undirected=False).eval()
    directed.load_state_dict(model.state_dict())
    x, edges = torch.randn(4, 4), torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]])
    both = torch.cat([edges, edges.flip(0)], dim=1)
    torch.testing.assert_close(model(x, edges), directed(x, both))
    assert not torch.equal(model(x, edges), directed(x, edges))


@pytest.mark.parametrize("name", list_models())
def test_reset_parameters(name: str) -> None:
    model = create_model(name, 4, hidden_channels=16, num_blocks=2)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    model.reset_parameters()
    for key, p in model.named_parameters():
        assert not (p == 7).any(), key
        if p.dim() > 1 and before[key].std() > 0:
            assert not torch.equal(p, before[key]), key


def test_lazy_sizes() -> None:
    for name in list_models():
        torch.manual_seed(0)
        lazy = create_model(name, -1, hidden_channels=16, num_blocks=2)
        torch.manual_seed(0)
        sized = create_model(name, 4, hidden_channels=16, num_blocks=2)
        x, edges = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
        assert lazy(x, edges).shape == (1, 1)
        assert lazy.in_channels == 4
        shapes = {k: p.shape for k, p in lazy.state_dict().items()}
        assert shapes == {k: p.shape for k, p in sized.state_dict().items()}
        loaded = create_model(name, -1, hidden_channels=16, num_blocks=2).eval()
        loaded.load_state_dict(sized.state_dict())
        torch.testing.assert_close(loaded(x, edges), sized.eval()(x, edges))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"'model' to be among gcn, gat.*got 'resnet'"):
        create_model("resnet", 4)
    for name in list_models():
        with pytest.raises(ValueError, match=rf"arguments of the model '{name}'.*\(got 'foo'\)"):
            create_model(name, 4, foo=1)
    with pytest.raises(ValueError, match=r"'norm' to be 'layer' or 'none' \(got True\)"):
        create_model("gcn", 4, norm=True)
    recipe = {"hidden_channels": 16, "num_blocks": 2, "norm": "layer"}  # of NAR-Former V2
    assert isinstance(create_model("gcn", 4, **recipe).norms[0], torch.nn.LayerNorm)
