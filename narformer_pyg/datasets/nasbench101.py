"""NAS-Bench-101 with the labels of the official file."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg.datasets._cell_dataset import CellDataset
from narformer_pyg.datasets._nasbench101_table import (
    TARGETS,
    CellTable,
    as_table,
    cache_path,
    read_official_file,
)
from narformer_pyg.datasets.target import select_targets
from narformer_pyg.spaces.nasbench101 import (
    NODE_TYPES,
    NASBench101Cell,
    NASBench101Data,
    unpack_codes,
)

log = logging.getLogger(__name__)

#: The official files, the smaller one first, and where to get them.
FILES = {
    "nasbench_only108.tfrecord": (
        "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord (499 MB)"
    ),
    "nasbench_full.tfrecord": (
        "https://storage.googleapis.com/nasbench/nasbench_full.tfrecord (1.95 GB)"
    ),
}


class NASBench101(CellDataset):
    r"""The 423,624 cells of `NAS-Bench-101 <https://arxiv.org/abs/1902.09635>`_ with labels.

    The labels come from a file of the benchmark, :obj:`nasbench_only108.tfrecord` (499 MB, networks
    trained for 108 epochs) or :obj:`nasbench_full.tfrecord` (1.95 GB, for 4, 12, 36 and 108
    epochs), without TensorFlow. Put it into :obj:`root/raw`, or pass :obj:`file`. Once read, the
    labels are in :obj:`root/processed` (some ten megabytes), and the file may be deleted.

    .. code-block:: python

        dataset = NASBench101("data", target="valid_acc_108")
        split = dataset.get_split(train_size=424, val_size=200, seed=0)
        train_dataset = dataset[split.train]

    Papers train on 100, 172, 424 and 4,236 cells (0.02, 0.04, 0.1 and 1 percent) and test on all.

    Each graph holds :obj:`op`, :obj:`position` and :obj:`edge_index` as
    :meth:`NASBench101Cell.to_data` describes them, and :obj:`y` (float32,
    :obj:`[1, num_targets]`). Accuracies are in percent and times in seconds, means of the
    benchmark's three runs; see :attr:`targets`. The graphs are in ascending order of the
    benchmark's hashes, so a split is the same for both files. Missing measurements are NaN.

    Args:
        root (str or os.PathLike): A folder for the official file and the processed labels.
        target (str or sequence of str, optional): The label or labels that become the columns of
            :obj:`y`, or :obj:`"all"` that the file has. (default: :obj:`"valid_acc_108"`)
        file (str or os.PathLike, optional): The official file, by default the smaller one in
            :obj:`root` that has the targets. (default: :obj:`None`)
        transform, pre_transform, pre_filter (callable, optional): As in
            :class:`~torch_geometric.data.InMemoryDataset`. (default: :obj:`None`)
        force_reload (bool, optional): Whether to read the official file again.
            (default: :obj:`False`)
        progress (bool, optional): Whether to show a progress bar while the official file is read,
            if there is a terminal. (default: :obj:`True`)

    Raises:
        FileNotFoundError: If there is neither an official file nor processed labels.
        TypeError: If :obj:`target` is not a name or a sequence of names.
        ValueError: If a target is unknown or not in the file, :obj:`pre_filter` drops every graph,
            or a file is damaged, of which nothing is kept.
    """

    space = NASBench101Data.space
    targets = TARGETS

    def __init__(
        self,
        root: str | os.PathLike[str],
        target: str | Sequence[str] = "valid_acc_108",
        file: str | os.PathLike[str] | None = None,
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
        progress: bool = True,
    ) -> None:
        names = select_targets(target, TARGETS)
        super().__init__(os.fspath(root), transform, pre_transform, pre_filter, log=False)
        # PyG has put the home folder in for '~'.
        path = Path(file) if file is not None else _find_file(self.root, names, target == "all")
        table = _load(self.root, path, force_reload, progress)
        self._set_table(table, target, os.fspath(path))

    @classmethod
    def from_arrays(
        cls,
        vertices: Any,
        edge_bits: Any,
        op_code: Any,
        labels: Mapping[str, Any] | None = None,
        target: str | Sequence[str] = "all",
        transform: Callable[[Data], Data] | None = None,
    ) -> NASBench101:
        r"""Makes a dataset of any cells in memory, the whole space in seconds and half a gigabyte.

        Args:
            vertices (array_like): The number of vertices of each cell: integers,
                :obj:`[num_cells]`.
            edge_bits (array_like): The edges of each cell, see :attr:`NASBench101Cell.code`.
            op_code (array_like): The operations of each cell, see :attr:`NASBench101Cell.code`.
            labels (Mapping, optional): Values of :obj:`[num_cells]` by their name in
                :attr:`targets`, NaN where there is none. (default: :obj:`None`)
            target (str or sequence of str, optional): The labels that become the columns of
                :obj:`y`. Without labels, graphs have no :obj:`y`. (default: :obj:`"all"`)
            transform (callable, optional): Applied to a graph at every access.
                (default: :obj:`None`)

        Raises:
            TypeError: If codes are not integers, or :obj:`target` is not a name or several.
            ValueError: If a row is not a cell, or a label is unknown or of another length.
        """
        table = as_table(vertices, edge_bits, op_code, labels)
        dataset = cls.__new__(cls)
        InMemoryDataset.__init__(dataset, None, transform)
        dataset._set_table(table, target, "the arrays")
        return dataset

    @property
    def num_node_types(self) -> int:
        """The number of values of :obj:`op`: 5."""
        return len(NODE_TYPES)

    def cell(self, i: int) -> NASBench101Cell:
        """Returns the cell of graph :obj:`i`, :obj:`0` to :obj:`len(dataset) - 1`."""
        row = self._cell_id(i)
        table = self._table
        return NASBench101Cell.from_code(
            int(table.vertices[row]), int(table.edge_bits[row]), int(table.op_code[row])
        )

    def _set_table(self, table: CellTable, target: str | Sequence[str], source: str) -> None:
        self._table = table
        self.targets = {name: known for name, known in TARGETS.items() if name in table.columns}
        self.target_names = select_targets(target, TARGETS)
        if target == "all":
            self.target_names = tuple(self.targets)
        missing = [name for name in self.target_names if name not in self.targets]
        if missing:
            raise ValueError(
                f"Expected 'target' to be among the labels of {source}, which are "
                f"{', '.join(self.targets) or 'none'} (got {missing[0]!r}); labels of 4, 12 and "
                "36 epochs are in 'nasbench_full.tfrecord'"
            )
        self._data, self.slices, self._cell_ids = self._build()

    def _label_column(self, name: str) -> Tensor:
        return torch.from_numpy(self._table.columns[name])

    def _collated_graphs(self) -> tuple[Data, dict[str, Tensor]]:
        table = self._table
        data, slices = collated_graphs(table.vertices, table.edge_bits, table.op_code)
        if self.target_names:
            data.y = torch.stack([self._label_column(name) for name in self.target_names], dim=1)
            slices["y"] = torch.arange(len(table.vertices) + 1)
        return data, slices


def collated_graphs(vertices: Any, edge_bits: Any, op_code: Any) -> tuple[Data, dict[str, Tensor]]:
    """Returns the graphs of codes as PyG's collate does, but without a loop over graphs."""
    cells = unpack_codes(vertices, edge_bits, op_code)
    # By graph, then by target, then by source: row-major order of the transposed matrices.
    graph, target, source = np.nonzero(cells.adjacency.transpose(0, 2, 1))
    num_edges = np.bincount(graph, minlength=len(cells.vertices))
    del graph
    is_vertex = cells.op >= 0
    position = np.broadcast_to(np.arange(is_vertex.shape[1]), is_vertex.shape)[is_vertex]
    data = NASBench101Data(
        op=torch.from_numpy(cells.op[is_vertex].astype(np.int64)),
        position=torch.from_numpy(position),
        edge_index=torch.from_numpy(np.stack([source, target])),
    )
    # What PyG's collate leaves behind: the total, and the list that splits it up again.
    data._store._num_nodes = cells.vertices.tolist()
    data.num_nodes = int(cells.vertices.sum())
    nodes = torch.from_numpy(np.concatenate([[0], np.cumsum(cells.vertices)]))
    edges = torch.from_numpy(np.concatenate([[0], np.cumsum(num_edges)]))
    return data, {"op": nodes, "position": nodes.clone(), "edge_index": edges}


