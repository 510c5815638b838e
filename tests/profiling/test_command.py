from __future__ import annotations

import argparse
from pathlib import Path

import onnx
import pytest
from small_onnx import make_model

from narformer_pyg.profiling import read_labels
from narformer_pyg.profiling.command import add_arguments, run


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(args)


def test_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("onnxruntime")
    caplog.set_level("INFO")
    folder, out = tmp_path / "models", tmp_path / "labels.csv"
    folder.mkdir()
    onnx.save(make_model(batch="n"), folder / "open.onnx")
    quick = ("-o", str(out), "--seconds", "0.002", "--passes", "1", "--no-progress")
    assert run(parse(str(folder), *quick, "--input_shape", "x=7,8", "--threads", "2")) == 0
    (label,) = read_labels(out)
    assert (label.input_shapes, label.threads, label.passes) == ("x:7x8", 2, 1)
    assert f"Wrote 1 latencies (ms) to {out}" in caplog.text
    (folder / "broken.onnx").write_bytes(b"no model")
    assert run(parse(str(folder), *quick, "--input_shape", "x=7,8")) == 1
    assert "1 model(s) could not be measured:\n" in caplog.text
    assert caplog.messages[-1].startswith("  broken.onnx: ")


@pytest.mark.parametrize("text", ["x", "x=", "=1,2", "x=1,a", "x=0,1"])
def test_wrong_shapes(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("folder", "-o", "labels.csv", "--input_shape", text)
    expected = f"expected NAME=D0,D1,... as in input=1,3,224,224 (got {text!r})"
    assert expected in capsys.readouterr().err
