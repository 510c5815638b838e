from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import narformer_pyg

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    package = Path(narformer_pyg.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), "--threads", "1", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def measured(script: str, tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "out.json"
    run(script, "--quick", "--out", str(out), *arguments)
    results = json.loads(out.read_text("utf-8"))
    assert results["environment"]["torch"]
    assert results["settings"]["quick"] is True
    return results


def test_loader(tmp_path: Path) -> None:
    results = measured("loader.py", tmp_path)
    rates = results["batches_per_second"]
    assert rates["DeviceLoader"]["median"] > rates["DataLoader"]["median"] > 0
    assert results["ratio"]["of_medians"] > 1


def test_throughput(tmp_path: Path) -> None:
    results = measured("throughput.py", tmp_path)
    assert 0 < results["build_seconds"]["median"] < 60
    assert 0 < results["predict_seconds"]["median"] < 60


def test_train_step(tmp_path: Path) -> None:
    results = measured("train_step.py", tmp_path)
    assert set(results["cases"]) == {"cells_2", "networks_1"}
    for case in results["cases"].values():
        for what in ("training", "inference"):
            assert all(s["min"] > 0 for s in case[what]["seconds"].values())
            assert set(case[what]["times_as_fast_as_dense"]) == {"float32", "bf16"}


def test_layer(tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    results = measured("layer.py", tmp_path, "--plot", str(plot))
    assert plot.read_bytes()[:4] == b"\x89PNG"
    layers = {row["layer"] for row in results["rows"]}
    assert {"GraphAidedAttentionConv", "GATv2Conv", "dense"} <= layers
    assert all(row["seconds"]["min"] > 0 for row in results["rows"])


def test_dense_memory_grows_with_the_square(tmp_path: Path) -> None:
    results = measured(
        "layer.py", tmp_path, "--num_nodes", "3000", "--layers", "dense", "GraphAidedAttentionConv"
    )
    peak = {row["layer"]: row["peak_bytes"] for row in results["rows"]}
    assert peak["dense"] > 4 * 3000**2
    assert peak["GraphAidedAttentionConv"] < peak["dense"] / 2


def test_predict(tmp_path: Path) -> None:
    codes = tmp_path / "codes.npz"
    # input -> operation -> output, for each of the three operations
    np.savez(
        codes,
        vertices=np.full(3, 3, dtype=np.int8),
        edge_bits=np.full(3, 0b101, dtype=np.int32),
        op_code=np.arange(3, dtype=np.int16),
    )
    results = measured("predict.py", tmp_path, "--nasbench101", str(codes))
    assert results["spaces"]["NAS-Bench-201"]["num_cells"]["median"] == 200
    assert results["spaces"]["NAS-Bench-101"]["num_cells"]["median"] == 3
    assert all(s["min"] > 0 for s in results["single"]["seconds_per_cell"].values())


@pytest.mark.parametrize("script", ["loader.py", "layer.py"])
def test_wrong_arguments(script: str) -> None:
    done = run(script, "--repeats", "0", check=False)
    assert done.returncode == 2
    assert "Expected '--repeats' to be positive (got 0)" in done.stderr
