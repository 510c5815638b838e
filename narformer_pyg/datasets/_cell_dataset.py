"""The base class of datasets of cells: labels by name, cells, splits, subsets."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg._checks import check_integer
from narformer_pyg.datasets._processed import select_graphs
from narformer_pyg.datasets.split import Split, draw_split
from narformer_pyg.datasets.target import Target, select_targets


class CellDataset(InMemoryDataset):
    r"""Base class of datasets whose graphs are cells with a number each.

    Subclasses build their graphs with :meth:`_build` and keep the number of each graph's cell,
    which :meth:`_label_column` is indexed by, in :attr:`_cell_ids`.
    """

    #: The search space of the cells, as their graphs say it too.
    space: str
    #: All labels, by name.
    targets: dict[str, Target]
    #: The selected labels, the columns of :obj:`y`.
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
        """Returns a copy of all graphs, or of those that an index selects."""
        out = super().copy(idx)
        out._cell_ids = (self if idx is None else self.index_select(idx))._selected_cells()
        return out

    def labels(self, name: str) -> Tensor:
        """Returns one label of every graph, any of :attr:`targets`: float32, NaN where missing."""
        (name,) = select_targets([name], self.targets, argument="name")
        return self._label_column(name)[self._selected_cells()]

    def get_split(self, train_size: int, val_size: int = 0, seed: int = 0) -> Split:
        r"""Draws training and validation graphs; all other graphs are the test set.

        Papers test on all graphs, the training graphs included: :attr:`Split.all`. Graphs without
        any of the selected targets are in no set. The training graphs do not depend on
        :obj:`val_size`, and a smaller training set is the beginning of a larger one.

        Raises:
            ValueError: If a number is wrong, or there are too few graphs with labels.
        """
        names = self.target_names
        measured = [self.labels(name).isfinite() for name in names]
        known = torch.stack(measured).any(dim=0) if names else torch.ones(len(self)).bool()
        return draw_split(known.nonzero().flatten(), train_size, val_size, seed)

    def _cell_id(self, i: int) -> int:
        """Returns the number of graph :obj:`i`'s cell."""
        if check_integer("i", i, least=0) >= len(self):
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
        graphs, kept = select_graphs(self, (self.get(i) for i in range(num_cells)))
        self._data_list = None
        data, slices = self.collate(graphs)
        return data, slices, cell_ids[kept]
