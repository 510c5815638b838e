from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from narformer_pyg.datasets import NASBench201
from narformer_pyg.search.command import add_arguments, run
from narformer_pyg.spaces import DARTSGenotype, NASBench201Cell


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(args)


def test_searches_the_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, log = tmp_path / "new" / "result.json", tmp_path / "search.jsonl"
    args = parse("--method=evolution", "--budget=60", f"--out={out}", f"--log={log}", "--seed=3")
    result = run(args)
    labels = NASBench201().labels("cifar10valid_valid_acc")
    assert result.best is not None
    index = NASBench201Cell.from_str(result.best.architecture).index
    assert result.best.values == {"cifar10valid_valid_acc": float(labels[index])}
    assert result.best.values["cifar10valid_valid_acc"] == max(
        item.values["cifar10valid_valid_acc"] for item in result.history
    )
    assert f"Best of 60 evaluations: {result.best.architecture}" in capsys.readouterr().out
    content = json.loads(out.read_text("utf-8"))
    assert content["best"]["architecture"] == result.best.architecture
    assert content["settings"]["seed"] == 3
    assert len(log.read_text("utf-8").splitlines()) == 61


def test_other_labels_are_minimised(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(parse("--method=random", "--budget=30", "--objective=latency_pixel3"))
    latencies = [item.values["latency_pixel3"] for item in result.history if item.ok]
    assert result.best is not None
    assert result.best.values["latency_pixel3"] == min(latencies)


def test_pareto(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--objective=cifar10valid_valid_acc", "--objective=latency_pixel3")
    result = run(parse("--method=pareto", "--budget=60", *arguments))
    assert len(result.history) == 60
    assert len(result.front) > 2
    lines = capsys.readouterr().out.splitlines()
    assert sum("latency_pixel3" in line for line in lines) == len(result.front)


def test_own_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_evaluation.py").write_text(
        "def convolutions(cell):\n"
        "    return sum('conv' in name for name in cell.operations)\n"
        "number = 3\n",
        "utf-8",
    )
    args = ("--method=evolution", "--budget=150", "--evaluate=my_evaluation:convolutions")
    result = run(parse(*args))
    assert result.best is not None
    assert result.best.values == {"value": 6.0}
    least = run(parse(*args, "--objective=-value"))
    assert least.best is not None
    assert least.best.values == {"value": 0.0}
    for wrong in ("my_evaluation:missing", "no_such_module:f", "my_evaluation", ":f"):
        with pytest.raises(ValueError, match=f"Expected '--evaluate' .*{wrong}"):
            run(parse(f"--evaluate={wrong}"))
    with pytest.raises(ValueError, match=r"Expected '--evaluate' to name a function \(got 3\)"):
        run(parse("--evaluate=my_evaluation:number"))


def test_a_space_without_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"'--evaluate' with '--space darts'.*\(got none\)"):
        run(parse("--space=darts", "--objective=cifar10_test_acc"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "darts_evaluation.py").write_text(
        "def skips(genotype):\n"
        "    return sum(name == 'skip_connect' for name, _ in genotype.normal)\n",
        "utf-8",
    )
    args = ("--space=darts", "--method=evolution", "--budget=150")
    result = run(parse(*args, "--evaluate=darts_evaluation:skips"))
    assert result.best is not None
    found = DARTSGenotype.from_str(result.best.architecture)
    assert sum(name == "skip_connect" for name, _ in found.normal) == result.best.values["value"]
    assert result.best.values["value"] >= 5  # a random genotype has 1.1
    assert f"evaluations: {found}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--objective=accuracy", r"Expected '--objective' .*got 'accuracy'.*cifar10_test"),
        (
            "--objective=latency_pixel3 --objective=cifar10_test_acc",
            r"Expected '--objective' once .*'--method pareto'",
        ),
        (
            "--objective=cifar10_test_acc --objective=cifar10_test_acc",
            r"Expected '--objective' to name each value once",
        ),
        ("--method=pareto --objective=latency_pixel3", r"Expected 'objectives' .*at least two"),
    ],
)
def test_wrong_objectives(args: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(parse(*args.split()))


@pytest.mark.parametrize("room", ["search", "profiling"])
def test_arguments_load_no_torch(room: str) -> None:
    script = (
        "import argparse, sys\n"
        f"from narformer_pyg.{room}.command import add_arguments\n"
        "parser = argparse.ArgumentParser()\n"
        "add_arguments(parser)\n"
        "optional = [action for action in parser._actions[1:] if not action.required]\n"
        "print([action.dest for action in optional if 'default' not in action.help])\n"
        "print({'torch', 'lightning', 'onnx'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\nset()\n", done.stderr
