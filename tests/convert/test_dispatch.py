"""Every form of an architecture through one entrance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graphs import same_graph
from onnx_models import ResNet18

from narformer_pyg.convert import from_onnx, from_torch, to_data
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import DARTSGenotype, NASBench101Cell, NASBench201Cell


@pytest.mark.parametrize("cell_class", [NASBench101Cell, NASBench201Cell, DARTSGenotype])
def test_cells(cell_class: type) -> None:
    cell = cell_class.random(np.random.default_rng(0))
    graph = cell.to_data()
    assert to_data(graph) is graph
    for form in (cell, str(cell)):
        assert same_graph(to_data(form, vocabulary="nnlqp"), graph)


@pytest.mark.parametrize("conventions", [{}, {"vocabulary": "nnlqp", "counting": "nnlqp"}])
def test_onnx_models(tmp_path: Path, conventions: dict[str, str]) -> None:
    model = ResNet18().build()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    expected = from_onnx(model, **conventions)
    for form in (model, path, str(path)):
        assert same_graph(to_data(form, **conventions), expected)
    with pytest.raises(FileNotFoundError):
        to_data("nothing.onnx")


def test_torch_modules() -> None:
    pytest.importorskip("onnxscript")
    module, x = torch.nn.Conv2d(3, 4, 3), torch.zeros(2, 3, 8, 8)
    expected = from_torch(module, x, vocabulary="nnlqp")
    assert same_graph(to_data((module, x), vocabulary="nnlqp"), expected)
    assert same_graph(to_data((module, (x,)), vocabulary="nnlqp"), expected)
    with pytest.raises(ConversionError, match=r"pass \(module, example_inputs\)"):
        to_data(module)
