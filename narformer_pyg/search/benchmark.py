"""Evaluation by the table of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from narformer_pyg.datasets import NASBench201
from narformer_pyg.spaces import NASBench201Cell


class NASBench201Evaluation:
    r"""Looks up labels of NAS-Bench-201 cells: an :obj:`evaluate` that costs nothing.

    .. code-block:: python

        evaluate = NASBench201Evaluation(["cifar10valid_valid_acc", "latency_pixel3"])
        evaluate(NASBench201Cell.from_index(0))
        # {'cifar10valid_valid_acc': 84.70..., 'latency_pixel3': 5.07...}

    Args:
        targets (sequence of str): Names among :attr:`NASBench201.targets
            <narformer_pyg.datasets.NASBench201.targets>`. A label that the benchmark lacks is NaN,
            which searches record as a failed evaluation.

    Raises:
        TypeError: If :obj:`targets` is not a sequence of names.
        ValueError: If a name is unknown.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        dataset = NASBench201(target=targets)
        self._labels = {name: dataset.labels(name).tolist() for name in dataset.target_names}

    def __call__(self, cell: NASBench201Cell) -> dict[str, float]:
        """Returns the labels of a cell, in the units of the dataset."""
        return {name: values[cell.index] for name, values in self._labels.items()}
