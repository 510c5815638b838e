"""The batches of a prediction, on a GPU by CUDA graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from narformer_pyg._cuda_graphs import RecordedCalls
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.loader.padded_batches import PaddedBatches

# Recording a shape takes about as long as five batches.
_MIN_BATCHES = 8


def map_batches(
    function: Callable[[Any], Tensor],
    loader: DeviceLoader,
    names: Sequence[str],
    padded: bool | None = None,
) -> Iterator[Tensor]:
    r"""Yields the rows that a function returns for the graphs of each batch.

    Args:
        function (callable): Maps a batch to a row for each graph.
        loader (DeviceLoader): The batches.
        names (sequence of str): The attributes of graphs that the function reads, the edges aside.
        padded (bool, optional): Whether batches are padded to few shapes, which a GPU records. By
            default, where the batches are on a GPU and enough of them share a shape.
            (default: :obj:`None`)
    """
    if padded is None:
        padded = loader.device.type == "cuda" and len(loader) >= _MIN_BATCHES
    if not padded:
        yield from map(function, loader)
        return
    try:
        batches = PaddedBatches(loader, names)
    except ValueError:
        yield from map(function, loader)
        return
    indices = list(loader.batch_sampler)
    shapes = [batches.shape_of(index) for index in indices]
    occurrences = Counter(shapes)
    current = torch.zeros_like(indices[0], device=loader.device)  # the first batch is the largest
    calls = RecordedCalls(
        lambda shape: function(batches.cut(current[: shape.graphs], shape)), loader.device
    )
    order = torch.cat(indices).to(loader.device, non_blocking=True)
    parts = order.split([len(index) for index in indices])
    for index, shape in zip(parts, shapes, strict=True):
        current[: len(index)].copy_(index)
        if occurrences[shape] < _MIN_BATCHES:
            out = function(batches.cut(index, shape))
        else:
            out = calls(shape)
        yield out[: len(index)].clone()  # the next call overwrites it
