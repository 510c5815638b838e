"""Orders of a graph's nodes in which every edge still points forward."""

from __future__ import annotations

import copy
import random
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data


class Relabelled(NamedTuple):
    """A graph in a new order.

    Args:
        order: The old id of the node at each place, length :math:`N`.
        edges: The old position of each edge, by new target and then by new source, length
            :math:`E`.
        key: The relabelled nodes and edges; two orders give the same graph iff their keys agree.
    """

    order: list[int]
    edges: list[int]
    key: tuple[Any, ...]


class LabelledDAG:
    """A directed acyclic graph in plain Python, its nodes in topological order.

    Raises:
        ValueError: If an edge does not point to a node of higher id, or there is an attribute
            besides :obj:`edge_index` that holds node ids.
    """

    def __init__(self, data: Data) -> None:
        edge_index = data.edge_index
        if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2:
            raise ValueError(
                "Expected 'data' to have an 'edge_index' of shape [2, num_edges] "
                f"(got {getattr(edge_index, 'shape', edge_index)})"
            )
        self.sources, self.targets = edge_index.tolist()
        self.num_edges = len(self.sources)
        self.num_nodes = _num_nodes(data)
        for source, target in zip(self.sources, self.targets, strict=True):
            if not 0 <= source < target < self.num_nodes:
                raise ValueError(
                    "Expected 'edge_index' to lead from lower to higher node ids, all of them "
                    f"below the number of nodes, {self.num_nodes} (got the edge "
                    f"{source} -> {target}); bring the nodes into topological order first"
                )

        self.node_keys: list[str] = []
        self.edge_keys: list[str] = []
        for key, value in data.to_dict().items():
            if key in {"edge_index", "num_nodes", "position"}:
                continue
            level = self._level(data, key, value)
            if "index" in key or key == "face":
                raise ValueError(
                    "Expected no attribute but 'edge_index' to hold node ids, as PyG assumes of "
                    f"names with 'index' (got '{key}')"
                )
            if level == "node":
                self.node_keys.append(key)
            elif level == "edge":
                self.edge_keys.append(key)
        self.node_labels = _labels([data[key] for key in self.node_keys], self.num_nodes)
        self.edge_labels = _labels([data[key] for key in self.edge_keys], self.num_edges)
        self.key = self.relabel(list(range(self.num_nodes))).key
        self._successors = self._precedence()

    def _level(self, data: Data, key: str, value: Any) -> str:
        if isinstance(value, Tensor) and value.dim() > 0:
            size = value.size(data.__cat_dim__(key, value) or 0)
        elif isinstance(value, (list, tuple)):
            size = len(value)
        else:
            return "graph"
        # As PyG decides: with as many edges as nodes, the name does.
        if size == self.num_edges and (size != self.num_nodes or "edge" in key):
            return "edge"
        return "node" if size == self.num_nodes else "graph"

    def _precedence(self) -> list[list[int]]:
        """Returns the nodes that must come after each node: its successors and its next twin.

        Twins, nodes with the same labels and neighbours, can change places without changing the
        graph. Keeping them in order drops repetitions, and keeps the lexicographically smallest of
        the orders that give the same graph.
        """
        n = self.num_nodes
        incoming: list[list[Hashable]] = [[] for _ in range(n)]
        outgoing: list[list[Hashable]] = [[] for _ in range(n)]
        successors: list[list[int]] = [[] for _ in range(n)]
        for s, t, label in zip(self.sources, self.targets, self.edge_labels, strict=True):
            incoming[t].append((s, label))
            outgoing[s].append((t, label))
            successors[s].append(t)
        last_twin: dict[Hashable, int] = {}
        for node in range(1, n - 1):
            twin = (
                self.node_labels[node],
                tuple(sorted(incoming[node], key=repr)),
                tuple(sorted(outgoing[node], key=repr)),
            )
            if twin in last_twin:
                successors[last_twin[twin]].append(node)
            last_twin[twin] = node
        return successors

    def _waiting(self) -> list[int]:
        """Returns how many nodes must precede each node; the outer two take no part."""
        waiting = [0] * self.num_nodes
        for node in range(1, self.num_nodes - 1):
            for successor in self._successors[node]:
                waiting[successor] += 1
        return waiting

    def relabel(self, order: list[int]) -> Relabelled:
        """Returns the graph with node :obj:`order[i]` at place :obj:`i`."""
        n = self.num_nodes
        place = _places(order)
        # One number for an edge, ordered by target, then source.
        codes = [place[t] * n + place[s] for s, t in zip(self.sources, self.targets, strict=True)]
        edges = sorted(range(self.num_edges), key=codes.__getitem__)
        if not self.edge_keys:
            described: tuple[Any, ...] = tuple(codes[e] for e in edges)
        else:
            # Parallel edges are the same in any order.
            described = tuple(sorted(((codes[e], self.edge_labels[e]) for e in edges), key=repr))
        return Relabelled(order, edges, (*(self.node_labels[node] for node in order), described))

    def orders(self) -> Iterator[list[int]]:
        """Yields the topological orders lexicographically, the first and last node fixed."""
        n = self.num_nodes
        if n < 3:
            yield list(range(n))
            return
        waiting = self._waiting()
        used = [False] * n
        used[0] = used[-1] = True
        order = [0]
        candidate = 1  # the smallest node to try at the next place
        while True:
            while candidate < n and (used[candidate] or waiting[candidate]):
                candidate += 1
            if candidate < n:
                order.append(candidate)
                used[candidate] = True
                for successor in self._successors[candidate]:
                    waiting[successor] -= 1
                candidate = 1
                if len(order) < n - 1:
                    continue
                yield [*order, n - 1]
            elif len(order) == 1:
                return
            node = order.pop()
            used[node] = False
            for successor in self._successors[node]:
                waiting[successor] += 1
            candidate = node + 1

    def random_order(self, rng: random.Random) -> list[int]:
        """Returns a topological order drawn node by node, the first and last node fixed."""
        n = self.num_nodes
        if n < 3:
            return list(range(n))
        waiting = self._waiting()
        ready = [node for node in range(1, n - 1) if waiting[node] == 0]
        order = [0]
        while ready:
            i = int(rng.random() * len(ready))
            ready[i], ready[-1] = ready[-1], ready[i]
            node = ready.pop()
            order.append(node)
            for successor in self._successors[node]:
                waiting[successor] -= 1
                if waiting[successor] == 0 and successor < n - 1:
                    ready.append(successor)
        return [*order, n - 1]

    def apply(self, data: Data, new: Relabelled) -> Data:
        """Returns a copy of :obj:`data`, the graph this was made of, in the new order."""
        out = copy.copy(data)
        place = _places(new.order)
        sources = [place[self.sources[e]] for e in new.edges]
        targets = [place[self.targets[e]] for e in new.edges]
        out.edge_index = data.edge_index.new_tensor([sources, targets])
        for keys, index in ((self.node_keys, new.order), (self.edge_keys, new.edges)):
            if not keys:
                continue
            select = torch.tensor(index, dtype=torch.long)
            for key in keys:
                value = data[key]
                if isinstance(value, Tensor):
                    dim = data.__cat_dim__(key, value) or 0
                    out[key] = value.index_select(dim, select.to(value.device))
                else:
                    out[key] = type(value)(value[i] for i in index)
        return out


def _places(order: Sequence[int]) -> list[int]:
    place = [0] * len(order)
    for i, node in enumerate(order):
        place[node] = i
    return place


def _num_nodes(data: Data) -> int:
    if "num_nodes" not in data:  # PyG would only guess it from the edges of a graph without 'x'
        for key in ("op", "position"):
            if isinstance(data.get(key), Tensor):
                return data[key].size(0)
    return int(data.num_nodes or 0)


def _labels(values: Sequence[Any], size: int) -> list[Hashable]:
    """Returns for each node or edge something to compare and hash: all its attributes."""
    columns: list[list[Any]] = []
    for value in values:
        if not isinstance(value, Tensor):
            columns.append([repr(entry) for entry in value])
        elif value.dim() == 1:
            columns.append(value.tolist())
        else:
            columns.append([tuple(row) for row in value.flatten(1).tolist()])
    return list(zip(*columns, strict=True)) if columns else [()] * size
