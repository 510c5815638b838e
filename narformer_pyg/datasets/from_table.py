"""Own architectures of any kind with a table of labels."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg.datasets._grouped_splits import GroupedSplits
from narformer_pyg.datasets.split import Split, draw_split

log = logging.getLogger(__name__)

_NAME, _FAMILY = "architecture", "family"


class FromTable(GroupedSplits, InMemoryDataset):
    r"""Architectures of any kind as graphs, with the labels of a table.

    .. code-block:: python

        # A CSV file with the columns architecture, test_acc: cells as text
        dataset = FromTable("cells.csv")
        # ... or ONNX files, or names such as timm:resnet18; files are relative to the table
        dataset = FromTable("latencies.csv", target="latency_ms")
        # Anything else: torch modules with their example inputs, or graphs, by name
        dataset = FromTable(rows, {"small": (module, example), "large": data})
        split = dataset.get_split(train_size=40, val_size=5, seed=0)

    The table has a column :obj:`architecture` and a column of numbers for each label; an empty
    entry is a label that was not measured, NaN in :obj:`y` (float32, :obj:`[1, num_targets]`). A
    column :obj:`family` says what :meth:`leave_family_out` leaves out. Architectures that cannot be
    converted are left out, and :attr:`failures` says why.

    Args:
        table (str or os.PathLike or iterable of dict): A CSV file, or rows in memory.
        architectures (dict, optional): Name in the table to anything that
            :func:`~narformer_pyg.convert.to_data` takes. By default the names themselves are taken.
            (default: :obj:`None`)
        target (str or sequence of str, optional): The columns that become those of :obj:`y`, by
            default all but the name and the family. (default: :obj:`None`)
        conventions (dict, optional): Arguments of the conversion, such as :obj:`vocabulary`.
            (default: :obj:`None`)
        transform, pre_transform, pre_filter (callable, optional): As in
            :class:`~torch_geometric.data.InMemoryDataset`. (default: :obj:`None`)

    Raises:
        OSError: If the table cannot be read.
        ValueError: If a column is missing, an entry is no finite number, an architecture is named
            twice or not at all, or none can be converted; if graphs are of several kinds.
    """

    #: Why architectures are left out, by name.
    failures: dict[str, str]

    def __init__(
        self,
        table: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
        architectures: Mapping[str, Any] | None = None,
        *,
        target: str | Iterable[str] | None = None,
        conventions: Mapping[str, Any] | None = None,
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
    ) -> None:
        super().__init__(None, transform, pre_transform, pre_filter, log=False)
        rows, folder = _rows(table)
        self.target_names = _targets(rows, target)
        names = [str(row[_NAME]) for row in rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Expected every architecture once in 'table' (got {twice[:5]} twice)")
        self.failures = {}
        graphs, self._names, self._families = [], [], []
        for i, (name, row) in enumerate(zip(names, rows, strict=True), start=1):
            labels = [_number(row.get(key), key, i) for key in self.target_names]
            try:
                graph = _graph(name, architectures, folder, dict(conventions or {}))
            except (ValueError, OSError, ImportError) as error:
                self.failures[name] = str(error)
                log.warning("Left out %s: %s", name, error)
                continue
            graph.y = torch.tensor([labels])
            if self.pre_filter is not None and not self.pre_filter(graph):
                continue
            graphs.append(graph if self.pre_transform is None else self.pre_transform(graph))
            self._names.append(name)
            self._families.append(str(row.get(_FAMILY) or ""))
        if not graphs:
            reason = next(iter(self.failures.values()), "'pre_filter' kept none")
            raise ValueError(f"Expected an architecture of 'table' to be left (got none: {reason})")
        kinds = {tuple(sorted(graph.keys())) for graph in graphs}
        if len(kinds) > 1:
            raise ValueError(
                "Expected the architectures of 'table' to be graphs of one kind (got cells and "
                f"networks, or several spaces: {sorted(kinds)})"
            )
        self._data, self.slices = self.collate(graphs)

    @property
    def architectures(self) -> list[str]:
        """The name of each graph in the table."""
        return [self._names[i] for i in self.indices()]

    @property
    def families(self) -> list[str]:
        """The family of each graph; an empty text where the table names none."""
        return [self._families[i] for i in self.indices()]

    def labels(self, name: str) -> Tensor:
        """Returns one label of every graph: float32, NaN where it was not measured."""
        if name not in self.target_names:
            raise ValueError(
                f"Expected 'name' to be among {', '.join(self.target_names)} (got {name!r})"
            )
        y: Tensor = self._data.y
        return y[list(self.indices()), self.target_names.index(name)]

    def get_split(self, train_size: int, val_size: int = 0, seed: int = 0) -> Split:
        """Draws training and validation graphs among those with a label; the rest is for tests."""
        y: Tensor = self._data.y
        known = y[list(self.indices())].isfinite().any(1)
        return draw_split(known.nonzero().flatten(), train_size, val_size, seed)

    def _units(self) -> list[str]:
        return self.architectures

    def copy(self, idx: Any = None) -> FromTable:
        """Returns a copy of all graphs, or of those that an index selects."""
        out: FromTable = super().copy(idx)
        places = (self if idx is None else self.index_select(idx)).indices()
        out._names = [self._names[i] for i in places]
        out._families = [self._families[i] for i in places]
        return out


def _rows(table: Any) -> tuple[list[dict[str, Any]], Path | None]:
    """Returns the rows of a table, and the folder that its files are relative to."""
    folder = None
    if isinstance(table, (str, os.PathLike)):
        path = Path(table)
        folder = path.parent
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        rows = [dict(row) for row in table]
    if not rows:
        raise ValueError("Expected 'table' to have at least one row (got none)")
    for i, row in enumerate(rows, start=1):
        if not row.get(_NAME) or None in row:
            raise ValueError(
                f"Expected row {i} of 'table' to have an entry for each column and a column "
                f"{_NAME!r} (got {row})"
            )
    return rows, folder


def _targets(rows: list[dict[str, Any]], target: str | Iterable[str] | None) -> tuple[str, ...]:
    known = tuple(name for name in rows[0] if name not in (_NAME, _FAMILY))
    chosen = known if target is None else (target,) if isinstance(target, str) else tuple(target)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise ValueError(
            f"Expected 'target' to name columns of 'table' (got {list(chosen)}; it has "
            f"{', '.join(known) or 'no labels'})"
        )
    return chosen


def _number(value: Any, name: str, row: int) -> float:
    if value is None or str(value).strip() == "":
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise ValueError(
            f"Expected {name!r} in row {row} of 'table' to be a finite number, or empty where it "
            f"was not measured (got {value!r})"
        )
    return number


def _graph(
    name: str,
    architectures: Mapping[str, Any] | None,
    folder: Path | None,
    conventions: dict[str, Any],
) -> Data:
    from narformer_pyg.convert import to_data  # loads onnx for networks

    architecture: Any = name
    if architectures is not None:
        if name not in architectures:
            raise ValueError(f"Expected 'architectures' to have {name!r}, as 'table' does")
        architecture = architectures[name]
    elif name.lower().endswith(".onnx") and folder is not None:
        architecture = folder / name
    return to_data(architecture, **conventions).clone()
