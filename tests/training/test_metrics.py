from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from narformer_pyg.training import acc_within, all_metrics, kendall_tau, mape, spearman

METRICS: list[Callable[..., float]] = [kendall_tau, spearman, mape, acc_within]


def naive_tau_b(p: np.ndarray, y: np.ndarray) -> float:
    score, untied_p, untied_y = 0, 0, 0
    for i, j in itertools.combinations(range(len(p)), 2):
        sign_p, sign_y = np.sign(p[i] - p[j]), np.sign(y[i] - y[j])
        score += sign_p * sign_y
        untied_p += sign_p != 0
        untied_y += sign_y != 0
    return score / math.sqrt(untied_p * untied_y)


def test_hand_values() -> None:
    prediction, target = [11.0, 19.0, 30.0, 50.0], [10.0, 20.0, 40.0, 50.0]
    # Relative errors: 10 %, 5 %, 25 %, 0 %.
    assert mape(prediction, target) == pytest.approx(10.0)
    assert acc_within(prediction, target) == 75.0
    assert acc_within(prediction, target, 0.05) == 50.0
    assert acc_within(prediction, target, 0.01) == 25.0
    assert kendall_tau(prediction, target) == 1.0
    # One of six pairs is in the wrong order: (5 - 1) / 6.
    assert kendall_tau([1, 2, 4, 3], [1, 2, 3, 4]) == pytest.approx(2 / 3)
    # Two ranks are off by one: 1 - 6 * 2 / (4 * 15).
    assert spearman([1, 2, 4, 3], [1, 2, 3, 4]) == pytest.approx(0.8)
    assert kendall_tau([3, 2, 1], [1, 2, 3]) == -1.0
    assert spearman([3, 2, 1], [1, 2, 3]) == -1.0


def test_relative_errors_of_negative_targets() -> None:
    assert mape([-11.0, 9.0], [-10.0, 10.0]) == pytest.approx(10.0)


@pytest.mark.parametrize("num_values", [2, 7, 40])
@pytest.mark.parametrize("num_levels", [3, 10, 1000])
def test_kendall_tau_equals_naive_tau_b(num_values: int, num_levels: int) -> None:
    rng = np.random.default_rng(num_values + num_levels)
    p, y = rng.integers(num_levels, size=(2, num_values)).astype(float)
    y[0], p[0] = -1.0, -1.0  # neither is constant
    assert kendall_tau(p, y) == pytest.approx(naive_tau_b(p, y), abs=1e-12)


def test_constant_values_have_no_order() -> None:
    for metric in (kendall_tau, spearman):
        assert math.isnan(metric([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
        assert math.isnan(metric([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))


def test_all_metrics() -> None:
    prediction, target = torch.tensor([11.0, 19.5, 42.0, 30.0]), torch.tensor([10.0, 20, 40, 50])
    result = all_metrics(prediction, target)
    assert list(result) == ["kendall_tau", "spearman", "mape", "acc_10", "acc_5", "acc_1"]
    assert result["kendall_tau"] == kendall_tau(prediction, target)
    assert result["spearman"] == spearman(prediction, target)
    assert result["mape"] == mape(prediction, target)
    assert result["acc_10"] == acc_within(prediction, target, 0.10)
    assert result["acc_5"] == acc_within(prediction, target, 0.05) == 50.0
    assert result["acc_1"] == acc_within(prediction, target, 0.01) == 0.0
    assert all(isinstance(value, float) for value in result.values())


@pytest.mark.parametrize("metric", METRICS)
def test_tensors_arrays_and_lists_are_equal(metric: Callable[..., float]) -> None:
    prediction, target = [1.5, 2.0, 2.5, 9.0], [1.0, 2.0, 4.0, 3.0]
    expected = metric(prediction, target)
    assert metric(np.array(prediction), np.array(target)) == expected
    assert metric(torch.tensor(prediction, requires_grad=True), torch.tensor(target)) == expected
    assert metric(torch.tensor(prediction)[:, None], torch.tensor(target)[:, None]) == expected


@pytest.mark.parametrize("metric", [*METRICS, all_metrics])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(metric: Callable[..., float], value: float) -> None:
    good, bad = [1.0, 2.0, 3.0], [1.0, value, 3.0]
    with pytest.raises(ValueError, match=rf"'target' to be finite \(got {value} at position 1\)"):
        metric(good, bad)
    with pytest.raises(ValueError, match=rf"'prediction' .* \(got {value} at position 1\)"):
        metric(bad, good)


@pytest.mark.parametrize("metric", [*METRICS, all_metrics])
def test_shapes(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"same shape \(got \[3\] and \[2\]\)"):
        metric([1.0, 2.0, 3.0], [1.0, 2.0])
    # Broadcasting would make a matrix of errors.
    with pytest.raises(ValueError, match=r"same shape \(got \[3, 1\] and \[3\]\)"):
        metric(torch.ones(3, 1), torch.ones(3))
    with pytest.raises(ValueError, match=r"at least 2 values \(got 1\)"):
        metric([1.0], [1.0])


@pytest.mark.parametrize("metric", [mape, acc_within, all_metrics])
def test_zero_target(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"'target' to hold no zero.*\(got 0\)"):
        metric([1.0, 2.0, 3.0], [1.0, 0.0, 3.0])
