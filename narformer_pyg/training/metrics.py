"""Metrics of predictions against labels (supplement, equations 7 and 8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor


def kendall_tau(prediction: ArrayLike | Tensor, target: ArrayLike | Tensor) -> float:
    """Kendall's tau-b: how well the order is predicted, from -1 to 1; NaN if either is constant."""
    return float(stats.kendalltau(*_pair(prediction, target)).statistic)


def spearman(prediction: ArrayLike | Tensor, target: ArrayLike | Tensor) -> float:
    """Spearman's rank correlation, from -1 to 1; NaN if either is constant."""
    p, y = _pair(prediction, target)
    if np.ptp(p) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(p, y).statistic)


def mape(prediction: ArrayLike | Tensor, target: ArrayLike | Tensor) -> float:
    """Mean absolute percentage error, in percent (equation 7). Targets must not be zero."""
    return float(_relative_error(prediction, target).mean() * 100)


def acc_within(
    prediction: ArrayLike | Tensor, target: ArrayLike | Tensor, delta: float = 0.1
) -> float:
    r"""The share of predictions within a relative error, Acc(:math:`\delta`), in percent (eq. 8).

    Args:
        prediction: The predictions, :math:`(n)`.
        target: The labels, :math:`(n)`; none zero.
        delta (float, optional): The largest relative error that counts as right.
            (default: :obj:`0.1`)
    """
    return float((_relative_error(prediction, target) <= delta).mean() * 100)


def all_metrics(prediction: ArrayLike | Tensor, target: ArrayLike | Tensor) -> dict[str, float]:
    """Kendall's tau, Spearman's correlation, MAPE and Acc at 10 %, 5 % and 1 % by name."""
    return {
        "kendall_tau": kendall_tau(prediction, target),
        "spearman": spearman(prediction, target),
        "mape": mape(prediction, target),
        "acc_10": acc_within(prediction, target, 0.10),
        "acc_5": acc_within(prediction, target, 0.05),
        "acc_1": acc_within(prediction, target, 0.01),
    }


def _pair(prediction: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    p, y = (
        np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v, dtype=np.float64)
        for v in (prediction, target)
    )
    if p.shape != y.shape:
        raise ValueError(
            "Expected 'prediction' and 'target' to have the same shape "
            f"(got {list(p.shape)} and {list(y.shape)})"
        )
    p, y = p.ravel(), y.ravel()
    if p.size < 2:
        raise ValueError(f"Expected 'prediction' to hold at least 2 values (got {p.size})")
    for name, values in (("prediction", p), ("target", y)):
        if not np.isfinite(values).all():
            raise ValueError(
                f"Expected '{name}' to be finite (got {values[~np.isfinite(values)][0]} at "
                f"position {int(np.flatnonzero(~np.isfinite(values))[0])}); leave out graphs "
                "without a label"
            )
    return p, y


def _relative_error(prediction: Any, target: Any) -> np.ndarray:
    p, y = _pair(prediction, target)
    if (y == 0).any():
        raise ValueError("Expected 'target' to hold no zero, since errors are relative (got 0)")
    return np.abs(p - y) / np.abs(y)
