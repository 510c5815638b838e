from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_reference import randomize
from torch import Tensor

from narformer_pyg.nn import GroupedFeedForward, fused_feed_forward, grouped_feed_forward
from narformer_pyg.nn.dropout import zeroed_positions


def learned(ffn: GroupedFeedForward) -> list[Tensor]:
    parts = (ffn.lin_1, ffn.norm_1, ffn.lin_2, ffn.norm_2)
    return [parameter for part in parts for parameter in part.parameters()]


def fused(ffn: GroupedFeedForward, x: Tensor, dropout: float, num_rows: int) -> Tensor:
    parts = (ffn.lin_1, ffn.norm_1, ffn.lin_2, ffn.norm_2)
    return fused_feed_forward.fused_feed_forward(x, *parts, dropout, num_rows)


def created(dropout: float = 0.0) -> GroupedFeedForward:
    torch.manual_seed(0)
    ffn = GroupedFeedForward(12, ratio=3, num_groups=4, dropout=dropout).double()
    randomize(ffn)
    return ffn


@pytest.mark.parametrize("num_rows", [1, 4, 7, 100])
def test_gradcheck(num_rows: int) -> None:
    ffn = created()
    ffn.norm_2.eps = 1e-3
    x = torch.randn(7, 12, dtype=torch.double, requires_grad=True)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:  # these are those of the module
        return fused(ffn, x, 0.0, num_rows)

    assert torch.autograd.gradcheck(run, [x, *learned(ffn)])


@pytest.mark.parametrize("num_rows", [3, 100])
def test_dropout_has_the_same_mask_in_both_directions(
    num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def positions(numel: int, p: float) -> Tensor:
        drawn.append(zeroed_positions(numel, p))
        return drawn[-1]

    monkeypatch.setattr(fused_feed_forward, "zeroed_positions", positions)
    ffn, p = created(), 0.2
    x = torch.randn(7, 12, dtype=torch.double, requires_grad=True)
    out = fused(ffn, x, p, num_rows)

    def drop(values: Tensor, zeroed: Tensor) -> Tensor:
        kept = torch.ones(values.numel(), dtype=torch.double)
        kept[zeroed] = 0.0
        return values * kept.view_as(values) / (1 - p)

    parts = []
    for i, rows in enumerate(x.split(num_rows)):
        groups = ffn.lin_1.forward_groups(rows.view(-1, 4, 3).transpose(0, 1))
        groups = drop(ffn.norm_1(groups).relu(), drawn[2 * i])
        groups = drop(ffn.norm_2(ffn.lin_2.forward_groups(groups)), drawn[2 * i + 1])
        parts.append(groups.transpose(0, 1).flatten(1))
    expected = torch.cat(parts)
    assert 0 < int((out == 0).sum()) < out.numel() / 2
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    grads = torch.autograd.grad(out, [x, *learned(ffn)], weight)
    torch.testing.assert_close(
        grads, torch.autograd.grad(expected, [x, *learned(ffn)], weight), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("num_groups", [1, 4])
def test_incoming_gradient_is_left_alone(num_groups: int) -> None:
    torch.manual_seed(0)
    ffn = GroupedFeedForward(12, num_groups=num_groups, dropout=0.2)
    out = ffn(torch.randn(7, 12, requires_grad=True))
    weight = torch.randn(7, 12)
    copy = weight.clone()
    grads = torch.autograd.grad(out, learned(ffn), weight, retain_graph=True)
    assert torch.equal(weight, copy)
    strided = copy.t().contiguous().t()
    torch.testing.assert_close(torch.autograd.grad(out, learned(ffn), strided), grads)


def test_is_not_differentiated_twice() -> None:
    ffn = created()
    x = torch.randn(5, 12, dtype=torch.double, requires_grad=True)
    (grad,) = torch.autograd.grad(ffn(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


class TestModule:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        calls: list[int] = []
        original = grouped_feed_forward.fused_feed_forward

        def spy(x: Tensor, *args: Any) -> Tensor:
            calls.append(x.size(0))
            return original(x, *args)

        monkeypatch.setattr(grouped_feed_forward, "fused_feed_forward", spy)
        return calls

    def test_equals_the_steps(self, calls: list[int]) -> None:
        ffn = created()
        x = torch.randn(12, 6, dtype=torch.double).t().requires_grad_()  # not contiguous
        out = ffn(x)
        assert calls == [6]
        ffn.lin_2.register_forward_hook(lambda module, inputs, output: None)
        expected = ffn(x)
        assert calls == [6]
        torch.testing.assert_close(out, expected)
        weight = torch.randn_like(out)
        inputs = [x, *learned(ffn)]
        grads = torch.autograd.grad(out, inputs, weight)
        torch.testing.assert_close(grads, torch.autograd.grad(expected, inputs, weight))

    def test_takes_the_steps_where_it_must(self, calls: list[int]) -> None:
        x = torch.randn(6, 12, dtype=torch.double)
        with torch.no_grad():
            created()(x)
        created(0.5)(x)
        created()(x[:0])
        ffn = created().float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ffn(x.float())
        ffn.norm_1 = torch.nn.LayerNorm(9, elementwise_affine=False)
        ffn(x.float())
        assert calls == []
        created(0.5).eval()(x)  # nothing is dropped
        assert calls == [6]

    def test_parts_of_frozen_networks(self, calls: list[int]) -> None:
        ffn = created()
        x = torch.randn(6, 12, dtype=torch.double)
        ffn.lin_1.weights.requires_grad_(False)
        ffn(x).square().sum().backward()
        assert calls == [6]
        assert ffn.lin_1.weights.grad is None
        assert ffn.lin_2.weights.grad is not None

    def test_memory_that_waits_for_the_backward_pass(self, calls: list[int]) -> None:
        held: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            held.append(tensor.numel())
            return tensor

        ffn = GroupedFeedForward(64, dropout=0.1)
        x = torch.randn(100, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ffn(x)
        # Input and output of the second map, the hidden features once, at most 15 % of both zeroed.
        assert calls == [100]
        hidden, outer = 100 * 256, 100 * 64
        parameters = sum(p.numel() for p in ffn.parameters())
        assert sum(held) < 1.15 * hidden + 2.5 * outer + parameters + 2 * 800
