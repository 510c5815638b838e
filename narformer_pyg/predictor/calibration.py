"""A strictly increasing map from predictions to labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

# Slopes are at least this share of the overall one, so that no order is lost.
_LEAST_SLOPE = 1e-2
_GRAPHS_PER_SEGMENT = 12
# From this error on, errors count linearly: a failed architecture that was not foreseen must not
# bend the map for all others.
_OUTLIER = 0.02


@dataclass(frozen=True)
class MonotoneMap:
    r"""A piecewise linear map of positive numbers to positive numbers that keeps their order.

    Below the first knot it is proportional, above the last one it goes on as before.

    Args:
        x (tuple of float): The knots, ascending.
        y (tuple of float): The values there, ascending.

    Raises:
        ValueError: If there are fewer than two knots, or they are not positive and ascending.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            values = np.asarray(getattr(self, name), dtype=float)
            if len(values) < 2 or not (values > 0).all() or not (np.diff(values) > 0).all():
                raise ValueError(
                    f"Expected '{name}' to be at least two positive, ascending numbers "
                    f"(got {getattr(self, name)})"
                )
        if len(self.x) != len(self.y):
            raise ValueError(
                f"Expected as many 'y' as 'x' (got {len(self.y)} and {len(self.x)} numbers)"
            )

    @classmethod
    def fit(cls, prediction: Tensor, target: Tensor, num_segments: int = 12) -> MonotoneMap | None:
        r"""Minimizes the errors of the logarithm, squared where small, absolute where large.

        Args:
            prediction (torch.Tensor): Positive predictions :math:`(n)`.
            target (torch.Tensor): Positive targets :math:`(n)`.
            num_segments (int, optional): Pieces of the map, between quantiles of the predictions;
                fewer on few graphs. (default: :obj:`12`)

        Returns:
            MonotoneMap: The map; nothing if there are too few different predictions.
        """
        p, t = (values.detach().cpu().double().numpy() for values in (prediction, target))
        num_segments = max(min(num_segments, len(p) // _GRAPHS_PER_SEGMENT), 1)
        x = np.unique(np.quantile(p, np.linspace(0, 1, num_segments + 1)))
        if len(x) < 2 or t.min() == t.max():
            return None
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
        return cls(tuple(x.tolist()), tuple(np.cumsum(result.x).tolist()))

    def __call__(self, value: Tensor) -> Tensor:
        r"""Maps predictions of any shape."""
        x, y = (torch.tensor(knots, dtype=torch.double) for knots in (self.x, self.y))
        v = value.cpu().double()
        segment = (torch.searchsorted(x, v) - 1).clamp(0, len(x) - 2)
        slope = y.diff()[segment] / x.diff()[segment]
        out = torch.where(v < x[0], v * (y[0] / x[0]), y[segment] + (v - x[segment]) * slope)
        return out.to(value)

    def to_list(self) -> list[list[float]]:
        """Returns the knots as plain numbers."""
        return [list(self.x), list(self.y)]

    @classmethod
    def from_list(cls, knots: Sequence[Sequence[float]]) -> MonotoneMap:
        """Returns the map of :meth:`to_list`."""
        x, y = knots
        return cls(tuple(map(float, x)), tuple(map(float, y)))