def _find_file(root: str, names: Sequence[str], wants_all: bool) -> Path:
    """Returns the official file to use: one that is there, or was processed before."""
    only108 = all(name.endswith("_108") for name in names)
    # All labels are more in the full file, so that one is looked for first.
    candidates = list(FILES) if only108 else list(FILES)[::-1]
    for name in candidates if only108 or wants_all else candidates[:1]:
        path = Path(root) / "raw" / name
        if path.exists() or cache_path(root, path).exists():
            return path
    return Path(root) / "raw" / candidates[0]


def _load(root: str, path: Path, force_reload: bool, progress: bool) -> CellTable:
    cache = cache_path(root, path)
    if cache.exists() and not force_reload:
        table = CellTable.load(cache)
        if not path.exists() or path.stat().st_size == table.source_size:
            return table
        log.info("%s is not the file that %s was made from; reading it", path, cache)
    if not path.exists():
        folder = os.path.join(root, "raw")
        where = "\n".join(f"  {name}: {url}" for name, url in FILES.items())
        raise FileNotFoundError(
            f"Expected the benchmark's file to be in {folder!r} or to be named by 'file' (got "
            f"{os.fspath(path)!r}, which does not exist). Download one of\n{where}"
        )
    size = path.stat().st_size
    table = dataclasses.replace(read_official_file(path, progress), source_size=size)
    table.save(cache)
    log.info("Wrote the labels of %d cells to %s", len(table.vertices), cache)
    return table
