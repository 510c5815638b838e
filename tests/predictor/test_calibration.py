from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from narformer_pyg.predictor import MonotoneCalibration
from narformer_pyg.training import kendall_tau, mape


def distorted(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns predictions that spread out what lies close together, and their labels."""
    rng = np.random.default_rng(seed)
    target = 94.0 - rng.exponential(4.0, n).clip(max=80)
    prediction = 94.0 - 3.0 * (94.0 - target) ** 0.6 + rng.normal(0, 0.3, n)
    return tuple(torch.tensor(v, dtype=torch.float).unsqueeze(1) for v in (prediction, target))


def fitted(n: int = 500) -> MonotoneCalibration:
    return MonotoneCalibration.fit(*distorted(n))


class TestMonotoneCalibration:
    @pytest.mark.parametrize("dtype", [torch.float, torch.double])
    def test_identity(self, dtype: torch.dtype) -> None:
        calibration = MonotoneCalibration(2)
        value = torch.tensor([[1e-9, 0.3], [1.0, 12.3456789], [13.0, 1e20]], dtype=dtype)
        assert torch.equal(calibration(value), value)
        assert not calibration.is_fitted

    def test_order_stays_and_errors_shrink(self) -> None:
        calibration = fitted()
        assert calibration.is_fitted
        prediction, target = distorted(2000, seed=1)
        out = calibration(prediction)
        assert out.dtype == torch.float
        assert mape(out[:, 0], target[:, 0]) < 0.5 * mape(prediction[:, 0], target[:, 0])
        tau = kendall_tau(prediction[:, 0], target[:, 0])
        assert kendall_tau(out[:, 0], target[:, 0]) == pytest.approx(tau, abs=1e-4)

    @pytest.mark.parametrize("n", [2, 11, 12, 30, 100, 500])
    def test_increasing_and_positive(self, n: int) -> None:
        calibration = fitted(n)
        assert calibration.is_fitted
        calibration.check()
        out = calibration(torch.linspace(0.01, 200.0, 4001, dtype=torch.double).unsqueeze(1))
        assert (out > 0).all()
        assert (out.diff(dim=0) > 0).all()

    def test_lines(self) -> None:
        target = torch.linspace(1.0, 5.0, 60).unsqueeze(1)
        calibration = MonotoneCalibration.fit(2.0 * target + 3.0, target)
        torch.testing.assert_close(calibration(2.0 * target + 3.0), target, rtol=1e-5, atol=0)
        contrary = MonotoneCalibration.fit(target, 6.0 - target)  # keeps the order of predictions
        assert (contrary(target).diff(dim=0) > 0).all()

    def test_outside_of_the_knots(self) -> None:
        calibration = MonotoneCalibration(1)
        calibration._set_points(0, np.array([2.0, 4.0, 5.0]), np.array([1.0, 2.0, 5.0]))
        value = torch.tensor([1.0, 2.0, 3.0, 4.5, 5.0, 7.0, 100.0]).unsqueeze(1)
        expected = torch.tensor([0.5, 1.0, 1.5, 3.5, 5.0, 11.0, 290.0]).unsqueeze(1)
        torch.testing.assert_close(calibration(value), expected)

    def test_each_target_for_itself(self) -> None:
        prediction, target = distorted(300)
        same = torch.full_like(target, 2.0)
        nothing = torch.full_like(target, float("nan"))
        some = target.clone()
        some[100:] = float("nan")
        columns = torch.cat([target, same, nothing, some], dim=1)
        calibration = MonotoneCalibration.fit(prediction.expand(-1, 4), columns)
        out = calibration(prediction.expand(-1, 4))
        assert torch.equal(out[:, 1:3], prediction.expand(-1, 2))
        torch.testing.assert_close(out[:, :1], fitted(300)(prediction))
        few = MonotoneCalibration.fit(prediction[:100], target[:100])
        torch.testing.assert_close(out[:, 3:], few(prediction))

    def test_is_a_module(self) -> None:
        calibration, (prediction, _) = fitted(), distorted(50)
        other = MonotoneCalibration(1)
        other.load_state_dict(calibration.state_dict())
        dynamic = {"value": {0: torch.export.Dim("n", min=2)}}
        program = torch.export.export(calibration, (prediction[:7],), dynamic_shapes=dynamic)
        for same in (
            other,
            copy.deepcopy(calibration).double(),
            program.module(),
            torch.compile(calibration, fullgraph=True, backend="eager"),
        ):
            torch.testing.assert_close(same(prediction), calibration(prediction))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("knots", -1.0),
            ("knots", 99.0),
            ("knots", float("nan")),
            ("slopes", 0.0),
            ("slopes", float("inf")),
        ],
    )
    def test_check(self, name: str, value: float) -> None:
        calibration = MonotoneCalibration(2)
        getattr(calibration, name)[1, 3] = value
        with pytest.raises(ValueError, match="positive slopes and ascending knots"):
            calibration.check()
