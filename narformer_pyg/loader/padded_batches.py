"""Batches of few fixed shapes, cut by operations whose shapes depend on no data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch

from narformer_pyg.loader._collated import Layout
from narformer_pyg.loader.device_loader import DeviceLoader


class BatchShape(NamedTuple):
    r"""The shape of a batch.

    Args:
        graphs (int): Graphs of the dataset in the batch.
        nodes (int): Nodes, padding included.
        edges (int): Edges, padding included.
    """

    graphs: int
    nodes: int
    edges: int


class PaddedBatches:
    r"""Cuts batches of fixed shapes out of the dataset of a loader.

    Where graphs differ in size, a batch is padded to a bucket: a size at most a quarter above its
    own, of which a training meets few. The padding is a graph behind the others, with edges among
    its own nodes, so that no other graph sees it. Where all graphs are of one size, nothing is
    padded. Cutting waits for no device, which lets CUDA graphs record it.

    Args:
        loader (DeviceLoader): The loader; its dataset is shared.
        names (sequence of str): The attributes that batches have besides :obj:`edge_index` and
            :obj:`batch`. Labels :obj:`y` have no row for the padding.

    Raises:
        ValueError: If an attribute is missing, or counts neither nodes nor edges nor graphs.
    """

    def __init__(self, loader: DeviceLoader, names: Sequence[str]) -> None:
        graphs = loader._graphs
        self._device = graphs.device
        tensors = {attribute.key: attribute for attribute in graphs._tensors}
        missing = [name for name in (*names, "edge_index") if name not in tensors]
        if missing or graphs._nodes is None or loader.stream:
            raise ValueError(
                f"Expected graphs in the memory of the device, with nodes and the attributes "
                f"{', '.join(map(repr, names))} (got none of {', '.join(missing) or 'that kind'})"
            )
        self._attributes = [tensors[name] for name in (*names, "edge_index")]
        layouts = graphs._layouts
        self._nodes, self._edges = graphs._nodes, tensors["edge_index"].layout
        self._layouts = {i: layouts[i] for i in {a.layout for a in self._attributes}}
        self._layouts[self._nodes] = layouts[self._nodes]
        for attribute in self._attributes:
            sizes_are_known = attribute.layout in (self._nodes, self._edges)
            if not sizes_are_known and layouts[attribute.layout].size is None:
                raise ValueError(
                    f"Expected '{attribute.key}' to have a row for each node, edge or graph (got "
                    "numbers of rows that differ)"
                )
        #: Whether batches have a graph of padding.
        self.pads = any(layout.size is None for layout in self._layouts.values())
        self._on_device = {
            i: (
                layout.starts.to(self._device),
                layout.sizes.to(self._device),
                int(layout.sizes.sum()),
            )
            for i, layout in self._layouts.items()
            if layout.size is None
        }

    def shape_of(self, index: Tensor) -> BatchShape:
        """Returns the shape of the batch of the graphs :obj:`index`, which are on the CPU."""
        layouts = [self._layouts[i] for i in (self._nodes, self._edges)]
        sizes = [int(layout.sizes.index_select(0, index).sum()) for layout in layouts]
        if not self.pads:
            return BatchShape(index.numel(), *sizes)
        # As a multiple of an average batch of as many graphs, with a node for the padding.
        typical = [max(float(layout.sizes.double().mean()), 1.0) for layout in layouts]
        typical = [mean * index.numel() for mean in typical]
        factor = _rung(max((sizes[0] + 1) / typical[0], sizes[1] / typical[1]))
        capacities = [
            math.ceil(factor * mean) if layout.size is None else layout.size * (index.numel() + 1)
            for layout, mean in zip(layouts, typical, strict=True)
        ]
        return BatchShape(index.numel(), *capacities)

    def cut(self, index: Tensor, shape: BatchShape) -> Batch:
        r"""Returns a batch.

        Args:
            index (torch.Tensor): Its graphs, on the device, :obj:`[shape.graphs]`.
            shape (BatchShape): Its shape, as :meth:`shape_of` returns it.
        """
        num_graphs = shape.graphs + self.pads
        # A copy of the first graph stands for the padding where sizes are equal.
        padded = torch.cat([index, index[:1]]) if self.pads else index
        elements, owners, firsts = {}, {}, {}
        for i, layout in self._layouts.items():
            capacity = shape.nodes if i == self._nodes else shape.edges
            elements[i], owners[i], firsts[i] = self._place(i, layout, index, padded, capacity)

        values = {}
        for attribute in self._attributes:
            graphs = index if attribute.key == "y" else padded
            value = attribute.select(graphs, elements[attribute.layout])
            if attribute.holds_nodes:
                offset = firsts[self._nodes].index_select(0, owners[attribute.layout])
                value = value + offset
            values[attribute.key] = value
        if self.pads:
            values["edge_index"] = self._close(
                values["edge_index"], owners[self._edges], firsts, shape
            )
        batch = Batch(batch=owners[self._nodes], **values)
        batch._num_graphs = num_graphs
        batch.num_nodes = shape.nodes
        return batch

    def _place(
        self, i: int, layout: Layout, index: Tensor, padded: Tensor, capacity: int
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Returns the elements of a batch in the dataset, their graphs, and where these begin."""
        if layout.size is not None:
            first = torch.arange(padded.numel(), device=self._device) * layout.size
            owner = torch.arange(padded.numel() * layout.size, device=self._device)
            return None, owner // max(layout.size, 1), first
        starts, sizes, total = self._on_device[i]
        count = sizes.index_select(0, index)
        ends = count.cumsum(0)
        place = torch.arange(capacity, device=self._device)
        owner = torch.searchsorted(ends, place, right=True)  # the padding comes last
        first = torch.cat([ends - count, ends[-1:]])
        start = torch.cat([starts.index_select(0, index), starts[:1]])
        element = (start - first).index_select(0, owner) + place
        return element.clamp_(max=total - 1), owner, first

    def _close(
        self, edge_index: Tensor, owner: Tensor, firsts: dict[int, Tensor], shape: BatchShape
    ) -> Tensor:
        """Returns edges of which those of the padding are self-loops, spread over its nodes."""
        first = firsts[self._nodes][-1]
        place = torch.arange(edge_index.size(1), device=self._device)
        loop = first + place % (shape.nodes - first)
        return torch.where(owner == shape.graphs, loop, edge_index)


def _rung(factor: float) -> float:
    """Rounds a number up to a quarter of a power of two: 0.875, 1, 1.25, 1.5, 1.75, 2, 2.5, ..."""
    step = 2.0 ** (math.floor(math.log2(factor)) - 2)
    return math.ceil(factor / step) * step
