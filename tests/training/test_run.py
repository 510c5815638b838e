from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from narformer_pyg.datasets import NASBench201, Split
from narformer_pyg.errors import CheckpointError
from narformer_pyg.training import QUICK, RunResult, Task, all_metrics, nasbench201_task, train
from narformer_pyg.training.run import free_folder, interrupted_folder

SMALL = dataclasses.replace(
    QUICK, epochs=2, model={**QUICK.model, "hidden_channels": 16, "num_blocks": 1}
)
SETTINGS: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def task() -> Task:
    return nasbench201_task(train_size=24, val_size=20, seed=1)


@pytest.fixture(scope="module")
def finished(task: Task, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    result = train(task, SMALL, out=tmp_path_factory.mktemp("run") / "out", **SETTINGS)
    assert result is not None
    return result


def test_folder(task: Task, finished: RunResult) -> None:
    folder = finished.folder
    assert {path.name for path in folder.iterdir()} == {
        "settings.json", "split.json", "metrics.json", "predictions.csv", "predictions.png",
        "history.png", "config.json", "model.safetensors", "README.md",
    }  # fmt: skip
    assert torch.equal(Split.load(folder / "split.json").train, task.split.train)
    content = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert content["metrics"] == finished.metrics
    assert content["recipe"] == SMALL.to_dict()
    assert len(content["history"]) == 2
    predictor = finished.predictor()
    assert predictor.space == "nasbench201"
    assert predictor.metadata["recipe"] == "quick"
    labels = NASBench201().labels("cifar10_test_acc")[task.split.test]
    prediction = predictor.predict(task.dataset[task.split.test])[:, 0]
    expected = all_metrics(prediction, labels)
    assert finished.metrics["unseen cells"] == pytest.approx(expected, rel=1e-4)
    assert f"{expected['mape']:.2f}" in finished.table()


def test_does_not_mix_runs(task: Task, finished: RunResult) -> None:
    with pytest.raises(ValueError, match="'--out' to be a new folder"):
        train(task, SMALL, out=finished.folder, **SETTINGS)
    for change in ({"seed": 7}, {"model": "gcn"}):
        with pytest.raises(ValueError, match=f"another {next(iter(change))}"):
            train(task, SMALL, out=finished.folder, resume=True, **SETTINGS, **change)
    other = nasbench201_task(train_size=25, val_size=20, seed=1)
    with pytest.raises(ValueError, match="another labels, train"):
        train(other, SMALL, out=finished.folder, resume=True, **SETTINGS)


def test_reads_a_finished_run(task: Task, finished: RunResult) -> None:
    again = train(task, SMALL, out=finished.folder, resume=True, **SETTINGS)
    assert again == finished


def test_resumes_an_interrupted_run(task: Task, finished: RunResult, tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(task, SMALL, out=out, callbacks=[Stop()], **SETTINGS)
    assert (out / "training.ckpt").is_file()
    result = train(task, SMALL, out=out, resume=True, **SETTINGS)
    assert result is not None
    assert result.metrics == finished.metrics
    assert not (out / "training.ckpt").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_damaged_settings(task: Task, tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"'--out' to hold|'--resume' to have the settings"):
        train(task, SMALL, out=tmp_path, resume=True, **SETTINGS)


def test_damaged_files(task: Task, finished: RunResult, tmp_path: Path) -> None:
    settings = (finished.folder / "settings.json").read_bytes()
    (tmp_path / "settings.json").write_bytes(settings)
    (tmp_path / "training.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="'resume'"):
        train(task, SMALL, out=tmp_path, resume=True, **SETTINGS)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'metrics.json'.*KeyError"):
        train(task, SMALL, out=tmp_path, resume=True, **SETTINGS)


def test_labels_that_are_missing(tmp_path: Path) -> None:
    task = nasbench201_task("latency_pixel3", train_size=20)
    labels = NASBench201().labels("latency_pixel3")
    assert labels[task.tested["all cells"]].isfinite().all()
    result = train(task, SMALL, out=tmp_path, **SETTINGS)
    assert result is not None
    assert result.metrics["all cells"]["mape"] > 0
    best = dataclasses.replace(SMALL, augmentation="equivalent")
    with pytest.raises(ValueError, match="do not have the same latency"):
        train(task, best, out=tmp_path / "best", **SETTINGS)


def test_unknown_labels() -> None:
    for argument in ("target", "test_target"):
        with pytest.raises(ValueError, match=rf"'{argument}' to be among .*got 'accuracy'"):
            nasbench201_task(**{argument: "accuracy"})


def test_folders_have_numbers(tmp_path: Path) -> None:
    first = free_folder("name", tmp_path)
    assert first == tmp_path / "name"
    with pytest.raises(ValueError, match="'--out' to name the folder of an interrupted run"):
        interrupted_folder("name", tmp_path)
    first.mkdir()
    (first / "metrics.json").touch()
    second = free_folder("name", tmp_path)
    assert second.name == "name_2"
    second.mkdir()
    assert interrupted_folder("name", tmp_path) == second
