"""The plain modules are the reference: every kernel equals them, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from dense_reference import randomize
from torch import Tensor

from narformer_pyg.nn import (
    GraphAidedAttentionConv,
    GroupedFeedForward,
    Linear,
    NARFormerV2Block,
    kernels,
)
from narformer_pyg.nn.kernels import onednn
from narformer_pyg.nn.kernels.door import _KERNELS
from narformer_pyg.nn.models import NARFormerV2

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}
SYMMETRIC = torch.tensor([[0, 1, 1, 2, 4, 5, 0, 3], [1, 0, 2, 1, 5, 4, 3, 0]])
EDGES = {
    "symmetric": SYMMETRIC,
    "directed": torch.tensor([[0, 1, 2, 3, 5, 5, 4], [1, 2, 3, 1, 1, 0, 0]]),
    "duplicates and loops": torch.tensor([[0, 0, 0, 1, 2, 2, 3], [1, 1, 1, 0, 2, 2, 2]]),
    "none": torch.empty(2, 0, dtype=torch.long),
}
NUM_NODES = 40  # most are isolated


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that take over, also where products are small."""
    names: list[str] = []
    monkeypatch.setattr(onednn, "_MIN_MULTIPLICATIONS", 1)
    monkeypatch.setattr(onednn, "_MIN_WEIGHTS", 1)
    for cls, kernel in list(_KERNELS.items()):

        def run(*args: Any, kernel: kernels.door.Kernel = kernel) -> Tensor:
            names.append(kernel.name)
            return kernel.run(*args)

        # The same kernel object may be compared with, so only what is run is watched.
        watched = kernels.door.Kernel(kernel.name, kernel.accepts, run)
        monkeypatch.setitem(_KERNELS, cls, watched)
    return names


