"""Labels of training sets: their scale, and whether a training can use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

Graphs: TypeAlias = InMemoryDataset | Sequence[Data]


def label_scale(kind: str | Sequence[str], labels: Tensor) -> list[float]:
    """Returns the divisor of the labels of each target: 100 for percentages, else their mean.

    Accuracies become fractions, as in the paper, whose loss weights belong to that scale.

    Args:
        kind (str or sequence of str): :obj:`"accuracy"` or another kind of label, for all targets
            or for each.
        labels (torch.Tensor): The training labels :math:`(n)` or :math:`(n, T)`, NaN where a target
            was not measured.
    """
    labels = labels.view(len(labels), -1)
    kinds = [kind] * labels.size(1) if isinstance(kind, str) else list(kind)
    means = labels.double().nanmean(dim=0).tolist()
    return [100.0 if k == "accuracy" else mean for k, mean in zip(kinds, means, strict=True)]


def check_labels(argument: str, graphs: Graphs, num_targets: int) -> Tensor:
    """Returns the labels [n, num_targets] of all graphs: positive, or NaN where not measured.

    Raises:
        ValueError: If labels are missing, of another shape, infinite or not positive, or if no
            graph has a label of some target.
    """
    if len(graphs) == 0:
        raise ValueError(f"Expected '{argument}' to hold at least one graph (got none)")
    rows = []
    for i, data in enumerate(graphs):
        y = data.y if "y" in data else None
        if not isinstance(y, Tensor) or y.shape != (1, num_targets):
            got = f"shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"Expected every graph of '{argument}' to have labels 'y' of shape "
                f"[1, {num_targets}], one for each output of the model (got "
                f"{'no labels' if y is None else got} in graph {i})"
            )
        rows.append(y)
    labels = torch.cat(rows)
    wrong = (labels.isinf() | (labels <= 0)).any(dim=1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"Expected the labels 'y' of '{argument}' to be positive, since errors are relative, "
            f"or NaN where not measured (got {labels[first].tolist()} in graph {first}, and "
            f"{int(wrong.sum())} such graphs in total)"
        )
    empty = labels.isnan().all(dim=0)
    if empty.any():
        raise ValueError(
            f"Expected '{argument}' to have labels of every target (got none of target "
            f"{int(empty.nonzero()[0])}: all are NaN)"
        )
    return labels
