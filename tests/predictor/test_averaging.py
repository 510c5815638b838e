from __future__ import annotations

from pathlib import Path

import pytest
import torch
from predictors import small_predictor
from torch_geometric.data import Batch

from narformer_pyg.datasets import FakeNAS, NASBench201
from narformer_pyg.nn import OperatorTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor, AveragedPredictor
from narformer_pyg.spaces import NASBench201Cell, equivalent_indices

INDICES = [5, 99, 5, 15000]


def cells(indices: list[int]) -> list[NASBench201Cell]:
    return [NASBench201Cell.from_index(i) for i in indices]


class TestAveragedPredictor:
    def test_mean(self) -> None:
        plain, averaged = small_predictor(), AveragedPredictor(small_predictor())
        out = averaged.predict(cells(INDICES))
        for i, prediction in zip(INDICES, out, strict=True):
            members = plain.predict(cells(equivalent_indices(i).tolist()))
            torch.testing.assert_close(prediction, members.mean(dim=0))
        torch.testing.assert_close(averaged.predict(cells([99])[0]), out[1])
        assert not torch.allclose(out[1], plain.predict(cells([99])[0]))

    def test_forward_is_predict(self) -> None:
        averaged = AveragedPredictor(small_predictor(100.0))
        before = averaged.predict(cells(INDICES))
        averaged.calibrate(NASBench201()[:50])
        graphs = [cell.to_data() for cell in cells(INDICES)]
        expected = averaged.predict(graphs)
        torch.testing.assert_close(averaged.calibration(before), expected)
        batch = Batch.from_data_list(graphs)
        torch.testing.assert_close(averaged(batch), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(averaged(graphs[1]), expected[1:2], rtol=1e-6, atol=0)
        averaged.train()
        raw = averaged.forward_scaled(batch) * averaged.scale
        assert averaged(batch).shape == raw.shape == (4, 1)
        torch.testing.assert_close(averaged.predict(graphs), expected, rtol=1e-6, atol=0)

    def test_takes_the_place_of_a_predictor(self) -> None:
        plain = small_predictor(3.0, units=["ms"], metadata={"recipe": "best"}).train()
        averaged = AveragedPredictor(plain)
        assert averaged.training
        assert (averaged.units, averaged.metadata) == (plain.units, plain.metadata)
        assert list(averaged.state_dict()) == list(plain.state_dict())
        assert all(map(torch.equal, averaged.parameters(), plain.parameters()))
        assert averaged.space == "nasbench201"
        other = averaged.with_targets(["a", "b"])
        assert isinstance(other, AveragedPredictor)
        assert other.eval().predict(cells(INDICES)).shape == (4, 2)

    def test_save_and_load(self, tmp_path: Path) -> None:
        averaged = AveragedPredictor(small_predictor(100.0))
        averaged.calibrate(NASBench201()[:50])
        for predictor in (averaged, small_predictor()):
            predictor.save_pretrained(tmp_path)
            loaded = ArchitecturePredictor.from_pretrained(tmp_path)
            assert type(loaded) is type(predictor)
            assert torch.equal(loaded.predict(cells(INDICES)), predictor.predict(cells(INDICES)))

    def test_other_graphs(self) -> None:
        averaged = AveragedPredictor(small_predictor())
        graphs = list(FakeNAS(2))
        for predict in (averaged.predict, lambda x: averaged(Batch.from_data_list(x))):
            with pytest.raises(ValueError, match=r"nasbench201|to be cells of NAS-Bench-201"):
                predict(graphs)

    def test_other_predictors(self) -> None:
        encoder = OperatorTokenEncoder()
        model = create_model("gcn", encoder.out_channels, static_channels=encoder.static_channels)
        with pytest.raises(ValueError, match=r"NAS-Bench-201.*OperatorTokenEncoder"):
            AveragedPredictor(ArchitecturePredictor(encoder, model))
        with pytest.raises(ValueError, match=r"NAS-Bench-201.*'darts'"):
            AveragedPredictor(small_predictor(space="darts"))
