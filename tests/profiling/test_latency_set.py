from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from narformer_pyg.profiling import (
    compare_labels,
    measure_again,
    profile_folder,
    read_labels,
    write_networks,
)

QUICK: dict[str, Any] = {"seconds": 0.002, "passes": 1, "progress": False}
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_latency_set.py"


def test_networks_are_the_same_every_time(tmp_path: Path) -> None:
    few = write_networks(tmp_path / "few", 3, seed=1)
    many = write_networks(tmp_path / "many", 13, seed=1)
    assert [path.stem for path in few] == ["alexnet_00000", "vgg_00001", "googlenet_00002"]
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


def test_set_and_repetition(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "nets", tmp_path / "first.csv", tmp_path / "second.csv"
    networks = write_networks(folder, 3, families=["squeezenet", "mnasnet"])
    labels = profile_folder(folder, first, networks, **QUICK).labels
    assert [label.file for label in labels] == [path.name for path in networks]
    result = measure_again(first, folder, second, num=2, **QUICK)
    repeated = read_labels(second)
    assert len(repeated) == 2
    assert result == compare_labels(labels, repeated)
    with pytest.raises(ValueError, match="'out_csv' to be another file"):
        measure_again(first, folder, first)
    text = first.read_text("utf-8")
    first.write_text(text.replace("mnasnet_00001.onnx", "../nets/mnasnet_00001.onnx"), "utf-8")
    with pytest.raises(ValueError, match=r"models inside 'folder' \(got '\.\./nets/mnasnet"):
        measure_again(first, folder, second)
    first.write_text(text, "utf-8")
    networks[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"got 1 of 3 that .*mnasnet_00001.onnx"):
        measure_again(first, folder, second, num=100)


def test_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(*args: str) -> int:
        quick = ["--folder", str(tmp_path), "--seconds=0.002", "--passes=1", "--no-progress"]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *args, *quick])
        return runpy.run_path(str(SCRIPT))["main"]()

    caplog.set_level("INFO")
    out, again = str(tmp_path / "labels.csv"), str(tmp_path / "again.csv")
    assert run("--num=2", "-o", out, "--families", "squeezenet") == 0
    assert "squeezenet          2" in caplog.text
    assert run("--num=1", "-o", again, "--repeat_of", out) == 0
    assert "1 networks measured again: MAPE" in caplog.text
    with pytest.raises(SystemExit):
        run("--num=1", "-o", again, "--repeat_of", out, "--families", "squeezenet")
