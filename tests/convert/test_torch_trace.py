from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from narformer_pyg.convert import convert_onnx, convert_torch, export_onnx, from_torch
from narformer_pyg.errors import ConversionError


class Function(nn.Module):
    """A module around a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


IMAGE, TOKENS, HEADS = (2, 8, 6, 6), (2, 5, 8), (2, 4, 5, 8)
#: Every rule that has a form of its own, beside the exporter's form of it.
OPERATORS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear of three dimensions": (nn.Linear(8, 4), TOKENS),
    "linear of two": (nn.Linear(8, 4), (3, 8)),
    "convolution": (nn.Conv2d(8, 8, 3, 2, 1, groups=2), IMAGE),
    "same padding": (nn.Conv2d(8, 8, 3, padding="same"), IMAGE),
    "transposed convolution": (nn.ConvTranspose2d(8, 4, 2, 2), IMAGE),
    "group norm": (nn.GroupNorm(2, 8), IMAGE),
    "instance norm": (nn.InstanceNorm2d(8), IMAGE),
    "layer norm": (nn.LayerNorm(8), TOKENS),
    "rms norm": (nn.RMSNorm(8), TOKENS),
    "gelu": (nn.GELU(), TOKENS),
    "silu": (nn.SiLU(), TOKENS),
    "glu": (nn.GLU(), TOKENS),
    "hardswish": (nn.Hardswish(), TOKENS),
    "relu6": (nn.ReLU6(), TOKENS),
    "softplus": (nn.Softplus(), TOKENS),
    "prelu": (nn.PReLU(), IMAGE),
    "softmax": (nn.Softmax(-1), TOKENS),
    "max pooling": (nn.MaxPool2d(3, 2, 1), IMAGE),
    "average pooling": (nn.AvgPool2d(2), IMAGE),
    "global pooling": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "bins": (nn.AdaptiveAvgPool2d(2), IMAGE),
    "pixel shuffle": (nn.PixelShuffle(2), IMAGE),
    "pixel unshuffle": (nn.PixelUnshuffle(2), IMAGE),
    "interpolation": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "padding": (lambda x: F.pad(x, (1, 1, 1, 1)), IMAGE),
    "lstm": (nn.LSTM(8, 4, batch_first=True), TOKENS),
    "gru": (nn.GRU(8, 4), TOKENS),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), HEADS),
    "causal attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), HEADS
    ),
    "product": (lambda x: x @ x.transpose(-1, -2), HEADS),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), TOKENS),
    "addmm": (lambda x: torch.addmm(x, x, x), (4, 4)),
    "mean": (lambda x: x.mean((2, 3)), IMAGE),
    "variance": (lambda x: x.var(-1), TOKENS),
    "norm": (lambda x: F.normalize(x, dim=-1), TOKENS),
    "top k": (lambda x: x.topk(2)[0], TOKENS),
    "maximum": (lambda x: x.max(1)[0], TOKENS),
    "element": (lambda x: x[:, 0], TOKENS),
    "slice": (lambda x: x[:, 1:3], TOKENS),
    "chunks": (lambda x: torch.cat(x.chunk(2, -1)[::-1], 1), TOKENS),
    "unbind": (lambda x: x.unbind(0)[0] + x.unbind(0)[1] * 2, TOKENS),
    "stack": (lambda x: torch.stack([x, x * 2]), TOKENS),
    "roll": (lambda x: torch.roll(x, (1, 2), (2, 3)), IMAGE),
    "repeat": (lambda x: x.repeat(1, 2, 1), TOKENS),
    "interleave": (lambda x: x.repeat_interleave(2, 1), TOKENS),
    "masked fill": (lambda x: x.masked_fill(x > 0, 1.0), TOKENS),
    "clamp": (lambda x: x.clamp(0, 1), TOKENS),
    "in place": (lambda x: x.mul(3).add_(1).mul_(2), TOKENS),
    "cast": (lambda x: x.half().float() + 1, TOKENS),
    "log1p": (lambda x: torch.log1p(x), TOKENS),
    "expm1": (lambda x: torch.expm1(x), TOKENS),
    "square": (lambda x: x.square(), TOKENS),
    "rsub": (lambda x: 1 - x, TOKENS),
    "rsqrt": (lambda x: torch.rsqrt(x), TOKENS),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_same_graph_as_the_exporter(name: str) -> None:
    function, shape = OPERATORS[name]
    module = function if isinstance(function, nn.Module) else Function(function)
    example = torch.randn(shape)
    exported = convert_onnx(export_onnx(module, example))
    traced = convert_torch(module, example, fold_batch_norm=True)
    assert traced.report.operators == exported.report.operators
    assert traced.report.flops == exported.report.flops
    assert traced.report.is_complete
    assert traced.data.op.tolist() == exported.data.op.tolist()
    assert torch.equal(traced.data.edge_index, exported.data.edge_index)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(144, 5),
    )  # fmt: skip


class TestModules:
    def test_batch_norm(self) -> None:
        module, example = network(), torch.empty(2, 3, 8, 8)
        kept = convert_torch(module, example)
        assert list(kept.report.operators) == [
            "Conv", "BatchNormalization", "Relu", "Flatten", "Gemm",
        ]  # fmt: skip
        assert kept.node_modules == ("", "0", "1", "2", "3", "4")
        folded = convert_torch(module, example, fold_batch_norm=True)
        assert list(folded.report.operators) == ["Conv", "Relu", "Flatten", "Gemm"]
        assert folded.data.attr[1].tolist()[5] == 1  # the bias that the norm adds
        assert folded.report.parameters == kept.report.parameters == 108 + 8 + 725
        assert folded.report.flops == kept.report.flops

    def test_what_exporters_leave_out(self) -> None:
        convolution = nn.Conv2d(3, 4, 3, padding=(0, 1))

        def function(x: Tensor) -> Tensor:
            y = convolution(F.pad(x, (1, 0, 1, 1)))
            return (0 + y * 1).relu() + y.relu() + F.pad(y, (1, 1), value=2.0)[..., 1:-1]

        module, example = Function(function), torch.empty(2, 3, 8, 8)
        eager = convert_torch(module, example).report.operators
        assert (eager["Pad"], eager["Relu"], eager["Add"], eager["Mul"]) == (2, 2, 3, 1)
        deployed = convert_torch(module, example, fold_batch_norm=True)
        assert deployed.report.operators == {"Add": 2, "Conv": 1, "Relu": 1, "Pad": 1, "Slice": 1}
        exported = convert_onnx(export_onnx(module, torch.randn(2, 3, 8, 8)))
        assert deployed.report.operators == exported.report.operators
        assert deployed.node_shapes[1] == (2, 4, 8, 9)

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_devices(self, device: str) -> None:
        expected = from_torch(network(), torch.empty(1, 3, 8, 8))
        data = from_torch(network().to(device), torch.empty(1, 3, 8, 8, device=device))
        for key in ("op", "attr", "edge_index", "static"):
            assert torch.equal(data[key], expected[key]), key

    def test_without_memory(self) -> None:
        with torch.device("meta"):
            module = nn.Sequential(nn.Linear(1 << 20, 1 << 20), nn.ReLU())  # 4 TB
        report = convert_torch(module, torch.empty(4, 1 << 20, device="meta")).report
        assert report.flops == 2 * 4 << 40
        assert report.parameters == (1 << 40) + (1 << 20)

    def test_weights_count_once(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tokens = nn.Embedding(50, 8)
                self.head = nn.Linear(8, 50, bias=False)
                self.head.weight = self.tokens.weight
                self.table = nn.Parameter(torch.randn(9, 2))  # gathered to 5 x 5 for each head

            def forward(self, x: Tensor) -> Tensor:
                place = torch.arange(5)[:, None] - torch.arange(5) + 4
                bias = self.table[place].permute(2, 0, 1)
                h = self.tokens(x)
                heads = h.view(-1, 5, 2, 4).transpose(1, 2)
                out = F.scaled_dot_product_attention(heads, heads, heads, bias)
                return self.head(out.transpose(1, 2).flatten(2))

        module = Tied()
        conversion = convert_torch(module, torch.zeros(3, 5, dtype=torch.long))
        assert conversion.report.parameters == 400 + 18
        assert any("18 parameters are folded" in note for note in conversion.report.notes)
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(3, 5, dtype=torch.long))
        assert conversion.report.flops == counter.get_total_flops()

    def test_products_of_constants(self) -> None:
        class Biased(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bias = nn.Linear(2, 8)

            def forward(self, x: Tensor) -> Tensor:
                return x @ x.mT + self.bias(torch.ones(5, 2)).sum(-1)

        module, example = Biased(), torch.randn(3, 5, 4)
        with FlopCounterMode(display=False) as counter:
            module(example)
        report = convert_torch(module, example).report
        assert report.flops == counter.get_total_flops() == 2 * 3 * 25 * 4 + 2 * 5 * 2 * 8
        assert report.flops_by_operator == {"MatMul": 600, "constants": 160}
        assert any("160 FLOPs are of constants" in note for note in report.notes)
        deployed = convert_torch(module, example, fold_batch_norm=True).report
        assert deployed.flops == 600

    def test_leaves_the_module_as_it_was(self) -> None:
        class Counts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("calls", torch.zeros(1))
                self.register_buffer("last", torch.ones(4))
                self.cache: dict[str, Tensor] = {}
                self.seen: Tensor | None = None

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                self.last[:2] = x[0, :2]
                self.last.mul_(2)
                self.seen = x
                return x * self.last

        module = Counts()
        report = convert_torch(module, torch.randn(3, 4)).report
        assert report.operators["ScatterND"] == 1
        assert report.operators["Mul"] == 2
        assert module.calls.item() == 0
        assert module.last.tolist() == [1, 1, 1, 1]
        assert module.seen is None
        assert module.training
        assert not module.last.is_meta

    def test_writes_reach_the_views(self) -> None:
        def function(x: Tensor) -> Tensor:
            y = x * 2
            row = y[0]
            row += 1
            return y.relu()

        data = convert_torch(Function(function), torch.randn(3, 4))
        names = [n for n, count in data.report.operators.items() for _ in range(count)]
        assert sorted(names) == ["Add", "Gather", "Mul", "Relu", "ScatterND"]
        assert data.data.edge_index.tolist()[1][-1] == data.data.num_nodes - 1

    def test_outputs_of_any_structure(self) -> None:
        class Cache:
            def __init__(self, x: Tensor) -> None:
                self.x = x.exp()

        module = Function(lambda x: {"logits": x.relu(), "more": [(x.sigmoid(),)], "c": Cache(x)})
        assert set(convert_torch(module, torch.randn(2, 2)).report.operators) == {
            "Relu", "Sigmoid",
        }  # fmt: skip

    def test_constants_are_folded(self) -> None:
        def function(x: Tensor) -> Tensor:
            frequencies = torch.outer(torch.arange(x.size(1)).float(), torch.rand(4))
            mask = torch.ones(x.size(1), x.size(1), device=x.device).tril() > 0
            if mask[0, 0]:  # a constant decides, not an input
                x = x + frequencies.cos()
            return x

        assert convert_torch(Function(function), torch.randn(2, 5, 4)).report.operators == {
            "Add": 1
        }

    def test_compiled(self) -> None:
        compiled = torch.compile(network())
        data = from_torch(compiled, torch.empty(1, 3, 8, 8))
        assert torch.equal(data.op, from_torch(network(), torch.empty(1, 3, 8, 8)).op)

    def test_autograd_function(self) -> None:
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return x * 2

        assert convert_torch(Function(Double.apply), torch.randn(2)).report.operators == {"Mul": 1}


class TestBadInput:
    def test_control_flow(self) -> None:
        def function(x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x * 2
            return x

        with pytest.raises(ConversionError, match=r"test_torch_trace.py, line \d+: if x.sum"):
            from_torch(Function(function), torch.randn(3))

    @pytest.mark.parametrize(
        "function", [lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: x * x.tolist()[0]]
    )
    def test_shapes_that_depend_on_values(self, function: Any) -> None:
        with pytest.raises(ConversionError, match="depend on shapes alone"):
            from_torch(Function(function), torch.randn(3))

    def test_shape_instead_of_a_tensor(self) -> None:
        with pytest.raises(ConversionError, match=r"got \(1, 3, 8, 8\)\); for a shape, pass torch"):
            from_torch(network(), (1, 3, 8, 8))

    def test_inputs_that_do_not_fit(self) -> None:
        with pytest.raises(ConversionError, match="Sequential to run with 'example_inputs'"):
            from_torch(network(), torch.empty(1, 4, 8, 8))

    def test_no_use_of_the_inputs(self) -> None:
        with pytest.raises(ConversionError, match="compute something from its inputs"):
            from_torch(Function(lambda x: torch.ones(3)), torch.randn(3))

    def test_operator_without_a_rule(self) -> None:
        conversion = convert_torch(Function(lambda x: torch.linalg.qr(x)[0] * 2), torch.randn(3, 3))
        assert conversion.report.unknown_operators == {"aten::linalg_qr": 1}
        assert len(conversion.report.uncounted) == 1
        assert not conversion.report.is_complete
        assert "linalg_qr" in conversion.report.notes[-1]
        assert conversion.data.op.tolist().count(1) == 1

    def test_unknown_convention(self) -> None:
        with pytest.raises(ValueError, match="'counting'"):
            from_torch(network(), torch.empty(1, 3, 8, 8), counting="other")
