from __future__ import annotations

import dense_reference
import torch
from dense_reference import ffn_weights, randomize

from narformer_pyg.nn import GroupedFeedForward
from narformer_pyg.testing import assert_all_parameters_receive_gradients


class TestGroupedFeedForward:
    def test_reference(self) -> None:
        ffn = GroupedFeedForward(24, ratio=3, num_groups=4, dropout=0.5).double().eval()
        randomize(ffn)
        weights = ffn_weights(ffn)
        assert weights["net.0.weights"].shape == (4, 6, 18)
        assert weights["net.3.normalization_fn.weight"].shape == (6,)
        x = torch.randn(7, 24, dtype=torch.double, requires_grad=True)
        out = ffn(x)
        expected = dense_reference.grouped_feed_forward(weights, x)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
        inputs, direction = [x, *ffn.parameters()], torch.randn_like(out)
        for actual, wanted in zip(
            torch.autograd.grad((out * direction).sum(), inputs),
            torch.autograd.grad((expected * direction).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)
        assert_all_parameters_receive_gradients(ffn, (ffn(x) * direction).sum())

    def test_leading_dimensions(self) -> None:
        ffn = GroupedFeedForward(16).eval()
        x = torch.randn(2, 3, 16)
        torch.testing.assert_close(ffn(x), ffn(x.view(6, 16)).view(2, 3, 16))

    def test_groups_do_not_mix(self) -> None:
        ffn = GroupedFeedForward(16, num_groups=4).eval()
        x = torch.randn(3, 16)
        changed = x.clone()
        changed[:, 4:8] += 1.0
        different = (ffn(x) != ffn(changed)).any(dim=0)
        assert different[4:8].all()
        assert not different[:4].any()
        assert not different[8:].any()

    def test_dropout(self) -> None:
        torch.manual_seed(0)
        ffn = GroupedFeedForward(64, dropout=0.25)
        out = ffn(torch.randn(2000, 64))
        zeros = float((out == 0).float().mean())  # the second dropout; nothing else gives zeros
        assert abs(zeros - 0.25) < 0.01
        # The first dropout changes what is not zero.
        expected = ffn.eval()(torch.ones(1, 64).expand(500, 64))
        ffn.train()
        kept = ffn(torch.ones(500, 64)) * 0.75
        alive = kept != 0
        assert (kept - expected).abs()[alive].mean() > 0.01

    def test_reset_parameters(self) -> None:
        ffn = GroupedFeedForward(16)
        randomize(ffn)
        ffn.reset_parameters()
        assert (ffn.norm_1.weight == 1).all()
        assert (ffn.norm_2.bias == 0).all()
        assert (ffn.lin_1.bias == 0).all()
        assert ffn.lin_2.weights.abs().max() <= (6 / (8 * 2 + 8 * 2)) ** 0.5

    def test_repr(self) -> None:
        assert repr(GroupedFeedForward(16)) == "GroupedFeedForward(16, ratio=4, num_groups=8)"
