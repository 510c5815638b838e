from __future__ import annotations

import csv
import io
import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import narformer_pyg
from narformer_pyg.datasets import NASBench201, Split
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import CELL_RECIPES, all_metrics

EXAMPLES = Path(__file__).parents[2] / "examples"
# Where the package under test is, so that the examples run with this one.
PACKAGE_PARENT = Path(narformer_pyg.__file__).parents[1]
ACCURACY = "nasbench201_accuracy.py"
LAYER = "graph_aided_attention_layer.py"

SMALL = ["--epochs=2", "--train_size=64", "--hidden_channels=16", "--num_blocks=1", "--device=cpu"]


@dataclass
class Done:
    """How an example ended."""

    returncode: int
    stdout: str
    stderr: str


def run_process(name: str, *args: str, cwd: Path) -> Done:
    """Runs an example as a user does."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE_PARENT)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run(name: str, *args: str, cwd: Path) -> Done:
    """Runs an example in this process, which saves the seconds of importing PyTorch.

    An exception that the example does not handle fails the test.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", [str(EXAMPLES / name), *args])
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        with redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            except SystemExit as error:
                code = error.code
    if isinstance(code, str):  # what Python does with it at the end of a process
        return Done(1, stdout.getvalue(), f"{stderr.getvalue()}{code}\n")
    return Done(code or 0, stdout.getvalue(), stderr.getvalue())


def assert_one_paragraph_error(done: Done, *expected: str) -> None:
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr + done.stdout
    message = done.stderr.strip()
    assert "\n\n" not in message
    assert 0 < len(message) < 4000  # argparse shows all flags and targets
    for text in expected:
        assert text in message


def read_predictions(path: Path) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = (torch.tensor([float(r[c]) for r in rows]) for c in ("label", "prediction"))
    known = torch.tensor([r["in_training"] == "1" for r in rows])
    return [row["architecture"] for row in rows], *columns, known


def flags(name: str) -> set[str]:
    """Returns the flags that the source of an example declares."""
    source = (EXAMPLES / name).read_text("utf-8")
    found = set(re.findall(r"add_argument\(\s*\"(--\w+)\"", source))
    if name == ACCURACY:  # these are declared in a loop
        found |= {"--epochs", "--batch_size", "--hidden_channels", "--num_blocks"}
    return found


