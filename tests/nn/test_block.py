from __future__ import annotations

from typing import Any

import dense_reference
import pytest
import torch
import torch.nn.functional as F
from dense_reference import adjacency, ffn_weights, randomize
from torch import Tensor

from narformer_pyg.nn import NARFormerV2Block, SoftmaxAttentionConv
from narformer_pyg.testing import assert_all_parameters_receive_gradients

EDGES = torch.tensor([[0, 0, 1, 2, 3, 2, 4], [1, 2, 3, 3, 4, 0, 0]])


def released(block: NARFormerV2Block) -> dict[str, Tensor]:
    weights = {f"gnn_layers.0.{name}": w for name, w in block.conv.named_parameters()}
    weights.update({f"FFN_layers.0.norm.{name}": w for name, w in block.norm.named_parameters()})
    weights.update({f"FFN_layers.0.fn.{name}": w for name, w in ffn_weights(block.ffn).items()})
    weights["layer_scale.0"] = block.layer_scale
    return weights


class TestNARFormerV2Block:
    @pytest.mark.parametrize("in_channels", [5, 16])
    def test_reference(self, in_channels: int) -> None:
        block = NARFormerV2Block(in_channels, 16, dropout=0.5).double().eval()
        randomize(block)
        x = torch.randn(6, in_channels, dtype=torch.double, requires_grad=True)
        out = block(x, EDGES)
        adj = adjacency(EDGES, 6, torch.double)
        expected = dense_reference.block(released(block), 0, x, adj)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
        inputs, direction = [x, *block.parameters()], torch.randn_like(out)
        for actual, wanted in zip(
            torch.autograd.grad((out * direction).sum(), inputs),
            torch.autograd.grad((expected * direction).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-9)

    def test_all_parameters_receive_gradients(self) -> None:
        block = NARFormerV2Block(5, 16)
        out = block(torch.randn(6, 5), EDGES)
        assert_all_parameters_receive_gradients(block, (out * torch.randn_like(out)).sum())

    def test_layer_scale(self) -> None:
        block = NARFormerV2Block(5, 16)
        expected = torch.full((16,), 1e-4)
        assert torch.equal(block.layer_scale.detach(), expected)
        randomize(block)
        block.reset_parameters()
        assert torch.equal(block.layer_scale.detach(), expected)
        assert (block.norm.weight == 1).all()

    def test_dropout_after_attention(self) -> None:
        torch.manual_seed(0)
        block = NARFormerV2Block(5, 512, dropout=0.3)
        x = torch.randn(6, 5)
        alive = block.conv(x, EDGES) > 1e-3
        with torch.no_grad():
            block.layer_scale.zero_()
        out = block(x, EDGES)
        zeros = float((out[alive] == 0).float().mean())
        assert abs(zeros - 0.3) < 5 * (0.3 * 0.7 / int(alive.sum())) ** 0.5

    def test_layer_norm_after_the_attention(self) -> None:
        block = NARFormerV2Block(5, 16, norm="layer").double().eval()
        randomize(block)
        x = torch.randn(6, 5, dtype=torch.double)
        assert not block.conv.normalize
        z = block.conv(x, EDGES)
        norm = block.attention_norm
        h = F.layer_norm(z, (16,), norm.weight, norm.bias).relu()
        expected = h + block.layer_scale * block.ffn(block.norm(h))
        torch.testing.assert_close(block(x, EDGES), expected)

    def test_without_feed_forward_network_or_scale(self) -> None:
        x = torch.randn(6, 5)
        block = NARFormerV2Block(5, 16, ffn_ratio=0).eval()
        assert block.layer_scale is None
        torch.testing.assert_close(block(x, EDGES), block.conv(x, EDGES).relu())
        block = NARFormerV2Block(5, 16, layer_scale=None).eval()
        h = block.conv(x, EDGES).relu()
        torch.testing.assert_close(block(x, EDGES), h + block.ffn(block.norm(h)))

    def test_softmax_attention(self) -> None:
        block = NARFormerV2Block(5, 16, attention="softmax")
        assert isinstance(block.conv, SoftmaxAttentionConv)
        out = block(torch.randn(6, 5), EDGES)
        assert_all_parameters_receive_gradients(block, (out * torch.randn_like(out)).sum())

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"attention": "global_softmax"}, "'attention' to be among linear, softmax"),
            ({"layer_scale": float("nan")}, "'layer_scale' to be a number of at least 0 or None"),
            ({"norm": "batch"}, "'norm' to be 'unit' or 'layer'"),
        ],
    )
    def test_wrong_arguments(self, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            NARFormerV2Block(5, 16, **kwargs)

    def test_arguments_of_the_attention(self) -> None:
        block = NARFormerV2Block(5, 16, degree_gate=False, normalize=False)
        assert block.conv.lin_d is None
        assert not block.conv.normalize

    def test_repr(self) -> None:
        assert repr(NARFormerV2Block(5, 16)) == (
            "NARFormerV2Block(5, 16, ffn=GroupedFeedForward(16, ratio=4, num_groups=8))"
        )


def test_hooks_inside_the_attention_keep_what_they_saw() -> None:
    block = NARFormerV2Block(16, 16, num_groups=4, normalize=False, root_weight=False).eval()
    x, edge_index = torch.randn(9, 16), torch.randint(9, (2, 20))
    kept: list[torch.Tensor] = []
    block.conv.lin_l.register_forward_hook(lambda m, inputs, output: kept.append(output))
    with torch.no_grad():
        block(x, edge_index)
        torch.testing.assert_close(kept[0], block.conv(x, edge_index))
    assert bool((kept[0] < 0).any())


def test_global_hooks_keep_what_they_saw() -> None:
    block = NARFormerV2Block(16, 16, num_groups=4).eval()
    x, edge_index = torch.randn(9, 16), torch.randint(9, (2, 20))
    kept: dict[torch.nn.Module, torch.Tensor] = {}

    def keep(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        kept[module] = output

    with torch.no_grad():
        hook = torch.nn.modules.module.register_module_forward_hook(keep)
        try:
            block(x, edge_index)
        finally:
            hook.remove()
        torch.testing.assert_close(kept[block.conv], block.conv(x, edge_index))
