"""The way from a cell over its whole network to a graph of operators, and to a latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from narformer_pyg.convert import convert_onnx, export_onnx, from_onnx, from_torch
from narformer_pyg.spaces import DARTS_GENOTYPES, NASBench101Cell, NASBench201Cell

pytest.importorskip("onnxscript")

CELLS: dict[str, tuple[Any, dict[str, int]]] = {
    "nasbench101": (
        NASBench101Cell.from_str("conv3x3-bn-relu~0+maxpool3x3~0,1+conv1x1-bn-relu~2+output~0,2,3"),
        {"C": 4, "N": 1},
    ),
    "nasbench201": (
        NASBench201Cell.from_str(
            "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+"
            "|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
        ),
        {"C": 4, "N": 1},
    ),
    "darts": (DARTS_GENOTYPES["PDARTS"], {"C": 4, "layers": 3}),
}
# What their networks are made of at inference: normalisations are folded into convolutions.
CONVOLUTIONS = {
    # Stem; then in three stacks two convolutions and three projections of the module's input.
    "nasbench101": 1 + 3 * 5,
    # Stem; three convolutions in each of three cells; two blocks of three between the stages.
    "nasbench201": 1 + 3 * 3 + 2 * 3,
    # Stem; inputs of cells, 2 + 2 + 3, as the last cell follows a reduction; four for a separable
    # convolution, two for a dilated one, in a normal and two reduction cells.
    "darts": 1 + 7 + (4 * 4 + 2 * 2) + 2 * (2 * 4 + 4 * 2),
}
IMAGES = (1, 3, 32, 32)


@pytest.fixture(scope="module", params=list(CELLS))
def space(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(space: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as an ONNX file."""
    cell, arguments = CELLS[space]
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(space) / "model.onnx"
    onnx.save(export_onnx(trained(cell.to_module(**arguments)), torch.zeros(IMAGES)), path)
    return path


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """Gives normalisations statistics, for without any there is no bias to fold."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.running_mean)
    return module


def test_module_to_graph(space: str, model: Path) -> None:
    cell, arguments = CELLS[space]
    torch.manual_seed(0)
    module = trained(cell.to_module(**arguments))
    data = from_torch(module, torch.zeros(IMAGES), fold_batch_norm=True)
    from_file = from_onnx(model)
    for name in ("op", "attr", "edge_index"):
        assert torch.equal(data[name], from_file[name]), name
    # The file has fewer parameters: the exporter folds normalisations and merges equal weights.
    assert data.static[0, :2].tolist() == from_file.static[0, :2].tolist()
    assert data.static[0, 2] == sum(p.numel() for p in module.parameters())
    assert data.num_nodes > cell.to_data().num_nodes


def test_graph_of_the_file(space: str, model: Path) -> None:
    conversion = convert_onnx(model)
    assert conversion.report.operators["Conv"] == CONVOLUTIONS[space]
    # Batch size; parameters, of which folding has left out the normalisations'.
    cell, arguments = CELLS[space]
    parameters = sum(p.numel() for p in cell.to_module(**arguments).parameters())
    assert conversion.data.static[0, 0] == 1
    assert 0.5 * parameters < conversion.data.static[0, 2] <= parameters


def test_latency(space: str, model: Path) -> None:
    pytest.importorskip("onnxruntime")
    from narformer_pyg.profiling import measure_models

    measured = measure_models([model], passes=1, seconds=0.01, progress=False)
    assert measured.failures == {}
    (label,) = measured.labels
    assert 0 < label.latency_ms < 1000
    assert label.input_shapes.endswith(":1x3x32x32")


def test_the_file_computes_what_the_module_does(space: str, model: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    cell, arguments = CELLS[space]
    torch.manual_seed(0)
    module = trained(cell.to_module(**arguments)).eval()
    x = torch.randn(IMAGES)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), module(x), rtol=1e-4, atol=1e-5)


def test_none_has_no_parameters() -> None:
    cell = NASBench201Cell.from_str(
        "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
    )
    module = cell.to_module(C=4, N=1).eval()
    data = from_torch(module, torch.zeros(IMAGES))
    # A map of zeros, as a file could store it, would be 4,096 numbers more.
    assert float(data.static[0, 2]) == sum(p.numel() for p in module.parameters())
