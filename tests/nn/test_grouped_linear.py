from __future__ import annotations

import pytest
import torch
from dense_reference import randomize
from torch import Tensor

from narformer_pyg.nn import GroupedLinear


def block_diagonal(lin: GroupedLinear, x: Tensor) -> Tensor:
    out = x @ torch.block_diag(*lin.weights)
    return out if lin.bias is None else out + lin.bias.flatten()


class TestGroupedLinear:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(5, 12), (12,), (2, 3, 12), (0, 12)])
    def test_block_diagonal(self, shape: tuple[int, ...], bias: bool) -> None:
        lin = GroupedLinear(12, 20, num_groups=4, bias=bias).double()
        randomize(lin)
        x = torch.randn(*shape, dtype=torch.double, requires_grad=True)
        out, expected = lin(x), block_diagonal(lin, x)
        assert out.shape == (*shape[:-1], 20)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        inputs = [x, *lin.parameters()]
        direction = torch.randn_like(out)
        for actual, wanted in zip(
            torch.autograd.grad((out * direction).sum(), inputs),
            torch.autograd.grad((expected * direction).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)

    def test_non_contiguous(self) -> None:
        lin = GroupedLinear(6, 4, num_groups=2)
        x = torch.randn(6, 5).t()
        torch.testing.assert_close(lin(x), block_diagonal(lin, x))

    def test_initialization(self) -> None:
        lin = GroupedLinear(512, 2048)
        bound = (6 / (64 * 256 + 8 * 256)) ** 0.5  # fans of the whole tensor, 0.018
        assert lin.weights.shape == (8, 64, 256)
        assert lin.bias.shape == (8, 1, 256)
        assert 0.999 * bound < lin.weights.abs().max() <= bound
        assert not lin.bias.any()
        before = lin.weights.clone()
        lin.reset_parameters()
        assert not torch.equal(lin.weights, before)

    def test_repr(self) -> None:
        assert repr(GroupedLinear(16, 32)) == "GroupedLinear(16, 32, num_groups=8)"

    def test_wrong_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"divide 'in_channels' \(got 3 and 8\)"):
            GroupedLinear(8, 9, num_groups=3)
        with pytest.raises(ValueError, match=r"divide 'out_channels' \(got 3 and 8\)"):
            GroupedLinear(9, 8, num_groups=3)
        with pytest.raises(ValueError, match=r"'num_groups'.*got 0"):
            GroupedLinear(8, 8, num_groups=0)
        with pytest.raises(ValueError, match=r"'x' to be 8 \(got shape \[2, 16\]\)"):
            GroupedLinear(8, 8)(torch.randn(2, 16))
