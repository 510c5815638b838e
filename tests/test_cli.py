from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from latency_models import write_csv, write_models
from onnx import TensorProto, helper
from torch_geometric.data import Data

from narformer_pyg.cli import COMMANDS, main
from narformer_pyg.convert import from_onnx
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.threads import wait_passively


@pytest.fixture
def path(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "L"]),
            helper.make_tensor_value_info("factor", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_convert(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "folder" / "graph.pt"
    arguments = ["convert", str(path), "--input_shape", "x=2,3,5", "--input_value", "factor=0.5"]
    assert main([*arguments, "--vocabulary", "nnlqp", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "x [2, 3, 5]" in text
    assert "2 nodes, 1 edges" in text
    content = torch.load(out, weights_only=True)
    data = Data.from_dict(content["graph"])
    expected = from_onnx(
        path, input_shapes={"x": (2, 3, 5)}, input_values={"factor": 0.5}, vocabulary="nnlqp"
    )
    assert set(data.keys()) == set(expected.keys())
    assert all(torch.equal(data[k], v) for k, v in expected if isinstance(v, torch.Tensor))
    assert (data.vocabulary, data.counting) == ("nnlqp", "standard")
    assert content["node_names"] == ["x", "y"]
    assert content["report"]["vocabulary"] == "nnlqp"


def test_errors(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["convert", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("narformer convert: Expected every input of 'model.onnx'")
    assert main(["convert", str(path), "--input_shape", "x=2,3,5", "-o", str(tmp_path)]) == 1
    assert "'--output' to be a file" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "none.onnx")]) == 1
    assert "does not exist" in capsys.readouterr().err
    for arguments in (["--input_shape", "x"], ["--input_shape", "x=a"], ["--batch_size", "b"], []):
        with pytest.raises(SystemExit):
            main(["convert", *([str(path), *arguments] if arguments else [])])
    assert "expected NAME=D0,D1,... as in input=1,3,224,224 (got 'x=a')" in capsys.readouterr().err


def test_profile(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (path.parent / "broken.onnx").write_bytes(b"no model")
    labels = tmp_path / "labels.csv"
    arguments = ["profile", str(path.parent), "-o", str(labels), "--seconds", "0.01"]
    arguments += ["--passes", "1", "--no-progress", "--input_shape", "x=2,3,5"]
    assert main(arguments) == 1  # the other file is measured all the same
    header, *rows = labels.read_text("utf-8").splitlines()
    assert header.split(",")[0] == "file"
    assert [row.split(",")[0] for row in rows] == ["model.onnx"]


def test_search(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = tmp_path / "log.jsonl"
    arguments = ["search", "--method", "random", "--budget", "5", "--log", str(log)]
    assert main(arguments) == 0
    assert "|+|" in capsys.readouterr().out  # the cell that was found
    assert len(log.read_text("utf-8").splitlines()) >= 5
    assert main(["search", "--budget", "0"]) == 1
    assert "Expected" in capsys.readouterr().err


def test_train_and_predict(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    size = ["--epochs", "1", "--hidden_channels", "16", "--num_blocks", "1", "--device", "cpu"]
    out = str(tmp_path / "cells")
    assert main(["train", "--train_size", "20", *size, "--out", out]) == 0
    assert "Kendall's tau" in capsys.readouterr().out
    cell = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    assert main(["predict", cell, "--checkpoint", out]) == 0
    value = ArchitecturePredictor.from_pretrained(out).predict(cell).item()
    assert capsys.readouterr().out == f"{cell}: cifar10valid_valid_acc {value:.4g} percent\n"
    assert main(["predict", str(path), "--checkpoint", out]) == 1
    assert "narformer predict: " in capsys.readouterr().err

    lines = write_models(tmp_path / "models", 12)
    labels = write_csv(tmp_path / "labels.csv", lines)
    out = str(tmp_path / "networks")
    data = ["--models", str(tmp_path / "models"), "--labels", str(labels), "--num_workers", "0"]
    assert main(["train", "--dataset", "onnx_latency", *data, *size, "--out", out]) == 0
    capsys.readouterr()
    model = tmp_path / "models" / "pooled_2.onnx"
    assert main(["predict", str(model), "--checkpoint", out]) == 0
    value = ArchitecturePredictor.from_pretrained(out).predict(model).item()
    assert capsys.readouterr().out == f"{model}: latency_ms {value:.4g}\n"
    assert main(["predict", cell, "--checkpoint", out]) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "latency"], "'--recipe' to be among quick, best, paper for nasbench201"),
        (["--select", "best"], "'--val_size' to be positive with '--select best'"),
        (["--dataset", "onnx_latency", "--select", "best"], "'--val_share' to be positive"),
        (["--threads", "0"], "'--threads' to be a positive integer"),
        (["--devices", "2"], "'--out' to be given with '--devices'"),
        (["--device", "tpu"], "'device' to be 'auto', 'cpu'"),
        (["--resume"], "'--out' to name the folder of an interrupted run"),
        (["--target", "accuracy"], "'target' to be among"),
    ],
)
def test_train_errors(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    for flag in re.findall(r"^  (?:-\w [^,]+, )?(--\w+)(.*\n?.*)", text, re.MULTILINE):
        assert re.search(r"[a-z]{3}", flag[1]), flag


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_starts_without_torch(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from narformer_pyg.cli import main\n"
        "try:\n"
        f"    main({arguments})\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'torch_geometric', 'numpy', 'onnx', 'lightning'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


def test_waits_passively(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
