from __future__ import annotations

import numpy as np
import pytest
import torch

from narformer_pyg.predictor.calibration import MonotoneMap
from narformer_pyg.training import kendall_tau, mape


def distorted(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns predictions that spread out what lies close together, and their labels."""
    rng = np.random.default_rng(seed)
    target = 94.0 - rng.exponential(4.0, n).clip(max=80)
    prediction = 94.0 - 3.0 * (94.0 - target) ** 0.6 + rng.normal(0, 0.3, n)
    return torch.tensor(prediction, dtype=torch.float), torch.tensor(target, dtype=torch.float)


class TestMonotoneMap:
    def test_order_stays_and_errors_shrink(self) -> None:
        calibration = MonotoneMap.fit(*distorted(500))
        assert calibration is not None
        assert len(calibration.x) == 13
        prediction, target = distorted(2000, seed=1)
        out = calibration(prediction)
        assert out.dtype == torch.float
        assert mape(out, target) < 0.5 * mape(prediction, target)
        assert kendall_tau(out, target) == pytest.approx(kendall_tau(prediction, target), abs=1e-4)

    @pytest.mark.parametrize("n", [2, 11, 12, 30, 100])
    def test_few_graphs(self, n: int) -> None:
        prediction, target = distorted(n)
        calibration = MonotoneMap.fit(prediction, target)
        assert calibration is not None
        assert len(calibration.x) == max(min(n // 12, 12), 1) + 1
        wide = torch.linspace(0.01, 200.0, 4001, dtype=torch.double)
        out = calibration(wide)
        assert (out > 0).all()
        assert (out.diff() > 0).all()

    def test_exact_on_a_line(self) -> None:
        target = torch.linspace(1.0, 5.0, 50, dtype=torch.double)
        calibration = MonotoneMap.fit(2.0 * target + 3.0, target)
        assert calibration is not None
        torch.testing.assert_close(calibration(2.0 * target + 3.0), target, rtol=1e-5, atol=0)

    def test_contrary_labels_keep_the_order_of_predictions(self) -> None:
        prediction = torch.linspace(1.0, 2.0, 60)
        calibration = MonotoneMap.fit(prediction, 3.0 - prediction)
        assert calibration is not None
        assert (calibration(prediction).diff() > 0).all()

    def test_outside_of_the_knots(self) -> None:
        calibration = MonotoneMap((2.0, 4.0, 5.0), (1.0, 2.0, 5.0))
        value = torch.tensor([[1.0, 2.0], [3.0, 4.5], [5.0, 7.0]])
        expected = torch.tensor([[0.5, 1.0], [1.5, 3.5], [5.0, 11.0]])
        torch.testing.assert_close(calibration(value), expected)

    def test_nothing_to_fit(self) -> None:
        same, other = torch.full((40,), 2.0), torch.linspace(1.0, 2.0, 40)
        assert MonotoneMap.fit(same, other) is None
        assert MonotoneMap.fit(other, same) is None

    def test_round_trip(self) -> None:
        calibration = MonotoneMap.fit(*distorted(100))
        assert calibration is not None
        assert MonotoneMap.from_list(calibration.to_list()) == calibration

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            ((1.0,), (1.0,), "'x' to be at least two"),
            ((1.0, 1.0), (1.0, 2.0), "'x' to be at least two positive, ascending"),
            ((1.0, 2.0), (2.0, 1.0), "'y' to be at least two positive, ascending"),
            ((0.0, 2.0), (1.0, 2.0), "'x' to be"),
            ((1.0, 2.0), (1.0, 2.0, 3.0), "as many 'y' as 'x'"),
        ],
    )
    def test_wrong_knots(self, x: tuple, y: tuple, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            MonotoneMap(x, y)
