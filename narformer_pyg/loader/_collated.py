"""The collated dataset, and batches cut out of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex, Index
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data.collate import collate
from torch_geometric.data.separate import separate
from torch_geometric.data.storage import N_KEYS
from torch_geometric.typing import SparseTensor, TensorFrame
from torch_geometric.utils import cumsum

from narformer_pyg.loader._layout import Cut, Layout
from narformer_pyg.loader._neighbors import Neighbors


@dataclass
class _TensorAttribute:
    """A tensor of the dataset: its values lie along :obj:`dim`, as its layout says.

    With equal sizes, :obj:`value` has one more dimension: :obj:`[..., num_graphs, size, ...]`.
    The increment is a layout for numbers, :obj:`[num_graphs, *]` for tensors, or nothing.
    """

    key: str
    value: Tensor
    dim: int
    layout: int
    inc: int | Tensor | None

    def select(self, graphs: Tensor, elements: Tensor | None) -> Tensor:
        """Returns the values of a batch without increments."""
        if elements is not None:
            return self.value.index_select(self.dim, elements)
        return self.value.index_select(self.dim, graphs).flatten(self.dim, self.dim + 1)

    def add(self, value: Tensor, incs: Tensor, cut: Cut) -> Tensor:
        """Adds to each graph's values the increment of the graphs before it."""
        # PyG leaves values alone if the last increment is a zero, which keeps booleans boolean.
        if incs.dim() == 1 and int(incs[-1]) == 0:
            return value
        if value.dtype == torch.bool:
            value = value.long()
        # [batch_size, *] -> one increment for each element, broadcast over the other dimensions
        shape = [1] * (value.dim() - incs.dim() + 1) + list(incs.shape[1:])
        del shape[self.dim]
        offset = incs.to(value.device, value.dtype, non_blocking=True)
        offset = offset.view(-1, *shape).index_select(0, cut.owner).movedim(0, self.dim)
        return value.add_(offset)


class CollatedGraphs:
    """A dataset whose graphs lie behind one another on one device.

    Args:
        dataset (InMemoryDataset or sequence of Data): The graphs.
        device (torch.device, optional): Where the tensors shall be. By default, where they are.
        neighbors (bool): Whether batches shall have lists of neighbors.

    Raises:
        TypeError: If :obj:`dataset` is of another type.
        ValueError: If it is empty, has a transform or an attribute that cannot be cut, or shall
            have lists of neighbors but has no edges.
    """

    def __init__(
        self,
        dataset: InMemoryDataset | Sequence[Data],
        device: torch.device | None,
        neighbors: bool = False,
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

        def graph(i: int) -> Data:
            return separate(type(data), data, i, slice_dict=slices, decrement=False)

        num_nodes = _num_nodes(data, slices, num_all, graph)
        self._nodes = None if num_nodes is None else self._layout(num_nodes[graphs])
        if "edge_index" in keys and num_nodes is not None:
            _check_edges(data.edge_index, slices["edge_index"], num_nodes, graphs)
        self._has_num_nodes = hasattr(data._store, "_num_nodes")

        if device is None:
            values = (data[key] for key in keys if isinstance(data[key], Tensor))
            device = next((value.device for value in values), torch.device("cpu"))
        self.device = device

        self._neighbors: Neighbors | None = None
        if neighbors and ("edge_index" not in keys or num_nodes is None):
            raise ValueError(
                "Expected the graphs of 'dataset' to have nodes and an 'edge_index', since "
                f"'neighbors' is set (got {sorted(data.keys())})"
            )
        for key in keys:
            value = data[key]
            if not isinstance(value, Tensor):
                self._objects[key] = [value[i] for i in graphs.tolist()]
                continue
            inc = _increments(key, data, num_nodes, num_all, graph)
            sizes = slices[key].diff()
            cat_dim = data.__cat_dim__(key, value, data._store) or 0
            dim = cat_dim % value.dim()
            if indices is not None:  # only what the subset needs
                source = Layout(sizes)
                cut = Cut(cumsum(sizes[graphs]), value.device)
                value = value.index_select(dim, source.elements(graphs, cut))
                sizes, inc = sizes[graphs], None if inc is None else inc[graphs]
            layout = self._layout(sizes)
            size = self._layouts[layout].size
            value = value.to(device).contiguous()
            if neighbors and key == "edge_index" and num_nodes is not None:
                _check_numbers(value, data)
                self._neighbors = Neighbors(value.long(), sizes, num_nodes[graphs])
            if size is not None:
                value = value.unflatten(dim, (self.num_graphs, size))
            step = self._layout(inc) if inc is not None and inc.dim() == 1 else inc
            self._tensors.append(_TensorAttribute(key, value, dim, layout, step))

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
        if self._neighbors is not None:
            self._neighbors.to(device)

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
            if isinstance(attr.inc, int):
                incs = cuts[attr.inc].slices[:-1]
            elif attr.inc is not None:
                incs = cumsum(attr.inc.index_select(0, index[:-1]))
            store[attr.key] = value if attr.inc is None else attr.add(value, incs, cut)
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
            if self._neighbors is not None:
                store.update(self._neighbors.cut(index, nodes))

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


def _check_numbers(edge_index: Tensor, data: Data) -> None:
    """Raises unless edges are pairs of node numbers, which a batch shifts by its nodes."""
    is_numbers = edge_index.dtype in (torch.long, torch.int32)
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or not is_numbers:
        raise ValueError(
            "Expected 'edge_index' to have shape [2, num_edges] and to hold node numbers of type "
            f"torch.long, since 'neighbors' is set (got {list(edge_index.shape)} of "
            f"{edge_index.dtype})"
        )
    if type(data).__inc__ is not Data.__inc__:
        raise ValueError(
            "Expected graphs that are numbered as those of Data, since 'neighbors' is set (got "
            f"{type(data).__name__}, which has its own __inc__)"
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


def _num_nodes(
    data: Data, slices: dict[str, Tensor], num_graphs: int, graph: Callable[[int], Data]
) -> Tensor | None:
    """Returns the number of nodes of each graph, as PyG infers it."""
    store = data._store
    if hasattr(store, "_num_nodes"):
        return torch.as_tensor(store._num_nodes, dtype=torch.long)
    if not graph(0)._store.can_infer_num_nodes:
        return None
    tensors = [key for key in store if isinstance(store[key], Tensor)]
    telling = [key for key in tensors if key in N_KEYS] or [key for key in tensors if "node" in key]
    if telling:
        return slices[telling[0]].diff()
    return torch.tensor([graph(i)._store.num_nodes or 0 for i in range(num_graphs)])


def _increments(
    key: str,
    data: Data,
    num_nodes: Tensor | None,
    num_graphs: int,
    graph: Callable[[int], Data],
) -> Tensor | None:
    """Returns what each graph adds to the values of the graphs behind it, nothing if nothing."""
    cls = type(data)
    if cls.__inc__ is Data.__inc__ and cls.num_nodes is Data.num_nodes and "batch" not in key:
        if "index" not in key and key != "face":
            return None
        if num_nodes is not None:
            return num_nodes
    rows = []
    for i in range(num_graphs):
        single = graph(i)
        value = single[key]
        if data.__cat_dim__(key, value, single._store) is None:
            value = value.unsqueeze(0)
        rows.append(torch.as_tensor(single.__inc__(key, value, single._store)).cpu())
    incs = torch.stack(rows)
    return incs if bool(incs.any()) else None
