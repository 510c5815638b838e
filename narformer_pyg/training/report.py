"""Tables, CSV files of predictions, and plots."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch_geometric
from torch import Tensor

from narformer_pyg import __version__
from narformer_pyg._files import atomic_write

METRIC_NAMES = {
    "kendall_tau": ("Kendall's tau", "{:.4f}"),
    "spearman": ("Spearman", "{:.4f}"),
    "mape": ("MAPE (%)", "{:.2f}"),
    "acc_10": ("Acc(10 %) (%)", "{:.2f}"),
    "acc_5": ("Acc(5 %) (%)", "{:.2f}"),
    "acc_1": ("Acc(1 %) (%)", "{:.2f}"),
}


def environment() -> dict[str, Any]:
    """Returns the versions and the machine that numbers depend on."""
    return {
        "narformer_pyg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "processor": _processor(),
        "num_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def format_table(columns: Mapping[str, Mapping[str, float]], **more: str) -> str:
    r"""Lays metrics out as a table.

    Args:
        columns (dict): Heading to the result of :func:`~narformer_pyg.training.all_metrics`.
        **more (str): Further rows, which have one value each; underscores become spaces.
    """
    rows = [["", *columns]]
    for key, (name, pattern) in METRIC_NAMES.items():
        rows.append([name, *(pattern.format(metrics[key]) for metrics in columns.values())])
    rows += [[name.replace("_", " "), value] for name, value in more.items()]
    rows = [row + [""] * (len(columns) + 1 - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def format_means(
    rows: Sequence[tuple[str, str, Mapping[str, float]]], metrics: Sequence[str]
) -> str:
    r"""Lays out mean and standard deviation of runs, for each model and split.

    Args:
        rows (sequence of tuple): Model, split and metrics of each run; the runs of one model and
            split differ in the seed.
        metrics (sequence of str): The columns, keys of :obj:`METRIC_NAMES`.
    """
    splits = list(dict.fromkeys(split for _, split, _ in rows))
    titles = [METRIC_NAMES[key][0] for key in metrics]
    lines = [f"{'model':<16}{'split':<14}" + "".join(f"{title:>18}" for title in titles)]
    lines.append("-" * len(lines[0]))
    for model in dict.fromkeys(model for model, _, _ in rows):
        chosen = {s: [m for name, split, m in rows if (name, split) == (model, s)] for s in splits}
        if len(splits) > 1:
            chosen["mean"] = [
                {key: float(np.mean([m[key] for m in runs])) for key in metrics}
                for runs in chosen.values()
            ]
        for split, runs in chosen.items():
            cells = []
            for key in metrics:
                pattern, values = METRIC_NAMES[key][1], [m[key] for m in runs]
                text = pattern.format(np.mean(values))
                if len(values) > 1 and split != "mean":
                    text += f" ± {pattern.format(np.std(values, ddof=1))}"
                cells.append(f"{text:>18}")
            lines.append(f"{model:<16}{split:<14}{''.join(cells)}")
    return "\n".join(lines)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes readable JSON, numbers that are not finite as null; complete or absent."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def write_predictions(
    path: str | os.PathLike[str],
    names: Sequence[str],
    prediction: Tensor,
    target: Tensor,
    in_training: Tensor,
) -> None:
    r"""Writes one line per architecture: name, label, prediction, whether it was trained on.

    Args:
        path (str or os.PathLike): The CSV file.
        names (sequence of str): The architectures.
        prediction (torch.Tensor): Predictions :math:`(n)`.
        target (torch.Tensor): Labels :math:`(n)`.
        in_training (torch.Tensor): Booleans :math:`(n)`.
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["architecture", "label", "prediction", "in_training"])
        for name, y, p, known in zip(
            names, target.tolist(), prediction.tolist(), in_training.tolist(), strict=True
        ):
            writer.writerow([name, f"{y:.9g}", f"{p:.9g}", int(known)])


def plot_predictions(
    path: str | os.PathLike[str],
    prediction: Tensor,
    target: Tensor,
    *,
    label: str,
    unit: str,
    title: str,
    predicted_label: str | None = None,
    log: bool = False,
) -> None:
    r"""Draws predictions against labels.

    The axes show the range that holds 98 % of the labels, where most architectures are; how many
    points lie outside is written in the corner. Logarithmic axes show all.

    Args:
        path (str or os.PathLike): The PNG file.
        prediction (torch.Tensor): Predictions :math:`(n)`.
        target (torch.Tensor): Labels :math:`(n)`.
        label (str): What is predicted.
        unit (str): Its unit.
        title (str): The title.
        predicted_label (str, optional): What the model was trained on, if it is not
            :obj:`label`. (default: :obj:`None`)
        log (bool, optional): If set to :obj:`True`, the axes are logarithmic, for positive values
            of many sizes. (default: :obj:`False`)
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    p, y = prediction.numpy(), target.numpy()
    if log:
        low, high = min(p.min(), y.min()) / 1.2, max(p.max(), y.max()) * 1.2
    else:
        low, high = np.quantile(y, 0.01), np.quantile(y, 0.99)
        high = max(high, float(y.max()) if y.max() < high * 1.05 else high)
        margin = 0.04 * (high - low) or 1.0
        low, high = low - margin, high + margin
    outside = int(((y < low) | (y > high) | (p < low) | (p > high)).sum())

    figure, axes = plt.subplots(figsize=(5.6, 5.2), constrained_layout=True)
    size, alpha = (4, 0.25) if len(y) > 2000 else (14, 0.6)
    axes.scatter(y, p, s=size, alpha=alpha, linewidths=0, color="#1f5fa8", rasterized=True)
    if log:
        axes.set(xscale="log", yscale="log")
    axes.plot([low, high], [low, high], color="0.35", linewidth=0.9, label="prediction = label")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=title)
    axes.set_xlabel(f"{label}: measured ({unit})")
    axes.set_ylabel(f"{predicted_label or label}: predicted ({unit})")
    axes.legend(loc="upper left", frameon=False)
    if outside:
        axes.text(
            0.98, 0.02, f"{outside} of {len(y)} points outside the axes",
            transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color="0.35",
        )  # fmt: skip
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def plot_history(path: str | os.PathLike[str], history: Sequence[Mapping[str, float]]) -> None:
    """Draws the training loss and, where there is one, the validation tau over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), constrained_layout=True)
    epochs = [entry["epoch"] + 1 for entry in history]
    axes.plot(epochs, [entry["loss"] for entry in history], color="#1f5fa8", linewidth=1.0)
    axes.set(xlabel="epoch", yscale="log")
    axes.set_ylabel("training loss", color="#1f5fa8")
    validated = [entry for entry in history if "val_kendall_tau" in entry]
    if validated:
        twin = axes.twinx()
        twin.plot(
            [entry["epoch"] + 1 for entry in validated],
            [entry["val_kendall_tau"] for entry in validated],
            color="#c1531b",
            linewidth=1.0,
        )
        twin.set_ylabel("Kendall's tau, validation", color="#c1531b")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def _finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return f"{names[0]} ({len(names)} logical cores)"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
