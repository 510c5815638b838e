"""Strictly increasing maps from predictions to labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

NUM_KNOTS = 13
_GRAPHS_PER_SEGMENT = 12
# Every slope is at least this share of the overall one, so that no order is lost.
_LEAST_SLOPE = 1e-2
# Larger errors count linearly: one failed architecture that the model did not foresee must not
# bend the map for all others.
_OUTLIER = 0.02


class MonotoneCalibration(torch.nn.Module):
    r"""One increasing, piecewise linear map per target; the identity until it is fitted.

    .. math::
        f(v) = s_0 v + \sum_{k=1}^{K} (s_k - s_{k-1}) \max(v - x_k, 0)

    Below the first knot :math:`x_1` a map is proportional; above the last one it keeps its slope.
    Knots and slopes are buffers, so the map moves, exports and is saved with its predictor.

    Args:
        num_targets (int): The number of targets :math:`T`.

    Shapes:
        - **input:** predictions :math:`(*, T)`
        - **output:** calibrated predictions :math:`(*, T)` of the same type
    """

    knots: Tensor
    slopes: Tensor

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        knots = torch.arange(1.0, NUM_KNOTS + 1).repeat(num_targets, 1)
        self.register_buffer("knots", knots)  # [num_targets, NUM_KNOTS]
        self.register_buffer("slopes", torch.ones(num_targets, NUM_KNOTS + 1))

    @classmethod
    def fit(cls, prediction: Tensor, target: Tensor) -> MonotoneCalibration:
        r"""Minimizes the errors of the logarithm, squared where small, absolute where large.

        A target with fewer than two different labels or predictions keeps the identity.

        Args:
            prediction (torch.Tensor): Positive predictions :math:`(n, T)`.
            target (torch.Tensor): Positive labels :math:`(n, T)`; NaN where not measured.
        """
        calibration = cls(target.size(1))
        p, t = (values.detach().cpu().double().numpy() for values in (prediction, target))
        for i in range(target.size(1)):
            known = np.isfinite(t[:, i])
            points = _fit_points(p[known, i], t[known, i])
            if points is not None:
                calibration._set_points(i, *points)
        return calibration

    def _set_points(self, target: int, x: np.ndarray, y: np.ndarray) -> None:
        """Makes the map of a target connect points; further knots lie on its continuation."""
        rest = NUM_KNOTS - len(x)
        further = x[-1] + np.arange(1, rest + 1) * (x[-1] - x[-2])
        slopes = np.diff(y, prepend=0.0) / np.diff(x, prepend=0.0)
        self.knots[target] = torch.from_numpy(np.append(x, further))
        self.slopes[target] = torch.from_numpy(np.append(slopes, slopes[-1:].repeat(rest + 1)))

    @property
    def is_fitted(self) -> bool:
        """Whether a map differs from the identity."""
        return bool((self.slopes != 1).any())

    def check(self) -> None:
        r"""Raises a :class:`ValueError` unless every map is increasing and keeps signs."""
        numbers = torch.cat([self.knots, self.slopes], dim=1)
        is_positive = (numbers > 0).all() and numbers.isfinite().all()
        if not bool(is_positive and (self.knots.diff() >= 0).all()):
            raise ValueError("Expected 'calibration' to have positive slopes and ascending knots")

    def forward(self, value: Tensor) -> Tensor:
        r"""Maps predictions."""
        v, knots, slopes = value.double(), self.knots.double(), self.slopes.double()
        beyond = (v.unsqueeze(-1) - knots).relu()  # [*, num_targets, NUM_KNOTS]
        return (slopes[:, 0] * v + (slopes.diff() * beyond).sum(dim=-1)).to(value.dtype)


def _fit_points(p: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the knots of a map from ``p`` to ``t`` and its values there, both ascending."""
    if len(p) == 0:
        return None
    num_segments = max(min(NUM_KNOTS - 1, len(p) // _GRAPHS_PER_SEGMENT), 1)
    quantiles = np.quantile(p, np.linspace(0, 1, num_segments + 1))
    x = np.unique(quantiles.astype(np.float32)).astype(np.float64)  # exact as buffers
    if len(x) < 2 or t.min() == t.max():
        return None
    from scipy.optimize import least_squares

    # The value at each knot is the first value plus the steps up to it.
    hats = np.stack([np.interp(p, x, unit) for unit in np.eye(len(x))], axis=1)
    steps = hats @ np.tril(np.ones((len(x), len(x))))
    least = np.diff(x, prepend=0.0) * _LEAST_SLOPE * (t.max() - t.min()) / (x[-1] - x[0])
    least[0] = t.min() * _LEAST_SLOPE
    start = np.diff(np.quantile(t, np.linspace(0, 1, len(x))), prepend=0.0)
    result = least_squares(
        lambda y: np.log(steps @ y / t),
        np.maximum(start, 2.0 * least),
        jac=lambda y: steps / (steps @ y)[:, None],
        bounds=(least, np.inf),
        x_scale="jac",
        loss="soft_l1",
        f_scale=_OUTLIER,
    )
    return x, np.cumsum(result.x)


def read_labels(graphs: Iterable[Data], num_targets: int) -> Tensor:
    """Returns the labels [n, T]; raises unless all are positive or NaN, and one is measured."""
    labels = []
    for i, data in enumerate(graphs):
        y: Any = data.y if "y" in data else None
        is_label = isinstance(y, Tensor) and y.shape == (1, num_targets)
        if not is_label or not bool((y.isnan() | (y.isfinite() & (y > 0))).all()):
            raise ValueError(
                "Expected every graph of 'graphs' to have positive labels 'y' (NaN where not "
                f"measured) of shape [1, {num_targets}] (got {y} in graph {i})"
            )
        labels.append(y)
    target = torch.cat(labels) if labels else torch.empty(0, num_targets)
    if bool(target.isnan().all()):
        raise ValueError(f"Expected 'graphs' to hold at least one label (got {len(labels)} graphs)")
    return target
