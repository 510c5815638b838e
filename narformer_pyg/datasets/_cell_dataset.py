"""What the datasets of cells have in common: labels by name, cells, splits, subsets."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg.datasets.split import Split, draw_split
from narformer_pyg.datasets.target import Target, select_targets


class CellDataset(InMemoryDataset):
    r"""Base class of datasets whose graphs are cells with a number each.

    Subclasses build their graphs with :meth:`_build` and keep the number of each graph's cell,
    which :meth:`_label_column` is indexed by, in :attr:`_cell_ids`.
    """

    #: The labels there are, by name.
    targets: dict[str, Target]
    #: The selected ones, the columns of :obj:`y`.
    target_names: tuple[str, ...]
    slices: dict[str, Tensor] | None
    _cell_ids: Tensor

    @abstractmethod
    def _label_column(self, name: str) -> Tensor:
        """Returns a label of every cell, by its number: float32."""

    @abstractmethod
    def _collated_graphs(self) -> tuple[Data, dict[str, Tensor]]:
        """Returns the graphs of all cells behind one another, and where each begins."""

    def copy(self, idx: Any = None) -> Any:
        r"""Returns a copy of all graphs, or of some of them.

        Args:
            idx (slice, list, tuple, Tensor or numpy.ndarray, optional): The graphs to copy.
                (default: :obj:`None`)
        """
        out = super().copy(idx)
        out._cell_ids = (self if idx is None else self.index_select(idx))._selected_cells()
        return out

    def labels(self, name: str) -> Tensor:
        r"""Returns one label of every graph, selected as a target or not.

        Args:
            name (str): The name of the label, one of :attr:`targets`.

        Returns:
            Tensor: float32, :obj:`[len(dataset)]`, in the unit that :attr:`targets` says; NaN
            where there is no measurement.

        Raises:
            ValueError: If the name is unknown.
        """
        (name,) = select_targets([name], self.targets, argument="name")
        return self._label_column(name)[self._selected_cells()]

    def get_split(self, train_size: int, val_size: int = 0, seed: int = 0) -> Split:
        r"""Draws training and validation graphs; the test set is the whole dataset.

        As in the papers' protocol, all graphs are tested on, the training ones included;
        :attr:`Split.held_out` leaves those out. Graphs with a missing label among the selected
        targets are in no set. The training graphs do not depend on :obj:`val_size`, and a
        smaller training set is the beginning of a larger one.

        Args:
            train_size (int): The number of training graphs, at least 1.
            val_size (int, optional): The number of validation graphs, drawn from the rest.
                (default: :obj:`0`)
            seed (int, optional): The seed of the draw. (default: :obj:`0`)

        Raises:
            TypeError: If an argument is not an integer.
            ValueError: If there are too few graphs with labels, or a size is too small.
        """
        cells = self._selected_cells()
        finite = torch.ones(len(cells), dtype=torch.bool)
        for name in self.target_names:
            finite &= self._label_column(name)[cells].isfinite()
        return draw_split(finite.nonzero().flatten(), train_size, val_size, seed)

    def _cell_id(self, i: int) -> int:
        """Returns the number of the cell that graph :obj:`i` shows."""
        if isinstance(i, bool) or not isinstance(i, (int, np.integer)):
            raise TypeError(f"Expected 'i' to be an integer (got {type(i).__name__}: {i!r})")
        if not 0 <= i < len(self):
            raise ValueError(f"Expected 'i' to be between 0 and {len(self) - 1} (got {int(i)})")
        return int(self._cell_ids[self.indices()[i]])

    def _selected_cells(self) -> Tensor:
        return self._cell_ids[torch.as_tensor(self.indices(), dtype=torch.long)]

    def _build(self) -> tuple[Data, dict[str, Tensor] | None, Tensor]:
        """Returns graphs, slices and cell numbers after :obj:`pre_filter`, :obj:`pre_transform`."""
        data, slices = self._collated_graphs()
        num_cells = next(iter(slices.values())).numel() - 1
        cell_ids = torch.arange(num_cells)
        if self.pre_transform is None and self.pre_filter is None:
            return data, slices, cell_ids
        self._data, self.slices, self._data_list = data, slices, None
        graphs, kept = [], []
        for i in range(num_cells):
            graph = self.get(i)
            if self.pre_filter is None or self.pre_filter(graph):
                graphs.append(graph if self.pre_transform is None else self.pre_transform(graph))
                kept.append(i)
        if not graphs:
            raise ValueError(
                f"Expected 'pre_filter' to keep at least one graph (got none of {num_cells}); "
                "it has to return True for a graph that stays"
            )
        self._data_list = None
        data, slices = self.collate(graphs)
        return data, slices, cell_ids[kept]
