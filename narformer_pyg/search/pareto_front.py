"""Pareto fronts and the volume that they dominate; larger is better throughout."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def non_dominated(scores: ArrayLike) -> list[int]:
    r"""Returns the points that no other point dominates, in ascending order.

    A point dominates another if it is at least as good everywhere and better somewhere. Of equal
    points the first one stays.
    """
    points = np.asarray(scores, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"Expected 'scores' to have shape [n, d] (got {list(points.shape)})")
    keep: list[int] = []
    # Best sum first: what dominates a point has a larger sum, so it is met before.
    for i in np.argsort(-points.sum(axis=1), kind="stable"):
        front = points[keep]
        if not (front >= points[i]).all(axis=1).any():
            keep.append(int(i))
    return sorted(keep)


def hypervolume(scores: ArrayLike, reference: ArrayLike) -> float:
    r"""Returns the volume that points dominate above a reference point.

    Exact, by slices along the last objective: :math:`O(n \log n)` for two objectives,
    :math:`O(n^{d-1} \log n)` for :math:`d`.

    Args:
        scores (array): :math:`(n, d)`, larger is better; points that are not above the reference
            everywhere add nothing.
        reference (array): :math:`(d)`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    points = np.asarray(scores, dtype=np.float64)
    origin = np.asarray(reference, dtype=np.float64)
    if points.ndim != 2 or origin.shape != points.shape[1:]:
        raise ValueError(
            "Expected 'scores' and 'reference' to have shapes [n, d] and [d] "
            f"(got {list(points.shape)} and {list(origin.shape)})"
        )
    points = points - origin
    return _volume(points[(points > 0).all(axis=1)])


def _volume(points: np.ndarray) -> float:
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    bounds = np.append(points[:, -1], 0.0)
    if points.shape[1] == 2:
        return float((np.maximum.accumulate(points[:, 0]) * -np.diff(bounds)).sum())
    heights = -np.diff(bounds)
    slices = (_volume(points[: i + 1, :-1]) * h for i, h in enumerate(heights) if h > 0)
    return float(sum(slices))
