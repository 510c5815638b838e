from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_reference import randomize
from torch import Tensor

from narformer_pyg.datasets import FakeNAS, NASBench201
from narformer_pyg.nn import CellTokenEncoder, GraphAidedAttentionConv, grouped_feed_forward
from narformer_pyg.nn.models import (
    ArchitecturePredictor,
    FrozenNARFormerV2,
    NARFormerV2,
    create_model,
    frozen,
)
from narformer_pyg.training import Recipe, fit

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "network": {"readout": "sum", "static_channels": 5},
    "mean": {"readout": "mean", "out_channels": 3},
    "directed": {"undirected": False},
    "no_degree_gate": {"degree_gate": False},
    "no_root_projection": {"root_weight": False},
    "no_bias": {"bias": False},
    "no_sigmoid": {"sigmoid": False},
    "no_normalisation": {"normalize": False},
    "layer_norm": {"norm": "layer"},
    "no_ffn": {"ffn_ratio": 0},
    "no_layer_scale": {"layer_scale": None},
}
#: Nodes of each graph: few enough to look at pairs, and more.
SIZES = {"one": [6], "two": [3, 5], "many": [20, 1, 30, 12]}


def create(**kwargs: Any) -> NARFormerV2:
    torch.manual_seed(0)
    model = NARFormerV2(6, 16, num_blocks=2, num_groups=4, dropout=0.5, **kwargs)
    randomize(model, scale=0.3)
    return model


def batch_of(sizes: list[int], static_channels: int = 0) -> dict[str, Any]:
    """Random graphs in which edges occur several times."""
    generator = torch.Generator().manual_seed(1)
    edges, start = [], 0
    for size in sizes:
        edges.append(torch.randint(size, (2, 3 * (size - 1)), generator=generator) + start)
        start += size
    return {
        "x": torch.randn(sum(sizes), 6, generator=generator),
        "edge_index": torch.cat(edges, dim=1),
        "batch": torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        "static": torch.rand(len(sizes), static_channels, generator=generator)
        if static_channels > 0
        else None,
        "batch_size": len(sizes),
    }


