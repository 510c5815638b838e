from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from narformer_pyg.profiling import (
    LatencyLabel,
    measure_again,
    read_labels,
    write_networks,
)
from narformer_pyg.profiling.measure import measure_to_csv

QUICK: dict[str, Any] = {"seconds": 0.002, "passes": 2, "progress": False}
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_latency_set.py"


def test_networks_are_the_same_every_time(tmp_path: Path) -> None:
    few = write_networks(tmp_path / "few", 3, seed=1)
    many = write_networks(tmp_path / "many", 13, seed=1)
    assert [path.name for path in few] == [
        "alexnet_00000.onnx", "vgg_00001.onnx", "googlenet_00002.onnx",
    ]  # fmt: skip
    assert many[11].name == "alexnet_00011.onnx"
    assert many[11].read_bytes() != many[0].read_bytes()
    assert [p.read_bytes() for p in few] == [p.read_bytes() for p in many[:3]]
    before = few[0].stat().st_mtime_ns
    assert write_networks(tmp_path / "few", 3, seed=1) == few
    assert few[0].stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match=r"same 'seed' and 'families' \(got another network"):
        write_networks(tmp_path / "few", 3, seed=2)
    for families in ([], ["lenet"], ["vgg", "vgg"]):
        with pytest.raises(ValueError, match="'families' to be different names among alexnet"):
            write_networks(tmp_path / "few", 3, families=families)
    with pytest.raises(ValueError, match="'num' to be a positive integer"):
        write_networks(tmp_path / "few", 0)


def test_set_and_repetition(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "nets", tmp_path / "first.csv", tmp_path / "second.csv"
    networks = write_networks(folder, 3, families=["squeezenet", "mnasnet"])
    measure_to_csv(networks, folder, first, **QUICK)
    labels = read_labels(first)
    assert [label.file for label in labels] == [
        "squeezenet_00000.onnx", "mnasnet_00001.onnx", "squeezenet_00002.onnx",
    ]  # fmt: skip
    result = measure_again(first, folder, second, num=2, **QUICK)
    assert result.num_models == 2
    repeated = read_labels(second)
    assert {label.file for label in repeated} < {label.file for label in labels}
    assert result.mape == pytest.approx(expected_mape(labels, repeated))
    with pytest.raises(ValueError, match="'out_csv' to be another file"):
        measure_again(first, folder, first)
    text = first.read_text("utf-8")
    first.write_text(text.replace("mnasnet_00001.onnx", "../nets/mnasnet_00001.onnx"), "utf-8")
    with pytest.raises(ValueError, match=r"models inside 'folder' \(got '\.\./nets/mnasnet"):
        measure_again(first, folder, second)
    first.write_text(text, "utf-8")
    (folder / "mnasnet_00001.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 missing.*mnasnet_00001.onnx"):
        measure_again(first, folder, second, num=100)


def expected_mape(first: list[LatencyLabel], second: list[LatencyLabel]) -> float:
    reference = {label.file: label.latency_ms for label in first}
    return 100 * float(
        np.mean([abs(x.latency_ms - reference[x.file]) / reference[x.file] for x in second])
    )


def run_script(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    quick = ("--seconds", "0.002", "--passes", "1", "--no-progress")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *args, *quick])
    return runpy.run_path(str(SCRIPT))["main"]()


def test_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = ("--folder", str(tmp_path / "networks"))
    out, again = str(tmp_path / "labels.csv"), str(tmp_path / "again.csv")
    families = ("--families", "squeezenet")
    assert run_script(monkeypatch, *folder, "--num", "2", "-o", out, *families) == 0
    assert "squeezenet          2" in caplog.text
    assert run_script(monkeypatch, *folder, "--num", "1", "-o", again, "--repeat_of", out) == 0
    assert "1 networks measured again: MAPE" in caplog.text
    assert len(read_labels(again)) == 1
    with pytest.raises(SystemExit):
        run_script(monkeypatch, *folder, "--num", "1", "-o", again, "--repeat_of", out, *families)
