from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import narformer_pyg

EXAMPLE = Path(__file__).parents[2] / "examples" / "architecture_search.py"


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the example as a user does."""
    parent = str(Path(narformer_pyg.__file__).parents[1])
    return subprocess.run(
        [sys.executable, str(EXAMPLE), "--threads=1", "--out=found", *args],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": parent},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_compares_and_goes_on(tmp_path: Path) -> None:
    arguments = ("--seeds=1", "--budget=30", "--evolution_budget=60", "--random_budget=40")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "found"
    searches = json.loads((out / "results.json").read_text("utf-8"))["searches"]
    assert [entry["budget"] for entry in searches.values()] == [30, 60, 40]
    assert len(searches["predictor"]["mean_best_so_far"]) == 30
    for entry in searches.values():
        assert 80 < entry["test_accuracy_mean"] < 94.38
        assert f"{entry['test_accuracy_mean']:.3f}" in done.stdout
    assert (out / "progress.png").stat().st_size > 10_000
    # Killed in the middle of writing a line: the same command gives the same result.
    log = out / "logs" / "predictor_seed0.jsonl"
    whole = [json.loads(line).get("architecture") for line in log.read_text("utf-8").splitlines()]
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    assert run(*arguments, cwd=tmp_path).returncode == 0
    again = [json.loads(line).get("architecture") for line in log.read_text("utf-8").splitlines()]
    assert again == whole


@pytest.mark.slow
def test_pareto(tmp_path: Path) -> None:
    done = run("--pareto", "--seeds=1", "--budget=60", "--latency", "latency_pixel3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "found" / "results.json").read_text("utf-8"))
    share = content["latencies"]["latency_pixel3"]["predictor whole front_mean"]
    assert 0.9 < share <= 1.0
    assert (tmp_path / "found" / "front_latency_pixel3.png").stat().st_size > 10_000


def test_errors_are_one_paragraph(tmp_path: Path) -> None:
    done = run("--seeds=0", cwd=tmp_path)
    assert done.returncode == 1
    expected = "ValueError: Expected '--seeds' to be a positive integer (got 0)\n"
    assert done.stderr.endswith(expected)
    assert "Traceback" not in done.stderr