def expected_of(model: NARFormerV2, graphs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model.eval()(**graphs)


class TestFrozenNARFormerV2:
    @pytest.mark.parametrize("size", list(SIZES))
    @pytest.mark.parametrize("variant", list(VARIANTS))
    @pytest.mark.parametrize("is_packed", [True, False])
    def test_predicts_as_the_model(
        self, variant: str, size: str, is_packed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not is_packed:
            monkeypatch.setattr(frozen, "_packs", lambda dtype: False)
        model = create(**VARIANTS[variant])
        graphs = batch_of(SIZES[size], model.static_channels)
        before = {k: v.clone() for k, v in graphs.items() if isinstance(v, Tensor)}
        out = FrozenNARFormerV2(model)(**graphs)
        assert not out.requires_grad
        torch.testing.assert_close(out, expected_of(model, graphs), rtol=2e-5, atol=1e-6)
        for key, value in before.items():
            assert torch.equal(graphs[key], value)

    def test_differs_by_variant(self) -> None:
        # What the test above compares is sensitive to each of the parts.
        graphs = batch_of(SIZES["many"])
        paper = FrozenNARFormerV2(create())
        for variant in ("directed", "no_degree_gate", "no_bias", "no_sigmoid", "no_normalisation"):
            model = create()
            other = create(**VARIANTS[variant])
            other.load_state_dict(model.state_dict(), strict=False)
            difference = (FrozenNARFormerV2(other)(**graphs) - paper(**graphs)).abs().max()
            assert difference > 1e-3, variant

    def test_single_graph_without_batch(self) -> None:
        model = create()
        for number in (4, 50):
            graphs = batch_of([number])
            out = FrozenNARFormerV2(model)(graphs["x"], graphs["edge_index"])
            torch.testing.assert_close(out, expected_of(model, graphs), rtol=2e-5, atol=1e-6)

    def test_both_sides_of_the_limits_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = create()
        graphs = batch_of([9, 7])
        out = FrozenNARFormerV2(model)(**graphs)
        monkeypatch.setattr(frozen, "_MAX_PAIRED_NODES", 0)
        monkeypatch.setattr(grouped_feed_forward, "CACHED_ELEMENTS", 5 * 64)
        monkeypatch.setattr(frozen, "_NUM_GATES", 2)
        other = FrozenNARFormerV2(model)
        assert other._blocks[0].num_rows == 5
        torch.testing.assert_close(other(**graphs), out, rtol=2e-5, atol=1e-6)

    def test_higher_degrees_than_gates(self) -> None:
        model = create()
        leaves = torch.arange(1, 100)
        graphs = batch_of([100])
        graphs["edge_index"] = torch.stack([leaves, torch.zeros_like(leaves)])
        out = FrozenNARFormerV2(model)(**graphs)
        torch.testing.assert_close(out, expected_of(model, graphs), rtol=2e-5, atol=1e-6)

    @pytest.mark.parametrize("num_nodes", [1, 40])
    def test_no_edges(self, num_nodes: int) -> None:
        model = create()
        graphs = batch_of([num_nodes])
        graphs["edge_index"] = torch.empty(2, 0, dtype=torch.long)
        out = FrozenNARFormerV2(model)(**graphs)
        torch.testing.assert_close(out, expected_of(model, graphs), rtol=2e-5, atol=1e-6)

    def test_no_graphs(self) -> None:
        model = create()
        out = FrozenNARFormerV2(model)(
            torch.empty(0, 6),
            torch.empty(2, 0, dtype=torch.long),
            torch.empty(0, dtype=torch.long),
            batch_size=0,
        )
        assert out.shape == (0, 1)

    @pytest.mark.parametrize("size", list(SIZES))
    @pytest.mark.parametrize("is_packed", [True, False])
    def test_bfloat16(self, size: str, is_packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if not is_packed:
            monkeypatch.setattr(frozen, "_packs", lambda dtype: False)
        model = create(static_channels=5)
        graphs = batch_of(SIZES[size], 5)
        expected = expected_of(model, graphs)
        out = FrozenNARFormerV2(model, "bf16-mixed")(**graphs)
        assert out.dtype == torch.float32
        assert not torch.equal(out, expected)
        torch.testing.assert_close(out, expected, rtol=0.02, atol=0.002)

    def test_autocast_changes_nothing(self) -> None:
        model = FrozenNARFormerV2(create())
        graphs = batch_of(SIZES["many"])
        expected = model(**graphs)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model(**graphs), expected)

    def test_does_not_follow_the_model(self) -> None:
        model = create()
        graphs = batch_of(SIZES["many"])
        copied = FrozenNARFormerV2(model)
        expected = copied(**graphs)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert torch.equal(copied(**graphs), expected)
        assert list(copied.parameters()) == []

    def test_unpacked_does_not_follow_the_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(frozen, "_packs", lambda dtype: False)
        self.test_does_not_follow_the_model()

    def test_cannot_be_trained_or_copied(self) -> None:
        model = FrozenNARFormerV2(create())
        assert not model.eval().training
        with pytest.raises(RuntimeError, match="cannot be trained"):
            model.train()
        for copying in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                copying(model)

    def test_repr(self) -> None:
        assert repr(FrozenNARFormerV2(create(), "bf16-mixed")) == (
            "FrozenNARFormerV2(6, 16, num_blocks=2, precision='bf16-mixed')"
        )

    def test_checks_graphs(self) -> None:
        model = FrozenNARFormerV2(create())
        graphs = batch_of([4])
        with pytest.raises(ValueError, match="'x' to have shape"):
            model(**{**graphs, "x": graphs["x"][:, 1:]})
        with pytest.raises(ValueError, match="'edge_index' to name nodes"):
            model(**{**graphs, "edge_index": graphs["edge_index"] + 4})
        with pytest.raises(ValueError, match="'static' to be None"):
            model(**{**graphs, "static": torch.ones(1, 1)})
        with pytest.raises(ValueError, match="'x' to be on the CPU"):
            model(graphs["x"].to("meta"), graphs["edge_index"])

    def test_checks_model(self) -> None:
        with pytest.raises(ValueError, match="'precision' to be among 32-true"):
            FrozenNARFormerV2(create(), "16-mixed")
        with pytest.raises(ValueError, match="attention='softmax'"):
            FrozenNARFormerV2(create(attention="softmax"))
        with pytest.raises(ValueError, match="got a GNNBaseline"):
            FrozenNARFormerV2(create_model("gcn", 6, hidden_channels=8))
        with pytest.raises(ValueError, match=r"torch\.float64 on cpu for 'readout"):
            FrozenNARFormerV2(create().double())
        with pytest.raises(ValueError, match="flow='target_to_source'"):
            FrozenNARFormerV2(create(flow="target_to_source"))

    def test_checks_parts(self) -> None:
        class Other(GraphAidedAttentionConv):
            pass

        model = create()
        model.blocks[1].conv = Other(16, 16)
        with pytest.raises(ValueError, match="got a Other for a GraphAidedAttentionConv"):
            FrozenNARFormerV2(model)


def create_predictor(**kwargs: Any) -> ArchitecturePredictor:
    torch.manual_seed(0)
    encoder = CellTokenEncoder(7, 8, num_frequencies=4)
    model = create_model("narformer_v2", encoder.out_channels, hidden_channels=16, num_blocks=2)
    return ArchitecturePredictor(encoder, model, **kwargs).eval()


class TestFreeze:
    def test_predicts_as_before(self) -> None:
        predictor = create_predictor(target_names=["accuracy"], units=["percent"], scale=100.0)
        graphs = list(FakeNAS(40))
        copied = predictor.freeze()
        assert (copied.target_names, copied.units) == (("accuracy",), ("percent",))
        expected = predictor.predict(graphs)
        torch.testing.assert_close(copied.predict(graphs), expected, rtol=2e-5, atol=0.0)
        torch.testing.assert_close(copied.predict(graphs[3]), expected[3], rtol=2e-5, atol=0.0)

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_pretrained(self, precision: str) -> None:
        # Averages over equivalent cells and a calibration come along.
        predictor = ArchitecturePredictor.from_pretrained("nasbench201-cifar10")
        copied = predictor.freeze(precision)
        cells = [str(NASBench201().cell(i)) for i in (0, 11, 4321, 15000)]
        rtol = 2e-5 if precision == "32-true" else 0.02
        torch.testing.assert_close(
            copied.predict(cells), predictor.predict(cells), rtol=rtol, atol=0.0
        )

    def test_calibration_is_its_own(self) -> None:
        predictor = create_predictor()
        graphs = list(FakeNAS(20))
        for data in graphs:
            data.y = data.op.float().mean().view(1, 1) + 1.0
        copied = predictor.freeze()
        before = predictor.predict(graphs)
        copied.calibrate(graphs)
        assert torch.equal(predictor.predict(graphs), before)
        assert not torch.allclose(copied.predict(graphs), before)

    def test_cannot_be_saved_or_trained(self, tmp_path: Path) -> None:
        predictor = create_predictor().freeze()
        with pytest.raises(ValueError, match="save the one that it was made from"):
            predictor.save_pretrained(tmp_path)
        assert list(tmp_path.iterdir()) == []
        recipe = Recipe("test", epochs=1, batch_size=4, learning_rate=1e-3)
        graphs = list(FakeNAS(8))
        for data in graphs:
            data.y = torch.ones(1, 1)
        with pytest.raises(RuntimeError, match="train the one it was made from"):
            fit(predictor, graphs, recipe, device="cpu", progress=False)

    def test_is_refused_for_others(self) -> None:
        encoder = CellTokenEncoder(7, 8, num_frequencies=4)
        model = create_model("gat", encoder.out_channels, hidden_channels=16, num_blocks=2)
        with pytest.raises(ValueError, match="Expected 'model' to be a NARFormerV2"):
            ArchitecturePredictor(encoder, model).freeze()
