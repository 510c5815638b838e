"""The neighbors of the nodes of all graphs of a dataset, and those of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

from narformer_pyg.loader._layout import Cut, Layout


class Neighbors:
    r"""Lists of the nodes that edges in either direction connect with each node.

    They are sorted once for the whole dataset; those of a batch follow by index arithmetic.

    Args:
        edge_index (torch.Tensor): The edges of all graphs, :obj:`[2, num_edges]`, whose nodes are
            numbered within each graph.
        num_edges (torch.Tensor): The number of edges of each graph, on the CPU.
        num_nodes (torch.Tensor): The number of nodes of each graph, on the CPU.
    """

    def __init__(self, edge_index: Tensor, num_edges: Tensor, num_nodes: Tensor) -> None:
        device = edge_index.device
        first = cumsum(num_nodes)[:-1].repeat_interleave(num_edges).to(device)  # [num_edges]
        edges = edge_index + first  # numbered through the dataset
        source, target = torch.cat([edges, edges.flip(0)], dim=1)
        order = target.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel(), device=device)
        # Edge number k and its reverse, k + num_edges, are found at these places.
        reverse = place.roll(edges.size(1))[order]
        self._edges = Layout(2 * num_edges)
        self._nodes = Layout(num_nodes)
        self._index = (source - first.repeat(2))[order]
        # Relative to an edge's own place it is the same in every batch.
        self._reverse = reverse - torch.arange(order.numel(), device=device)
        self._degree = torch.bincount(target, minlength=int(num_nodes.sum()))

    def to(self, device: torch.device) -> None:
        """Moves the lists."""
        for name in ("_index", "_reverse", "_degree"):
            setattr(self, name, getattr(self, name).to(device))

    def cut(self, index: Tensor, nodes: Cut) -> dict[str, Tensor]:
        r"""Returns the lists of a batch.

        Args:
            index (torch.Tensor): The graphs, on the CPU.
            nodes (Cut): Where the nodes of each begin.

        Returns:
            dict: :obj:`neighbor_index` holds the neighbors of each node, one behind another, from
            the place that :obj:`neighbor_ptr` says; :obj:`neighbor_reverse` is the place of the
            same edge in the list of its other node.
        """
        cut = self._edges.cut(index, nodes.ptr.device)
        elements = self._edges.elements(index, cut)
        degree = self._degree.index_select(0, self._nodes.elements(index, nodes))
        places = torch.arange(cut.total, device=elements.device)
        first = nodes.ptr[:-1].index_select(0, cut.owner)
        return {
            "neighbor_index": self._index.index_select(0, elements).add_(first),
            "neighbor_ptr": cumsum(degree),
            "neighbor_reverse": self._reverse.index_select(0, elements).add_(places),
        }
