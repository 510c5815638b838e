from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from latency_models import write_csv, write_models

from narformer_pyg.cli import main
from narformer_pyg.datasets import NASBench201, ONNXLatency, Split
from narformer_pyg.nn import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.nn.models.registry import model_name
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import LATENCY_RECIPES, fit, get_recipe, label_scale

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_latency.py"
TINY = ["--epochs=1", "--hidden_channels=16", "--device=cpu", "--num_workers=0"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("measured")
    lines = write_models(folder / "models", 15)
    return folder / "models", write_csv(folder / "labels.csv", lines)


def run(*args: str, cwd: Path) -> str:
    """Runs the example in this process; returns the message that it ends with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [str(EXAMPLE), *args])
        try:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        except SystemExit as error:
            return str(error.code or "")
    return ""


@pytest.mark.parametrize("name", LATENCY_RECIPES)
def test_recipes_learn_from_graph_features(measured: tuple[Path, Path], name: str) -> None:
    recipe = get_recipe(name)
    conventions = {key: recipe.token_encoder[key] for key in ("vocabulary", "counting")}
    dataset = ONNXLatency(None, *measured, num_workers=0, progress=False, **conventions)
    torch.manual_seed(0)
    encoder = OperatorTokenEncoder(**recipe.token_encoder)
    model = create_model(
        "narformer_v2", encoder.out_channels, static_channels=encoder.static_channels,
        **{**recipe.model, "hidden_channels": 16},
    )  # fmt: skip
    scale = label_scale("latency", dataset.labels())
    predictor = ArchitecturePredictor(encoder, model, ["latency_ms"], ["ms"], scale)
    assert model.lin_static is not None
    before = model.lin_static.weight.detach().clone()
    tiny = type(recipe)(**{**recipe.to_dict(), "epochs": 1})
    result = fit(predictor, dataset, tiny, device="cpu", progress=False)
    assert result.epochs == 1
    assert not torch.equal(model.lin_static.weight, before)
    # The graph features reach the prediction.
    graph = dataset[0].clone()
    prediction = predictor.predict(graph)
    graph.static = graph.static * 7
    assert not torch.equal(predictor.predict(graph), prediction)
    other = "onnx" if recipe.token_encoder["vocabulary"] == "nnlqp" else "nnlqp"
    foreign = ONNXLatency(
        None, *measured, num_workers=0, progress=False, vocabulary=other,
        counting=conventions["counting"],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'vocabulary' of 'train_set' to be that"):
        fit(predictor, foreign, tiny, device="cpu", progress=False)


def test_from_measurements_to_predictions(
    measured: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models, labels = measured
    command = [f"--models={models}", f"--labels={labels}", *TINY, "--out=out"]
    command += ["--split=all_families", "--networks", "narformer_v2", "gcn"]
    assert run(*command, cwd=tmp_path) == ""
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert len(content["runs"]) == 3 * 3
    assert content["recipe"]["epochs"] == 1
    for row in content["table"]:
        assert row["split"] in ("plain", "residual", "pooled", "mean")
        if row["split"] == "mean":
            each = [r["mape"] for r in content["table"]
                    if r["model"] == row["model"] and r["split"] != "mean"]  # fmt: skip
            assert row["mape"] == pytest.approx(sum(each) / 3)
        line = rf"{re.escape(row['model'])}\s+{row['split']}\s+{row['mape']:.2f}\s"
        assert re.search(line, printed)
    folder = tmp_path / "out" / "runs" / "pooled_seed0_narformer_v2"
    assert (folder / "predictions.png").stat().st_size > 1000
    files = (folder / "predictions.csv").read_text("utf-8").splitlines()[1:]
    assert sorted(line.split("_")[0] for line in files) == ["pooled"] * 5

    # The same command goes on where it was, and other settings are refused.
    written = (folder / "run.json").stat().st_mtime_ns
    (tmp_path / "out" / "runs" / "residual_seed0_gcn" / "run.json").unlink()
    assert run(*command, cwd=tmp_path) == ""
    assert (folder / "run.json").stat().st_mtime_ns == written
    again = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert again["table"] == content["table"]
    assert "'--out' to be new" in run(*command, "--epochs=2", cwd=tmp_path)

    # The predictor that is kept is that of the first network of the last command.
    swapped = [*command[:-2], "gcn", "narformer_v2"]
    kept = tmp_path / "out" / "predictor"
    assert run(*swapped, cwd=tmp_path) == ""
    assert model_name(ArchitecturePredictor.from_pretrained(kept).model) == "gcn"
    assert run(*command, cwd=tmp_path) == ""
    assert model_name(ArchitecturePredictor.from_pretrained(kept).model) == "narformer_v2"

    # The saved predictor says of a model what it said in Python.
    capsys.readouterr()
    checkpoint = tmp_path / "out" / "predictor"
    model = models / "pooled_2.onnx"
    assert main(["predict", str(model), "--checkpoint", str(checkpoint)]) == 0
    recipe = get_recipe("latency").token_encoder
    dataset = ONNXLatency(
        None, models, labels, num_workers=0, progress=False, vocabulary=recipe["vocabulary"],
        counting=recipe["counting"],
    )  # fmt: skip
    predictor = ArchitecturePredictor.from_pretrained(checkpoint)
    expected = float(predictor.predict(dataset[2]))
    assert capsys.readouterr().out == f"{model}: latency_ms {expected:.4g} ms\n"


def test_predict_refuses_a_predictor_of_cells(
    measured: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    encoder = CellTokenEncoder()
    model = create_model("gcn", encoder.out_channels, hidden_channels=8, num_blocks=1)
    predictor = ArchitecturePredictor(encoder, model)
    assert predictor.predict(NASBench201()[:2]).shape == (2, 1)
    predictor.save_pretrained(tmp_path)
    path = str(measured[0] / "plain_0.onnx")
    assert main(["predict", path, "--checkpoint", str(tmp_path)]) == 1
    assert "to be a predictor of ONNX models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--split=vgg"], "'--split' to be in_domain, stage, all_families or plain"),
        (["--threads=0"], "'--threads'"),
        (["--device=tpu"], "'device'"),
        (["--labels=none.csv"], "none.csv"),
        (["--split=stage"], "'stage'"),
    ],
)
def test_errors(
    measured: tuple[Path, Path], tmp_path: Path, args: list[str], expected: str
) -> None:
    message = run(f"--models={measured[0]}", f"--labels={measured[1]}", *TINY, *args, cwd=tmp_path)
    assert expected in message


def test_refuses_runs_of_other_models(tmp_path: Path) -> None:
    labels = write_csv(tmp_path / "labels.csv", write_models(tmp_path / "models", 15))
    command = [f"--models={tmp_path / 'models'}", f"--labels={labels}", *TINY, "--out=out"]
    command += ["--networks", "gcn"]
    assert run(*command, cwd=tmp_path) == ""
    # The same labels, but another model behind one of them.
    (tmp_path / "models" / "plain_0.onnx").write_bytes(
        (tmp_path / "models" / "pooled_2.onnx").read_bytes()
    )
    assert "'--out' to be new" in run(*command, cwd=tmp_path)


@pytest.mark.parametrize("family", ["../elsewhere", "stage"])
def test_refuses_families_that_are_no_names(tmp_path: Path, family: str) -> None:
    lines = write_models(tmp_path / "models", 15)
    lines = [{**line, "family": family} for line in lines[:5]] + lines[5:]
    labels = write_csv(tmp_path / "labels.csv", lines)
    message = run(f"--models={tmp_path / 'models'}", f"--labels={labels}", *TINY, cwd=tmp_path)
    assert f"got {family!r}" in message


def test_linear_function_has_small_relative_errors(tmp_path: Path) -> None:
    """The small networks count as much as the large ones, and no coefficient is negative."""
    lines = write_models(tmp_path / "models", 30)
    dataset = ONNXLatency(
        None, tmp_path / "models", write_csv(tmp_path / "first.csv", lines), num_workers=0,
        progress=False,
    )  # fmt: skip
    flops, accessed = torch.cat([data.static for data in dataset]).double()[:, [1, 3]].T
    truth = 0.01 + 2e-7 * flops + 1e-6 * accessed
    # The largest one is off: a fit of absolute errors would follow it.
    truth[truth.argmax()] *= 3
    lines = [
        {**line, "latency_ms": f"{value:.9f}"}
        for line, value in zip(lines, truth.tolist(), strict=True)
    ]
    dataset = ONNXLatency(
        None, tmp_path / "models", write_csv(tmp_path / "labels.csv", lines), num_workers=0,
        progress=False,
    )  # fmt: skip
    everything = torch.arange(len(dataset))
    linear_run = runpy.run_path(str(EXAMPLE))["linear_run"]
    split = Split(train=everything, val=everything[:0], test=everything, seed=0)
    metrics = linear_run("in_domain", 0, dataset, split)["metrics"]
    assert metrics["acc_10"] >= 90
