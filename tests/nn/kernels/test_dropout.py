from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from narformer_pyg.nn import Dropout
from narformer_pyg.nn.kernels.dropout import zeroed_positions


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    return Dropout(p).train(training)(x)


def dropped(shape: tuple[int, ...], p: float) -> Tensor:
    return (dropout(torch.ones(shape), p, training=True) == 0).double()


def assert_probability(zeros: Tensor, p: float, bound: float = 4.5) -> None:
    z = (float(zeros.mean()) - p) / math.sqrt(p * (1 - p) / zeros.numel())
    assert abs(z) < bound


class TestDropout:
    @pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.001])
    def test_rate(self, p: float) -> None:
        torch.manual_seed(0)
        zeros = dropped((4_000_000,), p)
        assert_probability(zeros, p)
        for part in zeros.chunk(4):
            assert_probability(part, p)
        for lane in range(4):
            assert_probability(zeros[lane::4], p)

    @pytest.mark.parametrize("lag", [1, 2, 3, 4, 8])
    def test_neighbours_are_independent(self, lag: int) -> None:
        torch.manual_seed(1)
        p = 0.25
        zeros = dropped((4_000_000,), p)
        a, b = zeros[:-lag], zeros[lag:]
        for lane in range(4):
            both = (a * b)[lane::4]
            assert_probability(both, p * p)

    def test_scale(self) -> None:
        torch.manual_seed(0)
        out = dropout(torch.full((1000,), 3.0), 0.25, training=True)
        torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4.0]))

    def test_mean_is_kept(self) -> None:
        torch.manual_seed(0)
        mean = float(dropout(torch.ones(1_000_000), 0.3, training=True).mean())
        assert abs(mean - 1) < 5 * math.sqrt(0.3 / 0.7 / 1_000_000)

    def test_seed(self) -> None:
        x = torch.randn(1001)
        torch.manual_seed(7)
        first = dropout(x, 0.5, training=True)
        second = dropout(x, 0.5, training=True)
        torch.manual_seed(7)
        assert torch.equal(dropout(x, 0.5, training=True), first)
        assert not torch.equal(first, second)

    def test_identity(self) -> None:
        x = torch.randn(10)
        assert dropout(x, 0.5, training=False) is x
        assert dropout(x, 0.0, training=True) is x

    @pytest.mark.parametrize("p", [0.5, 0.2])
    def test_gradient_has_the_same_mask(self, p: float) -> None:
        x = torch.ones(999, requires_grad=True)
        out = dropout(x, p, training=True)
        out.sum().backward()
        assert torch.equal(x.grad, out.detach())
        assert 0 < int((x.grad == 0).sum()) < 999

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("shape", [(), (1,), (3,), (7, 5), (2, 3, 5), (0,), (4, 0), (64, 64)])
    def test_types_and_sizes(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        x = torch.rand(shape).to(dtype) + 1
        for p in (0.5, 0.2):
            out = dropout(x, p, training=True)
            assert out.dtype == dtype
            assert out.shape == shape
            torch.testing.assert_close(out, torch.where(out == 0, 0, x * (1 / (1 - p))))

    @pytest.mark.parametrize("p", [0.25, 0.05, 0.01])
    def test_distances_are_geometric(self, p: float) -> None:
        torch.manual_seed(2)
        gaps = zeroed_positions(8_000_000, p).diff()
        assert int(gaps.min()) == 1
        for k in range(1, 8):
            assert_probability((gaps > k).double(), (1 - p) ** k)
        far = math.ceil(math.log(1e-3) / math.log1p(-p))
        assert_probability((gaps > far).double(), (1 - p) ** far)

    @pytest.mark.parametrize("numel", [0, 1, 2, 7, 100])
    def test_positions_of_few_elements(self, numel: int) -> None:
        torch.manual_seed(3)
        counts = torch.zeros(numel)
        for _ in range(2000):
            positions = zeroed_positions(numel, 0.2)
            assert bool((positions.diff() > 0).all())
            counts[positions] += 1
        if numel > 0:
            assert float(((counts / 2000 - 0.2) / math.sqrt(0.16 / 2000)).abs().max()) < 5

    def test_double_precision(self) -> None:
        torch.manual_seed(0)
        out = dropout(torch.ones(100, dtype=torch.double), 0.3, training=True)
        assert out.max().item() == pytest.approx(1 / 0.7, abs=1e-15)

    def test_non_contiguous(self) -> None:
        torch.manual_seed(0)
        x = (torch.rand(50, 40) + 1).t()
        before = x.clone()
        out = dropout(x, 0.2, training=True)
        torch.testing.assert_close(out, torch.where(out == 0, 0, x * 1.25))
        assert torch.equal(x, before)
        out = dropout(x, 0.5, training=True)
        assert torch.equal(out, torch.where(out == 0, torch.zeros_like(x), 2 * x))
        zeros = (out == 0).double()
        assert_probability(zeros, 0.5)
        assert_probability(zeros.mean(dim=0).sub(0.5).sign().add(1).div(2), 0.5)

    def test_twice_differentiable(self) -> None:
        x = torch.randn(6, 5, dtype=torch.double, requires_grad=True)

        def run(x: Tensor) -> Tensor:
            torch.manual_seed(4)
            return dropout(x.square(), 0.2, True)

        assert torch.autograd.gradcheck(run, x)
        assert torch.autograd.gradgradcheck(run, x)

    def test_everything_dropped(self) -> None:
        assert not dropout(torch.ones(100), 1.0, training=True).any()
