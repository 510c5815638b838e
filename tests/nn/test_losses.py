from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from narformer_pyg.nn import (
    LOSSES,
    ArchitectureConsistencyLoss,
    LogRatioLoss,
    PairwiseRankingLoss,
    RelativeMSELoss,
    SequenceRankingLoss,
)


def naive_pairwise(prediction: Tensor, target: Tensor, temperature: float) -> float:
    losses = []
    for t in range(prediction.size(1)):
        p, y = prediction[:, t].tolist(), target[:, t].tolist()
        losses += [
            math.log(1 + math.exp(-(p[i] - p[j]) / temperature))
            for i in range(len(p))
            for j in range(len(p))
            if y[i] > y[j]
        ]
    return sum(losses) / max(len(losses), 1)


def test_relative_mse() -> None:
    prediction = torch.tensor([[1.0], [3.0], [4.0]], requires_grad=True)
    loss = RelativeMSELoss()(prediction, torch.tensor([[2.0], [2.0], [4.0]]))
    assert loss.item() == pytest.approx((0.25 + 0.25 + 0.0) / 3)
    loss.backward()
    # 2 / 3 * (p / y - 1) / y
    torch.testing.assert_close(prediction.grad, torch.tensor([[-1 / 6], [1 / 6], [0.0]]))


class TestSequenceRanking:
    def test_seeded_permutation(self) -> None:
        prediction = torch.tensor([[0.5], [2.0], [-1.0], [4.0], [0.0]])
        target = torch.tensor([[1.0], [1.5], [0.0], [2.0], [7.0]])
        torch.manual_seed(5)
        pi = torch.randperm(5).tolist()
        assert pi != sorted(pi)
        p, y = prediction[:, 0].tolist(), target[:, 0].tolist()
        expected = sum(abs((p[i] - p[j]) - (y[i] - y[j])) for i, j in enumerate(pi)) / 5
        torch.manual_seed(5)
        assert SequenceRankingLoss()(prediction, target).item() == pytest.approx(expected)

    def test_a_new_permutation_each_call(self) -> None:
        torch.manual_seed(0)
        prediction, target = torch.randn(30, 1), torch.randn(30, 1)
        loss = SequenceRankingLoss()
        assert len({loss(prediction, target).item() for _ in range(5)}) == 5

    def test_a_constant_error_costs_nothing(self) -> None:
        target = torch.arange(8.0).view(8, 1)
        assert SequenceRankingLoss()(target + 3, target).item() == 0.0


def test_architecture_consistency() -> None:
    original = torch.tensor([[1.0], [2.0]], requires_grad=True)
    copy = torch.tensor([[1.5], [1.0]], requires_grad=True)
    loss = ArchitectureConsistencyLoss()(original, copy)
    assert loss.item() == pytest.approx(0.75)
    loss.backward()
    assert original.grad.tolist() == [[-0.5], [0.5]]
    assert copy.grad.tolist() == [[0.5], [-0.5]]


class TestPairwiseRanking:
    @pytest.mark.parametrize("temperature", [1.0, 0.05])
    def test_naive(self, temperature: float) -> None:
        generator = torch.Generator().manual_seed(0)
        prediction = torch.rand(12, 2, generator=generator)
        target = torch.randint(5, (12, 2), generator=generator).float()  # with ties
        loss = PairwiseRankingLoss(temperature)(prediction, target)
        assert loss.item() == pytest.approx(naive_pairwise(prediction, target, temperature), 1e-5)

    def test_ties_only(self) -> None:
        prediction = torch.randn(4, 1, requires_grad=True)
        loss = PairwiseRankingLoss()(prediction, torch.ones(4, 1))
        loss.backward()
        assert loss.item() == 0.0
        assert not prediction.grad.any()

    def test_gradient_orders(self) -> None:
        prediction = torch.zeros(2, 1, requires_grad=True)
        PairwiseRankingLoss()(prediction, torch.tensor([[1.0], [2.0]])).backward()
        torch.testing.assert_close(prediction.grad, torch.tensor([[0.5], [-0.5]]))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
    def test_temperature(self, temperature: float) -> None:
        with pytest.raises(
            ValueError, match=rf"'temperature' to be positive \(got {temperature}\)"
        ):
            PairwiseRankingLoss(temperature)


@pytest.mark.parametrize(
    "loss",
    [
        RelativeMSELoss(),
        SequenceRankingLoss(),
        ArchitectureConsistencyLoss(),
        PairwiseRankingLoss(),
    ],
)
def test_shapes_must_agree(loss: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"same shape \(got \[4, 1\] and \[4\]\)"):
        loss(torch.rand(4, 1), torch.rand(4))


class TestLogRatio:
    def test_is_a_huber_loss_of_the_log(self) -> None:
        prediction = torch.tensor([[2.0], [1.0], [1.05]])
        loss = LogRatioLoss(delta=0.1)(prediction, torch.tensor([[1.0], [2.0], [1.0]]))
        far, near = math.log(2) - 0.05, math.log(1.05) ** 2 / 0.2
        assert loss.item() == pytest.approx((2 * far + near) / 3, rel=1e-5)

    def test_prediction_of_zero_is_finite(self) -> None:
        prediction = torch.zeros(1, 1, requires_grad=True)
        loss = LogRatioLoss()(prediction, torch.ones(1, 1))
        loss.backward()
        assert loss.isfinite()
        assert prediction.grad is not None
        assert prediction.grad.isfinite().all()

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match=r"'delta' to be positive \(got 0\)"):
            LogRatioLoss(0)
        with pytest.raises(ValueError, match="same shape"):
            LogRatioLoss()(torch.ones(2, 1), torch.ones(2))


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if "consistency" not in name])
def test_missing_labels_are_left_out(name: str) -> None:
    loss = LOSSES.get(name)()
    prediction = torch.rand(6, 2, requires_grad=True)
    target = torch.rand(6, 2) + 0.1
    target[[1, 4, 5], 0] = math.nan
    target[:3, 1] = math.nan
    torch.manual_seed(0)
    value = loss(prediction, target)
    (grad,) = torch.autograd.grad(value, prediction)
    assert value > 0
    assert grad.isfinite().all()
    assert not grad[target.isnan()].any()
    other = torch.where(target.isnan(), 7.0, prediction)  # what is predicted there does not count
    torch.manual_seed(0)
    torch.testing.assert_close(loss(other, target), value)
    assert loss(prediction, torch.full_like(target, math.nan)) == 0
