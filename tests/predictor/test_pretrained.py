from __future__ import annotations

from pathlib import Path

import pytest
import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.predictor import ArchitecturePredictor, AveragedPredictor, list_pretrained
from narformer_pyg.predictor.hub import PRETRAINED
from narformer_pyg.training import all_metrics

NAME = "nasbench201-cifar10"


def test_predictions_are_those_of_the_model_card() -> None:
    predictor = ArchitecturePredictor.from_pretrained(NAME)
    assert list_pretrained() == [NAME]
    assert isinstance(predictor, AveragedPredictor)
    assert not predictor.training
    assert (predictor.space, predictor.units) == ("nasbench201", ("percent",))
    dataset = NASBench201()
    prediction = predictor.predict(dataset)[:, 0]
    assert len(set(prediction.tolist())) <= 5044  # equivalent cells are predicted alike
    metrics = all_metrics(prediction, dataset.labels("cifar10_test_acc"))
    assert metrics["kendall_tau"] == pytest.approx(0.908996, abs=1e-6)
    assert metrics["mape"] == pytest.approx(0.789067, abs=1e-6)
    card = (PRETRAINED / NAME / "README.md").read_text("utf-8")
    assert "0.909" in card
    assert sum(file.stat().st_size for file in PRETRAINED.rglob("*.*")) <= 2.5e6
    assert "0.789 %" in card


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = ArchitecturePredictor.from_pretrained(NAME)
    with torch.no_grad():
        predictor.scale.fill_(7.0)
    predictor.save_pretrained(tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert ArchitecturePredictor.from_pretrained(NAME).scale.item() == 7.0


def test_unknown_name() -> None:
    with pytest.raises(FileNotFoundError, match=r"inside the package: nasbench201-cifar10 \(got"):
        ArchitecturePredictor.from_pretrained("nasbench201")
