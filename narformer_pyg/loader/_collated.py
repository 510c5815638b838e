"""The collated dataset, and batches cut out of it by index arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex, Index
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data.collate import collate
from torch_geometric.data.separate import separate
from torch_geometric.typing import SparseTensor, TensorFrame
from torch_geometric.utils import cumsum

_MAX_CACHED = 8  # batch sizes that a layout remembers: the full batch, the last one, a few more


class Cut:
    """The first element of each graph of a batch and the end, and the graph of each element."""

    def __init__(self, slices: Tensor, device: torch.device) -> None:
        self.slices = slices  # [batch_size + 1], on the CPU
        self.ptr = slices.to(device, non_blocking=True)

    @cached_property
    def total(self) -> int:
        """The number of elements."""
        return int(self.slices[-1])

    @cached_property
    def owner(self) -> Tensor:
        """The graph of each element, :obj:`[total]`."""
        return torch.repeat_interleave(self.ptr.diff(), output_size=self.total)


class Layout:
    """The number of elements of each graph of a dataset, shared by attributes of equal sizes.

    The sizes stay on the CPU, so that the size of a batch is known without asking the device.
    """

    def __init__(self, sizes: Tensor) -> None:
        self.sizes = sizes  # [num_graphs]
        self.starts = cumsum(sizes)[:-1]
        self.size: int | None = int(sizes[0]) if bool((sizes == sizes[0]).all()) else None
        self._cuts: dict[tuple[int, torch.device], Cut] = {}

    def cut(self, index: Tensor, device: torch.device) -> Cut:
        """Returns the cut of the graphs :obj:`index` (on the CPU)."""
        if self.size is None:
            return Cut(cumsum(self.sizes.index_select(0, index)), device)
        # With equal sizes a cut depends on the number of graphs alone.
        key = (index.numel(), device)
        cut = self._cuts.get(key)
        if cut is None:
            if len(self._cuts) >= _MAX_CACHED:
                self._cuts.clear()
            cut = self._cuts[key] = Cut(torch.arange(index.numel() + 1) * self.size, device)
        return cut

    def elements(self, index: Tensor, cut: Cut) -> Tensor:
        """Returns the positions in the dataset of the elements of a batch, :obj:`[total]`."""
        shift = self.starts.index_select(0, index) - cut.slices[:-1]
        device = cut.ptr.device
        shift = shift.to(device, non_blocking=True).index_select(0, cut.owner)
        return shift.add_(torch.arange(cut.total, device=device))


@dataclass
class _TensorAttribute:
    """A tensor of the dataset whose graphs lie behind one another along :obj:`dim`.

    With equal sizes, :obj:`value` has one more dimension: :obj:`[..., num_graphs, size, ...]`.
    """

    key: str
    value: Tensor
    dim: int
    layout: int
    holds_nodes: bool

    def select(self, graphs: Tensor, elements: Tensor | None) -> Tensor:
        """Returns the values of a batch, nodes numbered within each graph."""
        if elements is not None:
            return self.value.index_select(self.dim, elements)
        return self.value.index_select(self.dim, graphs).flatten(self.dim, self.dim + 1)


class CollatedGraphs:
    """A dataset whose graphs lie behind one another on one device.

    Raises:
        TypeError: If :obj:`dataset` is of another type.
        ValueError: If it is empty, has a transform or an attribute that cannot be cut.
    """

    def __init__(
        self, dataset: InMemoryDataset | Sequence[Data], device: torch.device | None
    ) -> None:
        data, slices, indices = _read(dataset)
        self._layouts: list[Layout] = []
        self._tensors: list[_TensorAttribute] = []
        self._objects: dict[str, list[Any]] = {}
        self._template: Batch = Batch(_base_cls=type(data)).stores_as(data)

        keys = [key for key in slices if key in data and key not in {"num_nodes", "ptr"}]
        for key in keys:
            _check_attribute(key, data[key], slices[key])

        num_all = len(next(iter(slices.values()))) - 1 if slices else len(data._store._num_nodes)
        graphs = torch.arange(num_all) if indices is None else torch.as_tensor(indices)
        self.num_graphs = graphs.numel()
        num_nodes = _num_nodes(data, slices, num_all)
        self._nodes = None if num_nodes is None else self._layout(num_nodes[graphs])
        if "edge_index" in keys and num_nodes is not None:
            _check_edges(data.edge_index, slices["edge_index"], num_nodes, graphs)
        self._has_num_nodes = hasattr(data._store, "_num_nodes")

        if device is None:
            values = (data[key] for key in keys if isinstance(data[key], Tensor))
            device = next((value.device for value in values), torch.device("cpu"))
        self.device = device

        for key in keys:
            value = data[key]
            if not isinstance(value, Tensor):
                self._objects[key] = [value[i] for i in graphs.tolist()]
                continue
            sizes = slices[key].diff()
            dim = (data.__cat_dim__(key, value, data._store) or 0) % value.dim()
            if indices is not None:  # only what the subset needs
                cut = Cut(cumsum(sizes[graphs]), value.device)
                value = value.index_select(dim, Layout(sizes).elements(graphs, cut))
                sizes = sizes[graphs]
            layout = self._layout(sizes)
            size = self._layouts[layout].size
            value = value.to(device).contiguous()
            if size is not None:
                value = value.unflatten(dim, (self.num_graphs, size))
            # By the name, as in Data.__inc__.
            holds_nodes = num_nodes is not None and ("index" in key or key == "face")
            self._tensors.append(_TensorAttribute(key, value, dim, layout, holds_nodes))

    def _layout(self, sizes: Tensor) -> int:
        """Returns the place of the layout with these sizes, a new one if there is none yet."""
        for i, layout in enumerate(self._layouts):
            if torch.equal(layout.sizes, sizes):
                return i
        self._layouts.append(Layout(sizes))
        return len(self._layouts) - 1

    def to(self, device: torch.device) -> None:
        """Moves the tensors."""
        self.device = device
        for attribute in self._tensors:
            attribute.value = attribute.value.to(device)

    def cut(self, index: Tensor) -> Batch:
        """Returns the batch of the graphs :obj:`index`, a tensor on the CPU that is in range."""
        batch = copy.copy(self._template)
        store, size = batch._store, index.numel()
        slice_dict: dict[str, Tensor] = {}
        inc_dict: dict[str, Tensor | None] = {}
        graphs = index.to(self.device, non_blocking=True)
        cuts = [layout.cut(index, self.device) for layout in self._layouts]
        elements = [
            layout.elements(index, cut) if layout.size is None else None
            for layout, cut in zip(self._layouts, cuts, strict=True)
        ]
        zeros = torch.zeros(size, dtype=torch.long)

        for attr in self._tensors:
            cut = cuts[attr.layout]
            value, incs = attr.select(graphs, elements[attr.layout]), zeros
            if attr.holds_nodes and self._nodes is not None:
                nodes = cuts[self._nodes]
                incs = nodes.slices[:-1]
                offset = nodes.ptr[:-1].index_select(0, cut.owner).to(value.dtype)
                value.movedim(attr.dim, -1).add_(offset)  # a view of the same memory
            store[attr.key] = value
            slice_dict[attr.key], inc_dict[attr.key] = cut.slices, incs

        if self._objects:
            ids, unit = index.tolist(), torch.arange(size + 1)
            for key, values in self._objects.items():
                store[key] = [values[i] for i in ids]
                slice_dict[key], inc_dict[key] = unit, None

        if self._nodes is not None:
            nodes = cuts[self._nodes]
            if self._has_num_nodes:
                store._num_nodes = nodes.slices.diff().tolist()
                store.num_nodes = nodes.total
            # Cuts are shared between batches, but a batch may be written to.
            store.batch, store.ptr = nodes.owner.clone(), nodes.ptr.clone()

        batch._num_graphs = size
        batch._slice_dict, batch._inc_dict = slice_dict, inc_dict
        return batch


def _read(
    dataset: InMemoryDataset | Sequence[Data],
) -> tuple[Data, dict[str, Tensor], Sequence[int] | None]:
    """Returns the collated data, its slices and the indices of the subset, if it is one."""
    if isinstance(dataset, InMemoryDataset):
        if dataset.transform is not None:
            raise ValueError(
                "Expected 'dataset' to have no transform, as batches are cut without making single "
                f"graphs (got {dataset.transform!r}); apply it once with 'pre_transform' or to a "
                "list of graphs, or use PyG's DataLoader"
            )
        separable = dataset.slices is not None and type(dataset).get is InMemoryDataset.get
        if separable and len(dataset) > 0:
            _check_graph(dataset._data)
            return dataset._data, dataset.slices, dataset._indices
        graphs = [dataset.get(i) for i in dataset.indices()]
    elif isinstance(dataset, (list, tuple)):
        graphs = list(dataset)
    else:
        raise TypeError(
            "Expected 'dataset' to be an InMemoryDataset or a list of Data objects "
            f"(got {type(dataset).__name__}); pass list(dataset) to hold its graphs in memory"
        )
    if not graphs:
        raise ValueError("Expected 'dataset' to hold at least one graph (got 0)")
    for graph in graphs:
        _check_graph(graph)
    cls, keys = type(graphs[0]), set(graphs[0].keys())
    for i, graph in enumerate(graphs):
        if set(graph.keys()) != keys:
            raise ValueError(
                f"Expected all graphs of 'dataset' to have the attributes {sorted(keys)} "
                f"(got {sorted(graph.keys())} in graph {i})"
            )
    data, slices, _ = collate(cls, graphs, increment=False, add_batch=False)
    return data, slices, None


def _check_graph(data: Any) -> None:
    if not isinstance(data, Data) or isinstance(data, Batch):
        raise TypeError(
            "Expected the graphs of 'dataset' to be Data objects "
            f"(got {type(data).__name__}); use PyG's DataLoader for other types"
        )
    for name in ("__inc__", "__cat_dim__", "num_nodes"):
        if getattr(type(data), name) is not getattr(Data, name):
            raise ValueError(
                f"Expected the graphs of 'dataset' to be batched as Data objects are (got "
                f"{type(data).__name__}, which has its own '{name}'); use PyG's DataLoader"
            )


def _check_attribute(key: str, value: Any, slices: Any) -> None:
    dense = isinstance(value, Tensor) and not isinstance(value, (EdgeIndex, Index))
    dense = dense and value.layout == torch.strided and not value.is_nested
    objects = isinstance(value, list) and not isinstance(
        value[0], (Tensor, SparseTensor, TensorFrame)
    )
    if not isinstance(slices, Tensor) or not (dense or objects):
        kind = type(value[0] if isinstance(value, list) else value).__name__
        raise ValueError(
            f"Expected attribute '{key}' to be a dense tensor, a number or an object that batches "
            f"collect in a list (got {kind}); remove it or use PyG's DataLoader"
        )
    is_index = "index" in key or key == "face"
    if "batch" in key or (dense and is_index and value.dtype == torch.bool):
        raise ValueError(
            f"Expected attribute '{key}' to have another name, by which PyG does not take it for "
            "numbers of graphs or nodes"
        )


def _check_edges(edge_index: Tensor, slices: Tensor, num_nodes: Tensor, graphs: Tensor) -> None:
    """Raises if an edge leaves its graph: in a batch it would end at a node of another one."""
    if edge_index.dim() != 2 or edge_index.is_floating_point() or edge_index.numel() == 0:
        return  # the layers say what is wrong with it
    limit = num_nodes.repeat_interleave(slices.diff()).to(edge_index.device)  # [num_edges]
    wrong = ((edge_index < 0) | (edge_index >= limit)).any(dim=0).nonzero().flatten().cpu()
    owner = torch.searchsorted(slices, wrong, right=True) - 1
    used = torch.isin(owner, graphs)
    if used.any():
        edge, graph = int(wrong[used][0]), int(owner[used][0])
        raise ValueError(
            f"Expected 'edge_index' of graph {graph} to name nodes from 0 to "
            f"{int(num_nodes[graph]) - 1} (got the edge {edge_index[:, edge].tolist()})"
        )


def _num_nodes(data: Data, slices: dict[str, Tensor], num_graphs: int) -> Tensor | None:
    """Returns the number of nodes of each graph, as PyG infers it."""
    if hasattr(data._store, "_num_nodes"):
        return torch.as_tensor(data._store._num_nodes, dtype=torch.long)
    graphs = [
        separate(type(data), data, i, slice_dict=slices, decrement=False) for i in range(num_graphs)
    ]
    if not graphs[0]._store.can_infer_num_nodes:
        return None
    return torch.tensor([graph.num_nodes or 0 for graph in graphs])
