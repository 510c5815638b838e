"""Processed files of datasets, and the selection of graphs."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import torch
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg._files import atomic_write


class ProcessedFile:
    """The part of PyG's datasets for graphs that are made of no raw files and cached in one."""

    _on_disk: bool

    @property
    def has_process(self) -> bool:
        """Whether processed graphs are kept in a folder."""
        return self._on_disk

    @property
    def raw_file_names(self) -> list[str]:
        """Empty: the dataset downloads nothing."""
        return []

    @property
    def processed_file_names(self) -> str:
        """The file with the processed graphs."""
        return "data.pt"


def select_graphs(dataset: InMemoryDataset, graphs: Iterable[Data]) -> tuple[list[Data], list[int]]:
    """Applies ``pre_filter`` and ``pre_transform``; returns the kept graphs and their places."""
    kept: dict[int, Data] = {}
    count = 0
    for count, graph in enumerate(graphs, start=1):
        if dataset.pre_filter is None or dataset.pre_filter(graph):
            transform = dataset.pre_transform
            kept[count - 1] = graph if transform is None else transform(graph)
    if not kept:
        raise ValueError(
            f"Expected 'pre_filter' to keep at least one graph (got none of {count}); it has to "
            "return True for a graph that stays"
        )
    return list(kept.values()), list(kept)


def save_processed(path: str, content: dict[str, Any]) -> None:
    """Writes a processed file, complete or not at all."""
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def load_processed(path: str, keys: Iterable[str]) -> dict[str, Any]:
    """Reads what :func:`save_processed` wrote.

    Raises:
        ValueError: If the file is damaged or lacks a key.
    """
    try:
        content = torch.load(path, weights_only=True)
        missing = set(keys) - content.keys()
        if missing:
            raise KeyError(*missing)
        return content
    except (
        AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"Cannot read the processed file in 'root' (got {path!r}, which is damaged or "
            f"foreign: {type(error).__name__}). Pass 'force_reload=True' to make it again; "
            "a 'pre_transform' may add tensors, numbers and strings only"
        ) from error