class Only(ExitStack):
    """Switches all kernels off but one; or none, for ``"all"``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        for other in kernels.NAMES:
            if name not in ("all", other):
                self.enter_context(kernels.enabled(False, other))


def run(module: torch.nn.Module, inputs: tuple[Tensor, ...], grad: bool) -> list[Tensor]:
    """Returns the output and, if wanted, the gradients of the input and of all parameters."""
    x = inputs[0].detach().clone().requires_grad_(grad)
    torch.manual_seed(3)
    with torch.set_grad_enabled(grad):
        out = module(x, *inputs[1:])
    if not grad:
        return [out]
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    wanted = [x, *module.parameters()]
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), wanted, allow_unused=True)]


def assert_same(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    scale = max([1.0, *(float(e.abs().max()) for e in expected if e is not None and e.numel())])
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if a is not None:
            torch.testing.assert_close(a, e, rtol=10 * tolerance, atol=2 * tolerance * scale)


def conv(edges: Tensor, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return GraphAidedAttentionConv(16, 24), (torch.randn(NUM_NODES, 16), edges)


def ffn(edges: Tensor, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return GroupedFeedForward(24, 2, 4, dropout=0.0), (torch.randn(NUM_NODES, 24),)


def lin(edges: Tensor, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return Linear(24, 16), (torch.randn(3, 5, 24),)


def block(edges: Tensor, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return NARFormerV2Block(16, 24, 2, dropout=0.0), (torch.randn(NUM_NODES, 16), edges)


def small_block(edges: Tensor, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return NARFormerV2Block(16, 24, 2, norm="layer"), (torch.randn(7, 16), edges)


def model(edges: Tensor, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return NARFormerV2(16, 24, 2, dropout=0.0), (torch.randn(NUM_NODES, 16), edges)


MODULES: list[Callable[..., Any]] = [conv, ffn, lin, block, small_block, model]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("graph", EDGES)
@pytest.mark.parametrize("name", ["all", *kernels.NAMES])
@pytest.mark.parametrize("build", MODULES)
def test_equals_the_plain_module(
    build: Callable[..., Any], name: str, graph: str, dtype: torch.dtype, calls: list[str]
) -> None:
    torch.manual_seed(0)
    module, inputs = build(EDGES[graph], dtype)
    randomize(module)
    module.to(dtype)
    inputs = (inputs[0].to(dtype), *inputs[1:])
    for training in (True, False):
        module.train(training and build is not small_block)
        for grad in (True, False):
            with kernels.enabled(False):
                expected = run(module, inputs, grad)
            assert not calls
            for _ in range(3):  # weights are packed from the second use on
                with Only(name):
                    assert_same(run(module, inputs, grad), expected, TOLERANCE[dtype])
            if name != "all":
                assert set(calls) <= {name}
            calls.clear()


def test_every_kernel_takes_over_somewhere(calls: list[str]) -> None:
    block = NARFormerV2Block(16, 16)
    block(torch.randn(NUM_NODES, 16), SYMMETRIC)
    block.eval()
    with torch.no_grad():
        block(torch.randn(7, 16), SYMMETRIC)
    expected = set(kernels.NAMES)
    if not onednn.is_exact():
        expected.remove("onednn_linear")
    assert set(calls) >= expected - {"onednn_linear"}


@pytest.mark.parametrize("act", ["gelu", "silu", torch.nn.Tanh()], ids=str)
def test_another_activation_is_one_argument(act: Any, calls: list[str]) -> None:
    torch.manual_seed(0)
    block = NARFormerV2Block(16, 24, 2, dropout=0.0, act=act)
    inputs = (torch.randn(7, 16), SYMMETRIC)
    out, *grads = run(block, inputs, True)
    run(block.eval(), inputs, False)
    assert "grouped_feed_forward" not in calls
    assert "small_graph" not in calls
    with kernels.enabled(False):
        assert_same([out, *grads], run(block, inputs, True), 1e-6)
    assert all(g is not None and g.isfinite().all() for g in grads)
    relu = NARFormerV2Block(16, 24, 2, dropout=0.0)
    relu.load_state_dict(block.state_dict())
    assert not torch.allclose(relu(*inputs), out)


class TestDoor:
    def test_subclasses_are_obeyed(self, calls: list[str]) -> None:
        class Doubled(GroupedFeedForward):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * super().forward(x)

        class Halved(GraphAidedAttentionConv):
            def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
                return 0.5 * alpha.unsqueeze(-1) * x_j

        x = torch.randn(7, 16)
        for training in (True, False):
            doubled, plain = Doubled(16, dropout=0.0), GroupedFeedForward(16, dropout=0.0)
            plain.load_state_dict(doubled.state_dict())
            doubled.train(training)
            torch.testing.assert_close(doubled(x), 2 * plain.train(training)(x))
        calls.clear()
        halved = Halved(16, 16, normalize=False, root_weight=False, bias=False)
        whole = GraphAidedAttentionConv(16, 16, normalize=False, root_weight=False, bias=False)
        whole.load_state_dict(halved.state_dict())
        torch.testing.assert_close(halved(x, SYMMETRIC), 0.5 * whole(x, SYMMETRIC))
        assert calls.count("graph_aided_attention") == 1

    @pytest.mark.parametrize("part", ["lin_1", "norm_1", "act", "dropout"])
    def test_hooks_of_parts_are_called(self, part: str, calls: list[str]) -> None:
        ffn, seen = GroupedFeedForward(16), []
        getattr(ffn, part).register_forward_hook(lambda *_: seen.append(part))
        ffn(torch.randn(7, 16))
        assert seen
        assert "grouped_feed_forward" not in calls

    def test_global_hooks_are_called(self) -> None:
        seen = []
        handle = torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_: seen.append(type(module).__name__)
        )
        with handle:
            GroupedFeedForward(16)(torch.randn(7, 16))
        assert {"GroupedLinear", "LayerNorm", "ReLU", "Dropout"} <= set(seen)

    def test_hooks_of_messages_are_called(self, calls: list[str]) -> None:
        conv, seen = GraphAidedAttentionConv(16, 16), []
        handle = conv.register_message_forward_hook(lambda *_: seen.append(1))
        conv(torch.randn(7, 16), SYMMETRIC)
        assert seen == [1]
        assert "graph_aided_attention" not in calls
        handle.remove()
        conv(torch.randn(7, 16), SYMMETRIC)
        assert "graph_aided_attention" in calls

    @pytest.mark.parametrize("kwargs", [{"aggr": "max"}, {"flow": "target_to_source"}])
    def test_other_aggregations_are_plain(self, kwargs: dict, calls: list[str]) -> None:
        GraphAidedAttentionConv(16, 16, **kwargs)(torch.randn(7, 16), SYMMETRIC)
        assert "graph_aided_attention" not in calls

    def test_function_transforms_are_plain(self, calls: list[str]) -> None:
        conv = GraphAidedAttentionConv(4, 4).double()
        parameters = dict(conv.named_parameters())
        x = torch.randn(7, 4, dtype=torch.double)

        def loss(parameters: Any, x: Tensor) -> Tensor:
            return torch.func.functional_call(conv, parameters, (x, SYMMETRIC)).square().sum()

        _, tangent = torch.func.jvp(lambda x: loss(parameters, x), (x,), (torch.ones_like(x),))
        gradient = torch.func.grad(loss, argnums=1)(parameters, x)
        assert not calls
        torch.testing.assert_close(tangent, gradient.sum())

    def test_second_derivatives(self) -> None:
        x = torch.randn(7, 16, requires_grad=True)
        for name, module, inputs in (
            ("graph_aided_attention", GraphAidedAttentionConv(16, 16), (x, SYMMETRIC)),
            ("grouped_feed_forward", GroupedFeedForward(16, dropout=0.0), (x,)),
        ):
            with pytest.raises(RuntimeError, match=rf"{name}.*kernels.enabled\(False\)"):
                torch.autograd.grad(module(*inputs).square().sum(), x, create_graph=True)
            with kernels.enabled(False):
                out = module(*inputs).square().sum()
            (gradient,) = torch.autograd.grad(out, x, create_graph=True)
            gradient.square().sum().backward()
            assert x.grad is not None
            assert x.grad.isfinite().all()

    def test_autocast(self) -> None:
        torch.manual_seed(0)
        block = NARFormerV2Block(16, 24, 2, dropout=0.0)
        inputs = (torch.randn(NUM_NODES, 16), SYMMETRIC)
        expected, *_ = run(block, inputs, True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, *grads = run(block, inputs, True)
        torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05)
        assert all(g.isfinite().all() for g in grads)

    def test_switch(self, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        ffn = GroupedFeedForward(16)
        with kernels.enabled(False):
            ffn(torch.randn(7, 16))
            with kernels.enabled(True):
                ffn(torch.randn(7, 16))
                assert calls == ["grouped_feed_forward"]
            ffn(torch.randn(7, 16))
        assert calls == ["grouped_feed_forward"]
        with pytest.raises(ValueError, match=r"'name' to be among .*got 'nothing'"):
            kernels.enabled(False, "nothing").__enter__()


def test_edges_are_sorted_again_when_they_change() -> None:
    conv, x = GraphAidedAttentionConv(4, 4), torch.randn(7, 4)
    edges = SYMMETRIC.clone()
    conv(x, edges)
    edges[0, 0] = 3
    with kernels.enabled(False):
        expected = conv(x, edges)
    torch.testing.assert_close(conv(x, edges), expected)
    with torch.inference_mode():
        conv(x, edges)
    conv(x, edges).sum().backward()


def test_packed_weights_follow_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_MIN_WEIGHTS", 1)
    lin, x = Linear(16, 16), torch.randn(4, 16)
    with torch.no_grad():
        for _ in range(3):
            before = lin(x)
        lin.weight.mul_(2.0)
        for _ in range(3):
            torch.testing.assert_close(lin(x) - lin.bias, 2 * (before - lin.bias))


def test_inputs_are_left_alone() -> None:
    for training in (True, False):
        for num_nodes in (7, NUM_NODES):
            block, x = NARFormerV2Block(16, 16).train(training), torch.randn(num_nodes, 16)
            before = x.clone()
            with torch.no_grad():
                block(x, SYMMETRIC)
            block(x, SYMMETRIC).sum().backward()
            assert torch.equal(x, before)


@pytest.mark.parametrize("num_rows", [1, 3, 100])
def test_feed_forward_dropout_has_one_mask(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.feed_forward, "CACHED_ELEMENTS", 32 * num_rows)
    ffn, x = GroupedFeedForward(16, 2, 4, dropout=0.2).double(), torch.randn(10, 16).double()

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return ffn(x)

    assert torch.autograd.gradcheck(seeded, x.requires_grad_())
