"""Plots of searches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from narformer_pyg._files import atomic_write
from narformer_pyg.search.evaluation import Evaluation

_COLORS = ("#1f5fa8", "#c1531b", "#3f7f3f", "#7a4a9e", "#555555")


def best_so_far(scores: Sequence[float], shown: Sequence[float]) -> np.ndarray:
    r"""Returns a value of the best architecture after each evaluation.

    Args:
        scores (sequence of float): The objective, larger is better; NaN for a failed evaluation.
        shown (sequence of float): The value to return of the best architecture, for instance its
            test accuracy.

    Returns:
        numpy.ndarray: float64, as long as :obj:`scores`; NaN before the first success.
    """
    out = np.full(len(scores), np.nan)
    best, current = -np.inf, np.nan
    for i, (score, value) in enumerate(zip(scores, shown, strict=True)):
        if score > best:
            best, current = score, value
        out[i] = current
    return out


def plot_progress(
    path: str | os.PathLike[str],
    curves: Mapping[str, np.ndarray],
    *,
    ylabel: str,
    title: str,
    optimum: float | None = None,
) -> None:
    r"""Draws the means over seeds of several searches, with bands from 10 % to 90 % of the seeds.

    Args:
        path (str or os.PathLike): The PNG file.
        curves (Mapping): Name to values :math:`(seeds, evaluations)`.
        ylabel (str): The label of the vertical axis.
        title (str): The title.
        optimum (float, optional): A value to draw as a horizontal line. (default: :obj:`None`)
    """
    with _axes(path) as axes:
        bottom = np.inf
        for (name, values), color in zip(curves.items(), _COLORS, strict=False):
            x = np.arange(1, values.shape[1] + 1)
            mean = values.mean(axis=0)
            low, high = np.quantile(values, [0.1, 0.9], axis=0)
            axes.plot(x, mean, color=color, linewidth=1.4, label=name)
            axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
            bottom = min(bottom, float(np.nanquantile(mean, 0.05)))
        top = max(float(np.nanmax(values)) for values in curves.values())
        if optimum is not None:
            axes.axhline(optimum, color="0.35", linewidth=0.8, linestyle="--", label="optimum")
            top = max(top, optimum)
        margin = 0.05 * (top - bottom) or 1.0
        axes.set(xscale="log", xlabel="evaluations", ylabel=ylabel, title=title)
        axes.set_ylim(bottom - margin, top + margin)


def plot_front(
    path: str | os.PathLike[str],
    history: Sequence[Evaluation],
    front: Sequence[Evaluation],
    *,
    x: str,
    y: str,
    xlabel: str,
    ylabel: str,
    title: str,
    true_front: np.ndarray | None = None,
    bottom: float | None = None,
) -> None:
    r"""Draws all evaluations of a search for two objectives, and their front.

    Args:
        path (str or os.PathLike): The PNG file.
        history (sequence of Evaluation): All evaluations.
        front (sequence of Evaluation): The evaluations on the front.
        x (str): The name of the value on the horizontal axis.
        y (str): The name of the value on the vertical axis.
        xlabel (str): The label of the horizontal axis.
        ylabel (str): The label of the vertical axis.
        title (str): The title.
        true_front (numpy.ndarray, optional): The points :math:`(n, 2)` of the front of the whole
            space, where it is known. (default: :obj:`None`)
        bottom (float, optional): The lower end of the vertical axis. (default: :obj:`None`)
    """
    points = np.array([[item.values[x], item.values[y]] for item in history if item.ok])
    found = np.array(sorted((item.values[x], item.values[y]) for item in front))
    with _axes(path) as axes:
        axes.scatter(*points.T, s=9, color="0.6", linewidths=0, label="evaluated")
        if true_front is not None:
            true = true_front[np.argsort(true_front[:, 0])]
            axes.plot(*true.T, color="#c1531b", linewidth=1.0, marker="o", markersize=5,
                      fillstyle="none", label="front of the whole space")  # fmt: skip
        axes.plot(*found.T, color="#1f5fa8", linewidth=1.2, marker=".", label="found")
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if bottom is not None:
            axes.set_ylim(bottom=bottom)


@contextmanager
def _axes(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yields axes to draw on and writes them to a file afterwards."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), constrained_layout=True)
    try:
        yield axes
        axes.legend(loc="lower right", frameon=False)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        plt.close(figure)
