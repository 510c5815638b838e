"""Every example runs as a user runs it, on a small setting."""

from __future__ import annotations

import csv
import io
import re
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latency_models import write_csv, write_models

from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import LATENCY_RECIPES, QUICK, RECIPES

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))


@dataclass
class Done:
    """How an example ended."""

    returncode: int
    stdout: str
    stderr: str


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
        with redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            except SystemExit as error:
                code = error.code
    if isinstance(code, str):  # Python prints it at the end of a process
        return Done(1, stdout.getvalue(), f"{stderr.getvalue()}{code}\n")
    return Done(code or 0, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def small_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every recipe small, under its own name."""
    for name, recipe in list(RECIPES.items()):
        model = {**recipe.model, "hidden_channels": 16, "num_blocks": 1}
        changes = {"epochs": 2, "min_steps": 0, "model": model}
        monkeypatch.setitem(RECIPES, name, type(recipe)(**{**recipe.to_dict(), **changes}))


@pytest.mark.parametrize("name", NAMES)
def test_is_short_and_explains_every_flag(name: str, tmp_path: Path) -> None:
    source = (EXAMPLES / name).read_text("utf-8")
    assert source.count("\n") <= 120
    assert re.search(rf"^    python examples/{name}", source, re.MULTILINE)
    assert not re.search(r"narformer_pyg[\w.]*\._|import _", source), "public names only"
    done = run(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    flags = re.findall(r"add_argument\(\s*\"(--\w+)\"", source)
    assert len(flags) >= 6
    for flag in flags:
        assert re.search(rf"^  {flag}\b.*\n?\s+\w+", done.stdout, re.MULTILINE), flag


@pytest.mark.parametrize("conv", ["graph_aided_attention", "gcn", "gat"])
def test_layer(conv: str, tmp_path: Path) -> None:
    arguments = (f"--conv={conv}", "--epochs=11", "--train_size=64")
    done = run("graph_aided_attention_layer.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["Epoch: 010", "Epoch: 011"]
    assert float(lines[-1].split()[-1]) > 0.2


@pytest.mark.usefixtures("small_recipes")
class TestAccuracy:
    name = "nasbench201_accuracy.py"

    def test_trains_tests_and_goes_on(self, tmp_path: Path) -> None:
        arguments = ("--train_size=64", "--device=cpu", "--out=out")
        done = run(self.name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        table = re.search(r"Kendall's tau +([\d.-]+) +([\d.-]+)", done.stdout)
        assert table is not None
        with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 15625
        assert sum(row["in_training"] == "1" for row in rows) == 64
        predictor = ArchitecturePredictor.from_pretrained(tmp_path / "out")
        value = predictor.predict(rows[5]["architecture"]).item()
        assert value == pytest.approx(float(rows[5]["prediction"]), rel=1e-5)

        refused = run(self.name, *arguments, cwd=tmp_path)
        assert refused.returncode == 1
        assert "'--out' to be a new folder" in refused.stderr
        again = run(self.name, *arguments, "--resume", cwd=tmp_path)
        assert again.stdout.splitlines()[-3:] == done.stdout.splitlines()[-3:]

    def test_best_recipe_averages(self, tmp_path: Path) -> None:
        arguments = ("--train_size=20", "--recipe=best", "--target=cifar10_estimated_acc")
        assert run(self.name, *arguments, "--out=out", cwd=tmp_path).returncode == 0
        loaded = ArchitecturePredictor.from_pretrained(tmp_path / "out")
        assert type(loaded).__name__ == "AveragedPredictor"

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--target=accuracy"], "'target' to be among"),
            (["--train_size=0"], "'train_size'"),
            (["--device=tpu"], "'device' to be 'auto'"),
            (["--model=resnet"], "'model' to be among"),
            (["--recipe=best", "--target=latency_pixel3"], "a recipe other than 'best'"),
            (["--resume"], "--resume needs --out"),
        ],
    )
    def test_errors(self, arguments: list[str], expected: str, tmp_path: Path) -> None:
        done = run(self.name, "--train_size=20", *arguments, cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert expected in done.stderr


@pytest.mark.usefixtures("small_recipes")
class TestLatency:
    name = "onnx_latency.py"

    def test_compares_and_goes_on(self, tmp_path: Path) -> None:
        labels = write_csv(tmp_path / "labels.csv", write_models(tmp_path / "models", 15))
        arguments = [f"--models={tmp_path / 'models'}", f"--labels={labels}", "--num_workers=0"]
        arguments += ["--split=all_families", "--networks", "narformer_v2", "gcn", "--out=out"]
        done = run(self.name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = re.findall(r"^([\w+ ]+?) {2,}(\w+) +([\d.]+) ", done.stdout, re.MULTILINE)
        assert {model for model, _, _ in rows} == {"flops + memory", "narformer_v2", "gcn"}
        assert {split for _, split, _ in rows} == {"plain", "residual", "pooled", "mean"}
        for model in ("gcn", "narformer_v2"):
            errors = {split: float(mape) for name, split, mape in rows if name == model}
            mean = errors.pop("mean")
            assert mean == pytest.approx(np.mean(list(errors.values())), abs=0.011)
        written = (tmp_path / "out" / "runs" / "plain_seed0_gcn" / "metrics.json").stat()
        again = run(self.name, *arguments, cwd=tmp_path)
        assert again.stdout.splitlines()[-12:] == done.stdout.splitlines()[-12:]
        after = (tmp_path / "out" / "runs" / "plain_seed0_gcn" / "metrics.json").stat()
        assert after.st_mtime_ns == written.st_mtime_ns
        predictor = ArchitecturePredictor.from_pretrained(tmp_path / "out" / "predictor")
        assert predictor.target_names == ("latency_ms",)
        assert predictor.predict(tmp_path / "models" / "pooled_2.onnx").item() > 0
        wrong = run(self.name, *arguments[:3], "--split=vgg", "--out=new", cwd=tmp_path)
        assert "'--split' to be in_domain, stage, all_families or plain" in wrong.stderr


class TestSearch:
    name = "architecture_search.py"

    def test_compares_and_goes_on(self, tmp_path: Path) -> None:
        arguments = ("--seeds=2", "--budget=30", "--threads=1")
        done = run(self.name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        means = re.findall(r"^(\w+): ([\d.]+) ± ([\d.]+) %, lowest ([\d.]+)", done.stdout, re.M)
        assert [name for name, *_ in means] == ["predictor", "evolution", "random"]
        assert all(80 < float(lowest) <= float(mean) < 95 for _, mean, _, lowest in means)
        log = tmp_path / "runs" / "architecture_search" / "predictor_seed1.jsonl"
        before = log.read_text("utf-8")
        again = run(self.name, *arguments, cwd=tmp_path)
        assert log.read_text("utf-8") == before
        first = [line for line in done.stdout.splitlines() if line.startswith("predictor, seed")]
        assert first == [x for x in again.stdout.splitlines() if x.startswith("predictor, seed")]

    def test_pareto(self, tmp_path: Path) -> None:
        arguments = ("--pareto=latency_pixel3", "--seeds=1", "--budget=60")
        done = run(self.name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        share = float(re.findall(r"^latency_pixel3: ([\d.]+) %", done.stdout, re.M)[0])
        assert 50 < share <= 100.0001


class TestDARTS:
    name = "darts_cifar10.py"

    def test_trains_and_resumes(self, tmp_path: Path) -> None:
        small = ("--fake_data", "--C=4", "--layers=3", "--out=run")
        done = run(self.name, *small, "--epochs=2", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert re.search(r"Test accuracy after 2 epochs: [\d.]+ %", done.stdout)
        done = run(self.name, *small, "--epochs=3", "--resume", cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    def test_reads_the_binary_version(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
        for name in names:
            rows = rng.integers(256, size=(4, 3073), dtype=np.uint8)
            rows[:, 0] %= 10
            rows.tofile(tmp_path / name)
        namespace = runpy.run_path(str(EXAMPLES / self.name))
        images = namespace["read_cifar10"](tmp_path, names[:5])
        assert images.tensors[0].shape == (20, 3, 32, 32)
        torch.manual_seed(0)
        x = namespace["augment"](images.tensors[0], cutout=16)
        assert x.shape == (20, 3, 32, 32)
        assert 0.05 < float((x == 0).float().mean()) < 0.4  # holes
        arguments = (f"--data={tmp_path}", "--C=4", "--layers=3", "--epochs=1")
        assert run(self.name, *arguments, cwd=tmp_path).returncode == 0


def test_recipes_are_those_of_the_package() -> None:
    assert QUICK.name == "quick"
    assert set(LATENCY_RECIPES) == {"latency", "latency_paper"}
