from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.predictor import ArchitecturePredictor, list_pretrained
from narformer_pyg.predictor.predictor import _PRETRAINED
from narformer_pyg.training import all_metrics

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "nasbench201"


def test_names() -> None:
    assert list_pretrained() == ["nasbench201-cifar10"]


def test_predictions_are_those_of_the_benchmark() -> None:
    predictor = ArchitecturePredictor.from_pretrained("nasbench201-cifar10")
    assert not predictor.training
    dataset = NASBench201()
    metrics = all_metrics(predictor.predict(dataset)[:, 0], dataset.labels("cifar10_test_acc"))
    file = RESULTS / "narformer_v2_best_cifar10_estimated_acc_1563_seed0.json"
    expected = json.loads(file.read_text("utf-8"))["metrics"]["all cells"]
    assert metrics == pytest.approx({name: expected[name] for name in metrics}, rel=1e-3)
    assert metrics["kendall_tau"] > 0.9


def test_small() -> None:
    assert sum(file.stat().st_size for file in _PRETRAINED.rglob("*.pt")) <= 4e6


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = ArchitecturePredictor.from_pretrained("nasbench201-cifar10")
    with torch.no_grad():
        predictor.scale.fill_(7.0)
    predictor.save_pretrained(tmp_path / "nasbench201-cifar10")
    monkeypatch.chdir(tmp_path)
    assert ArchitecturePredictor.from_pretrained("nasbench201-cifar10").scale.item() == 7.0


def test_unknown_name() -> None:
    with pytest.raises(FileNotFoundError, match=r"inside the package: nasbench201-cifar10 \(got"):
        ArchitecturePredictor.from_pretrained("nasbench201")
