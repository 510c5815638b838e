"""Architectures of any form, read as graphs of the conventions that a predictor was made for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch_geometric.data import Batch, Data, InMemoryDataset

from narformer_pyg.convert import to_data
from narformer_pyg.errors import ConversionError

#: Attributes of a graph, or of a dataset, that say how it was converted.
CONVENTIONS = ("space", "vocabulary", "counting")


def read_graphs(
    architectures: Any, tokens: Sequence[str], conventions: Mapping[str, str]
) -> tuple[InMemoryDataset | list[Data], bool]:
    """Returns graphs that hold what the model reads, and whether it was one architecture.

    A dataset stays as it is unless it has a transform.
    """
    if isinstance(architectures, InMemoryDataset):
        check_conventions(architectures, conventions)
        if architectures.transform is None:
            return architectures, False
    if isinstance(architectures, Batch):
        architectures = architectures.to_data_list()
    single = _is_single(architectures)
    listed = [architectures] if single else architectures
    return [_read(item, i, tokens, conventions) for i, item in enumerate(listed)], single


def _read(
    architecture: Any, position: int, tokens: Sequence[str], conventions: Mapping[str, str]
) -> Data:
    takes_networks = "vocabulary" in conventions
    if not takes_networks and _is_network(architecture):
        raise ConversionError(
            f"Expected architecture {position} to be a cell, since this predictor is of cells (got "
            f"{_shorten(architecture)}, a whole network); ONNX models and torch modules need a "
            "predictor with an OperatorTokenEncoder"
        )
    arguments = {name: conventions[name] for name in CONVENTIONS[1:] if name in conventions}
    try:
        data = to_data(architecture, **arguments)
    except ConversionError as error:
        raise ConversionError(f"{error} (architecture {position})") from error
    check_conventions(data, conventions, f" of architecture {position}")
    if takes_networks and "attr" not in data and not isinstance(architecture, Data):
        raise ConversionError(
            f"Expected architecture {position} to be a whole network, since this predictor is of "
            f"ONNX models (got {_shorten(architecture)}, a cell); its network is "
            "'(cell.to_module(), torch.randn(1, 3, 32, 32))'"
        )
    kept = {key: data[key] for key in tokens if key in data}
    edges = {"edge_index": data.edge_index} if "edge_index" in data else {}
    num_nodes = next((len(token) for token in kept.values()), data.num_nodes)
    return Data(**edges, **kept, num_nodes=num_nodes)


def check_conventions(
    graphs: Data | InMemoryDataset, conventions: Mapping[str, str], which: str = ""
) -> None:
    """Raises a :class:`ValueError` if graphs say that they were converted in another way."""
    store = graphs._data if isinstance(graphs, InMemoryDataset) else graphs
    for name in CONVENTIONS:
        theirs, mine = getattr(store, name, None), conventions.get(name)
        if name == "space" and mine is None:
            continue  # a predictor of any space
        for value in sorted(set(theirs if isinstance(theirs, list) else [theirs]) - {None, mine}):
            if mine is None:
                advice = "this predictor is of cells, not of ONNX models"
            elif name == "space":
                advice = "operations and positions mean something else in another space"
            else:
                advice = f"convert the models with {name}={mine!r}"
            raise ValueError(
                f"Expected '{name}'{which} to be that of the predictor, {mine!r} "
                f"(got {value!r}); {advice}"
            )


def _is_single(architectures: Any) -> bool:
    """Whether this is one architecture rather than several."""
    return (
        isinstance(architectures, (str, Data, torch.nn.Module))
        or hasattr(architectures, "to_data")
        or not isinstance(architectures, Iterable)
        or _is_pair(architectures)
    )


def _is_network(architecture: Any) -> bool:
    """Whether this is an ONNX model or a torch module."""
    return (
        isinstance(architecture, (os.PathLike, torch.nn.Module))
        or (isinstance(architecture, str) and architecture.lower().endswith(".onnx"))
        or type(architecture).__name__ == "ModelProto"  # without loading onnx
        or (_is_pair(architecture) and isinstance(architecture[0], torch.nn.Module))
    )


def _is_pair(value: Any) -> bool:
    """Whether this is (module, inputs), or (matrix, operations) of NAS-Bench-101."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return isinstance(value[0], torch.nn.Module) or isinstance(value[1], (tuple, list))


def _shorten(value: Any) -> str:
    return f"{value!r:.80}" if isinstance(value, (str, os.PathLike)) else type(value).__name__
