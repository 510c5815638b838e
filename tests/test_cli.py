from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch_geometric.data import Data

from narformer_pyg.cli import main
from narformer_pyg.convert import from_onnx


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