@pytest.mark.parametrize("name", [ACCURACY, LAYER])
def test_help_names_every_flag(name: str, tmp_path: Path) -> None:
    done = run(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = flags(name)
    assert len(expected) >= 6
    for flag in expected:
        # Each has a line of its own with an explanation.
        assert re.search(rf"^  {flag}\b.*\n?\s+\w+", done.stdout, re.MULTILINE), flag
    assert not re.search(r"--\w+-\w+", done.stdout.replace("--no-", "--no_"))  # snake_case


@pytest.mark.parametrize("conv", ["graph_aided_attention", "gcn", "gat"])
def test_layer(conv: str, tmp_path: Path) -> None:
    done = run(LAYER, f"--conv={conv}", "--epochs=11", "--train_size=64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    values = [re.fullmatch(r"Epoch: (\d+), Loss: ([\d.]+), Test tau: ([-\d.]+)", x) for x in lines]
    assert all(values)
    assert [int(match[1]) for match in values if match] == [10, 11]
    assert values[-1] is not None
    assert float(values[-1][3]) > 0.2  # it learned something
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("accuracy")
    done = run_process(ACCURACY, *SMALL, "--val_size=20", "--out=results", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["results"]
    return folder / "results", done.stdout


def test_accuracy_prints_what_it_writes(finished: tuple[Path, str]) -> None:
    out, printed = finished
    content = json.loads((out / "metrics.json").read_text("utf-8"))
    names, label, prediction, known = read_predictions(out / "predictions.csv")
    split = Split.load(out / "split.json")

    assert len(names) == len(set(names)) == 15625
    dataset = NASBench201(target="cifar10_test_acc")
    torch.testing.assert_close(label, dataset.labels("cifar10_test_acc"), rtol=1e-5, atol=0.0)
    assert known.nonzero().flatten().tolist() == sorted(split.train.tolist())
    assert known.sum() == 64
    assert split.val.numel() == 20

    metrics = content["metrics"]
    assert metrics["all cells"] == pytest.approx(all_metrics(prediction, label), abs=0.02)
    unseen = all_metrics(prediction[split.test], label[split.test])
    assert metrics["unseen cells"] == pytest.approx(unseen, abs=0.02)
    assert f"{metrics['all cells']['kendall_tau']:.4f}" in printed
    assert f"{metrics['unseen cells']['mape']:.2f}" in printed
    assert "results/" in printed

    assert content["train_target"] == "cifar10valid_valid_acc"
    assert content["test_target"] == "cifar10_test_acc"
    assert content["recipe"]["epochs"] == len(content["history"]) == 2
    assert content["recipe"]["model"]["hidden_channels"] == 16
    assert content["environment"]["narformer_pyg"] == narformer_pyg.__version__


def test_accuracy_draws_plots(finished: tuple[Path, str]) -> None:
    image = pytest.importorskip("matplotlib.image")
    for name in ("predictions.png", "history.png"):
        assert image.imread(finished[0] / name).std() > 0.01


def test_accuracy_saves_the_predictor(finished: tuple[Path, str]) -> None:
    out = finished[0]
    predictor = ArchitecturePredictor.from_pretrained(out)
    names, _, prediction, _ = read_predictions(out / "predictions.csv")
    assert predictor.target_names == ("cifar10valid_valid_acc",)
    assert predictor.units == ("percent",)
    again = predictor.predict(names[::100])[:, 0]
    torch.testing.assert_close(again, prediction[::100], rtol=1e-5, atol=0.0)


def test_accuracy_resumes(finished: tuple[Path, str]) -> None:
    out = finished[0]
    content = json.loads((out / "metrics.json").read_text("utf-8"))
    predictions = (out / "predictions.csv").read_bytes()
    for path in out.iterdir():
        if path.name not in ("training.ckpt", "settings.json"):
            path.unlink()
    done = run(ACCURACY, *SMALL, "--val_size=20", "--out=results", "--resume", cwd=out.parent)
    assert done.returncode == 0, done.stderr
    again = json.loads((out / "metrics.json").read_text("utf-8"))
    assert again["metrics"] == content["metrics"]
    assert again["history"] == content["history"]
    assert (out / "predictions.csv").read_bytes() == predictions


def test_accuracy_does_not_mix_runs(finished: tuple[Path, str]) -> None:
    out = finished[0]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = run(ACCURACY, *SMALL, "--out=results", cwd=out.parent)
    assert_one_paragraph_error(done, "'--out' to be a new folder", "results", "'--resume'")
    other = [*SMALL, "--val_size=20", "--out=results", "--resume", "--seed=7"]
    done = run(ACCURACY, *other, cwd=out.parent)
    assert_one_paragraph_error(done, "seed: 0 there, 7 here")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_accuracy_resumes_the_interrupted_run(tmp_path: Path) -> None:
    done = run(ACCURACY, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(ACCURACY, *SMALL, cwd=tmp_path)
    first, second = sorted((tmp_path / "runs").iterdir())
    assert second.name == f"{first.name}_2"
    before = (first / "metrics.json").read_bytes()
    expected = json.loads((second / "metrics.json").read_text("utf-8"))["metrics"]
    # Stopped before the first checkpoint: all there is are the settings.
    for path in second.iterdir():
        if path.name != "settings.json":
            path.unlink()
    done = run(ACCURACY, *SMALL, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((second / "metrics.json").read_text("utf-8"))["metrics"] == expected
    assert (first / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_accuracy_with_damaged_settings(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    done = run(ACCURACY, *SMALL, "--resume", f"--out={tmp_path}", cwd=tmp_path)
    assert_one_paragraph_error(done, "'--out'", "settings.json", str(tmp_path))


def test_accuracy_with_a_damaged_checkpoint(finished: tuple[Path, str], tmp_path: Path) -> None:
    for name in ("settings.json", "training.ckpt"):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes()[:5000])
    args = [*SMALL, "--val_size=20", "--resume", f"--out={tmp_path}"]
    assert_one_paragraph_error(run(ACCURACY, *args, cwd=tmp_path), "'resume'", "damaged")


def test_accuracy_with_missing_labels(tmp_path: Path) -> None:
    done = run(ACCURACY, *SMALL, "--target=latency_pixel3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    names, label, prediction, _ = read_predictions(out / "predictions.csv")
    assert len(names) == 15625 - 202
    assert bool((label > 0).all())
    assert bool((prediction > 0).all())
    content = json.loads((out / "metrics.json").read_text("utf-8"))
    assert content["test_target"] == content["train_target"] == "latency_pixel3"
    assert ArchitecturePredictor.from_pretrained(out).units == ("ms",)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--target=nonsense"], ["--target", "nonsense"]),
        (["--recipe=best", "--target=latency_pixel3"], ["'--recipe'", "latency_pixel3"]),
        (["--train_size=20000"], ["'train_size'", "20000"]),
        (["--epochs=0"], ["'epochs'", "0"]),
        (["--device=tpu"], ["'device'", "tpu"]),
        (["--threads=0"], ["'--threads'", "0"]),
        (["--select=best"], ["'--val_size'", "'--select best'"]),
        (["--resume"], ["'--out'", "interrupted run"]),
        ([f"--seed={2**70}"], ["'seed'"]),
        (["--out=file/results"], ["'--out'", "file/results"]),
        (["--out=empty", "--resume"], ["'--out'", "training.ckpt", "empty"]),
    ],
)
def test_accuracy_errors(args: list[str], expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    done = run(ACCURACY, *SMALL, *args, cwd=tmp_path)
    assert_one_paragraph_error(done, *expected)


def test_error_ends_the_process(tmp_path: Path) -> None:
    done = run_process(ACCURACY, *SMALL, "--train_size=20000", cwd=tmp_path)
    assert_one_paragraph_error(done, "'train_size'", "20000")


def test_accuracy_by_the_best_recipe(tmp_path: Path) -> None:
    flags = ["--recipe=best", "--target=cifar10_estimated_acc", "--out=run"]
    done = run(ACCURACY, *SMALL, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recipe 'best', 2 epochs" in done.stdout
    assert "Tested on cifar10_test_acc" in done.stdout
    predictor = ArchitecturePredictor.from_pretrained(tmp_path / "run")
    assert predictor.average_equivalents
    assert predictor.calibration != [None]


def test_recipes_of_the_help_exist() -> None:
    for command in re.findall(r"--recipe (\w+)", (EXAMPLES / ACCURACY).read_text("utf-8")):
        assert command in CELL_RECIPES


def test_every_example_is_tested() -> None:
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    untested = {path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tests}
    assert untested == set()
