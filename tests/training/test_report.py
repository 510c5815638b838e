from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from narformer_pyg import __version__
from narformer_pyg.training.report import (
    environment,
    format_table,
    plot_history,
    plot_predictions,
    write_json,
    write_predictions,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

METRICS = {
    "kendall_tau": 0.87654,
    "spearman": 0.912,
    "mape": 1.234,
    "acc_10": 99.5,
    "acc_5": 87.25,
    "acc_1": 9.0,
}


def test_table() -> None:
    assert format_table({"all cells": METRICS, "unseen": METRICS}, training_seconds="12.3") == (
        "                  all cells  unseen\n"
        "-----------------------------------\n"
        "Kendall's tau        0.8765  0.8765\n"
        "Spearman             0.9120  0.9120\n"
        "MAPE (%)               1.23    1.23\n"
        "Acc(10 %) (%)         99.50   99.50\n"
        "Acc(5 %) (%)          87.25   87.25\n"
        "Acc(1 %) (%)           9.00    9.00\n"
        "training seconds       12.3        "
    )


def test_table_of_metrics_that_are_not_defined() -> None:
    table = format_table({"cells": {**METRICS, "kendall_tau": math.nan}})
    assert table.splitlines()[2].split() == ["Kendall's", "tau", "nan"]
    assert len({len(line) for line in table.splitlines()}) == 1


def test_predictions_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "predictions.csv"
    names = ["|a~0|+|b,c~0|", 'quoted "name"', "third"]
    prediction, target = torch.tensor([91.23456, 1e-5, 3.0]), torch.tensor([90.0, 2e-5, 1234.5])
    write_predictions(path, names, prediction, target, torch.tensor([True, False, True]))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["architecture", "label", "prediction", "in_training"]
    assert [row["architecture"] for row in rows] == names
    assert [row["in_training"] for row in rows] == ["1", "0", "1"]
    assert [float(row["prediction"]) for row in rows] == pytest.approx(prediction.tolist(), 1e-5)
    assert [float(row["label"]) for row in rows] == pytest.approx(target.tolist(), 1e-5)


def test_predictions_of_another_length_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("old", "utf-8")
    with pytest.raises(ValueError, match=r"shorter|longer"):
        write_predictions(path, ["one"], torch.ones(2), torch.ones(2), torch.ones(2).bool())
    assert path.read_text("utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.csv"]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "metrics.json"
    content = {"metrics": {"all": METRICS}, "history": [{"epoch": 0.0, "loss": 0.5}]}
    write_json(path, content)
    assert json.loads(path.read_text("utf-8")) == content
    with pytest.raises(TypeError):
        write_json(path, {"metrics": torch.ones(1)})
    assert json.loads(path.read_text("utf-8")) == content
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_environment_is_plain(tmp_path: Path) -> None:
    content = environment()
    assert json.loads(json.dumps(content)) == content
    assert content["narformer_pyg"] == __version__
    assert content["torch"] == torch.__version__
    assert content["num_threads"] == torch.get_num_threads()


def assert_is_a_picture(path: Path) -> None:
    image = matplotlib.image.imread(path)
    assert image.ndim == 3
    assert min(image.shape[:2]) > 200
    assert image[..., :3].std() > 0.01  # something is drawn


@pytest.mark.parametrize("num_graphs", [2, 5000])
def test_plot_predictions(tmp_path: Path, num_graphs: int) -> None:
    import matplotlib.image  # noqa: F401
    import matplotlib.pyplot as plt

    generator = torch.Generator().manual_seed(0)
    target = 80 + 10 * torch.rand(num_graphs, generator=generator)
    prediction = target + torch.randn(num_graphs, generator=generator)
    path = tmp_path / "folder" / "predictions.png"
    text = {"label": "accuracy", "unit": "percent", "title": "title"}
    plot_predictions(path, prediction, target, **text)
    assert_is_a_picture(path)
    linear = path.read_bytes()
    plot_predictions(path, prediction, target, **text, log=True)
    assert_is_a_picture(path)
    assert path.read_bytes() != linear
    assert plt.get_fignums() == []  # nothing stays open


@pytest.mark.parametrize("validated", [False, True])
def test_plot_history(tmp_path: Path, validated: bool) -> None:
    import matplotlib.image  # noqa: F401
    import matplotlib.pyplot as plt

    history = [{"epoch": float(i), "loss": 1 / (i + 1)} for i in range(20)]
    path = tmp_path / "history.png"
    plot_history(path, history)
    plain = path.read_bytes()
    if validated:
        for entry in history[9::10]:
            entry.update(val_kendall_tau=entry["epoch"] / 20, val_mape=3.0)
        plot_history(path, history)
        assert path.read_bytes() != plain  # the second curve is drawn
    assert_is_a_picture(path)
    assert plt.get_fignums() == []
