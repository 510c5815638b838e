"""The standard convention against torch, which counts the modules that were exported."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import ResNet18, ints, model, node
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from narformer_pyg.convert import convert_onnx, convert_torch


class SmallCNN(nn.Module):
    """Strides, groups, dilation, a transposed convolution, a shortcut and two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.up = nn.ConvTranspose2d(32, 8, 2, stride=2, groups=2)
        self.slope = nn.PReLU(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        y = self.pointwise(self.depthwise(x)) + x
        x = torch.cat([x, nn.functional.gelu(y)], dim=1)
        return self.head(self.slope(self.up(x)).mean((2, 3)))


class SmallTransformer(nn.Module):
    """An embedding, attention and an einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.place = nn.Parameter(torch.zeros(1, 12, 32))
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.mix = nn.Parameter(torch.zeros(12, 12))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) + self.place
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        z = nn.functional.scaled_dot_product_attention(q, k, v)
        x = self.norm(x + self.out(z.transpose(1, 2).flatten(2)))
        return torch.einsum("bsd,st->btd", x, self.mix)


class OtherConvolutions(nn.Module):
    """One and three dimensions, and a linear layer that multiplies from the right."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(4, 8, 5)
        self.volume = nn.Conv3d(4, 2, 2, bias=False)
        self.linear = nn.Linear(23, 5, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        volume = self.volume(x.reshape(2, 4, 3, 3, 3))
        return self.linear(self.line(x)), nn.functional.silu(volume)


CASES = {
    "cnn": (SmallCNN, torch.randn(2, 3, 32, 32)),
    "transformer": (SmallTransformer, torch.randint(0, 50, (3, 12))),
    "convolutions": (OtherConvolutions, torch.randn(2, 4, 27)),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_counts_the_same(name: str) -> None:
    build, example = CASES[name]
    torch.manual_seed(0)
    module = build()
    for parameter in module.parameters():  # the exporter merges weights that are equal
        torch.nn.init.normal_(parameter)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module.eval()(example)
    report = convert_torch(module, example).report
    assert report.is_complete
    assert report.flops == counter.get_total_flops()
    assert report.parameters == sum(p.numel() for p in module.parameters())
    assert report.batch_size == example.size(0)


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent(op_type: str, gates: int, directions: int) -> None:
    hidden, size, length, batch = 5, 7, 11, 3
    weights = {
        "w": [directions, gates * hidden, size],
        "r": [directions, gates * hidden, hidden],
        "b": [directions, 2 * gates * hidden],
        "h": [directions, batch, hidden],
    }
    proto = model(
        [
            helper.make_node(
                op_type,
                ["x", "w", "r", "b", "", "h"],
                ["y"],
                hidden_size=hidden,
                direction="forward" if directions == 1 else "bidirectional",
            )
        ],
        {"x": [length, batch, size]},
        ["y"],
        weights,
    )
    conversion = convert_onnx(proto)
    macs = directions * length * batch * gates * hidden * (size + hidden)
    assert conversion.report.flops == 2 * macs
    cell = getattr(nn, op_type)(size, hidden, bidirectional=directions == 2)
    assert conversion.report.parameters == sum(p.numel() for p in cell.parameters())
    assert conversion.data.attr[1, :7].tolist() == [hidden, size, directions, length, 1, 0, 0]


def test_bytes_and_views() -> None:
    proto = model(
        [
            node("MatMul", "x w", "a"),
            node("Reshape", "a shape", "b"),
            node("Cast", "b", "c", to=TensorProto.FLOAT16),
        ],
        {"x": [4, 8]},
        ["c"],
        {"w": np.zeros((8, 16), np.float32), "shape": ints(2, 32)},
    )
    report = convert_onnx(proto).report
    product = 4 * (4 * 8 + 8 * 16 + 4 * 16)
    assert report.memory_access == product + (4 + 2) * 64


def test_gathered_rows() -> None:
    proto = model(
        [node("Gather", "table ids", "y")],
        {"ids": [3]},
        ["y"],
        {"table": np.zeros((1000, 8), np.float32)},
        dtype=TensorProto.INT64,
    )
    report = convert_onnx(proto).report
    assert report.memory_access == 2 * 3 * 8 * 4 + 3 * 8  # rows that are read and written, ids
    assert report.parameters == 8000


def test_shared_weights_count_once() -> None:
    proto = model(
        [node("MatMul", "x w", "a"), node("MatMul", "a w", "y")],
        {"x": [2, 8]},
        ["y"],
        {"w": [8, 8]},
    )
    assert convert_onnx(proto).report.parameters == 64


def quantised_convolution() -> onnx.ModelProto:
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    return model(
        [
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearConv", "q s z w s z s z b", "c"),
            node("DequantizeLinear", "c s z", "y"),
        ],
        {"x": [2, 3, 8, 8]},
        ["y"],
        {
            "s": scale, "z": zero,
            "w": np.zeros((4, 3, 3, 3), np.uint8), "b": np.zeros(4, np.int32),
        },
        opset=13,
    )  # fmt: skip


def test_quantised() -> None:
    conversion = convert_onnx(quantised_convolution())
    report = conversion.report
    assert report.is_complete
    assert report.flops == 2 * (2 * 4 * 6 * 6) * 27
    assert report.parameters == 4 * 27 + 4
    assert conversion.data.attr[2].tolist() == [3, 1, 0, 1, 1, 1, 0, 3, 2, 4, 6, 6]


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bij,bjk->bik", [[2, 3, 4], [2, 4, 5]], 2 * 3 * 4 * 5),
        ("ij,jk,kl->il", [[2, 3], [3, 4], [4, 5]], 2 * 3 * 4 + 2 * 4 * 5),
        ("...ij,...jk->...ik", [[2, 3, 4], [2, 4, 5]], 2 * 3 * 4 * 5),
        ("ii->i", [[3, 3]], 0),
    ],
)
def test_einsum(equation: str, shapes: list[list[int]], macs: int) -> None:
    names = "abc"[: len(shapes)]
    proto = model(
        [node("Einsum", " ".join(names), "y", equation=equation)],
        dict(zip(names, shapes, strict=True)),
        ["y"],
    )
    assert convert_onnx(proto).report.flops == 2 * macs


def test_attention_operator() -> None:
    shape = [2, 4, 10, 8]
    proto = model(
        [node("Attention", "q k v", "y")],
        {"q": shape, "k": [2, 4, 12, 8], "v": [2, 4, 12, 8]},
        ["y"],
        opset=23,
    )
    conversion = convert_onnx(proto)
    assert conversion.report.flops == 2 * (2 * 4 * 10 * 12 * (8 + 8))
    assert conversion.data.attr[-1, :8].tolist() == [4, 4, 8, 0, 10, 12, 0, 0]


def test_flops_by_operator() -> None:
    resnet = ResNet18(2)
    proto = resnet.build()
    fully_connected = 2 * 2 * 1000 * 512
    report = convert_onnx(proto).report
    assert report.flops_by_operator == {
        "Conv": 2 * resnet.macs - fully_connected,
        "Gemm": fully_connected,
    }
    report = convert_onnx(proto, counting="nnlqp").report
    assert list(report.flops_by_operator)[:2] == ["Conv", "BatchNormalization"]
    assert sum(report.flops_by_operator.values()) == report.flops == resnet.flops


def test_unknown_shapes_are_not_counted_as_zero() -> None:
    proto = model(
        [
            helper.make_node("Strange", ["x"], ["a"], domain="nobody.knows"),
            node("MatMul", "a w", "y"),
        ],
        {"x": [2, 8]},
        ["y"],
        {"w": [8, 8]},
        opset_imports=[helper.make_opsetid(d, 17) for d in ("", "nobody.knows")],
    )
    for counting in ("standard", "nnlqp"):
        report = convert_onnx(proto, counting=counting).report
        assert "MatMul 'y'" in report.uncounted
        assert not report.is_complete
