"""Random architectures with learnable labels, for tests and first steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg._checks import check_integer, check_seed

_EDGE_PROBABILITY = 0.4


class FakeNAS(InMemoryDataset):
    r"""Random cells with the same attributes as real ones, made in memory.

    A cell is a directed acyclic graph with its input first, its output last and every node on a
    path from input to output. Label :obj:`t` is

    .. math::
        y_t = \sigma \left( 4 \left( \frac{1}{n} \sum_{i=1}^{n} v_t(o_i) - \frac{1}{2} \right) +
        2 \left( \frac{\ell}{n + 1} - \frac{1}{2} \right) \right) \in (0, 1)

    for :math:`n` operations :math:`o_i \in \{1, \ldots, K\}` and a longest path of :math:`\ell`
    edges, with :math:`v_t(o) = ((o - 1 + t) \bmod K + \frac{1}{2}) / K`. Isomorphic cells have the
    same labels. Without operations, the mean is :math:`\frac{1}{2}`.

    Each graph holds :obj:`op` (long, :obj:`[num_nodes]`: input 0, operations 1 to :math:`K`,
    output :math:`K + 1`), :obj:`position` (long, :obj:`[num_nodes]`, the topological index),
    :obj:`edge_index` (long, :obj:`[2, num_edges]`, in the direction of the data flow, sorted by
    target) and :obj:`y` (float32, :obj:`[1, num_targets]`, without a unit).

    Args:
        num_graphs (int, optional): The number of cells. (default: :obj:`100`)
        num_nodes (int or tuple of int, optional): The number of nodes, or a range to draw it from;
            input, output and both ends of the range are included. (default: :obj:`(5, 8)`)
        num_operations (int, optional): The number of operations :math:`K`.
            (default: :obj:`5`)
        num_targets (int, optional): The number of labels. (default: :obj:`1`)
        seed (int, optional): The seed of the draw; the first cells of a larger dataset are those
            of a smaller one. (default: :obj:`0`)
        transform (callable, optional): Applied to a graph at every access.
            (default: :obj:`None`)

    Raises:
        ValueError: If a number is not an integer or out of range.
    """

    def __init__(
        self,
        num_graphs: int = 100,
        num_nodes: int | tuple[int, int] = (5, 8),
        num_operations: int = 5,
        num_targets: int = 1,
        seed: int = 0,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        check_integer("num_graphs", num_graphs)
        check_integer("num_operations", num_operations)
        check_integer("num_targets", num_targets)
        check_seed(seed)
        low, high = _check_range(num_nodes)
        super().__init__(None, transform)
        self.num_operations = num_operations
        rng = np.random.default_rng(seed)
        graphs = [
            _random_cell(rng, int(rng.integers(low, high + 1)), num_operations, num_targets)
            for _ in range(num_graphs)
        ]
        self._data, self.slices = self.collate(graphs)

    @property
    def num_node_types(self) -> int:
        """The number of values of :obj:`op`: the operations, the input and the output."""
        return self.num_operations + 2


def _random_cell(
    rng: np.random.Generator, num_nodes: int, num_operations: int, num_targets: int
) -> Data:
    adjacency = np.triu(rng.random((num_nodes, num_nodes)) < _EDGE_PROBABILITY, k=1)
    # In topological order, a predecessor and a successor each put every node on a full path.
    for node in range(1, num_nodes):
        if not adjacency[:, node].any():
            adjacency[rng.integers(node), node] = True
    for node in range(num_nodes - 1):
        if not adjacency[node].any():
            adjacency[node, rng.integers(node + 1, num_nodes)] = True
    operations = rng.integers(1, num_operations + 1, size=num_nodes - 2)
    target, source = np.nonzero(adjacency.T)  # row-major: sorted by target, then by source
    y = _labels(operations, _longest_path(adjacency), num_operations, num_targets)
    return Data(
        op=torch.from_numpy(np.concatenate([[0], operations, [num_operations + 1]])),
        position=torch.arange(num_nodes),
        edge_index=torch.from_numpy(np.stack([source, target])),
        y=torch.from_numpy(y.astype(np.float32)).unsqueeze(0),
        num_nodes=num_nodes,
    )


def _longest_path(adjacency: np.ndarray) -> int:
    length = np.zeros(len(adjacency), dtype=np.int64)
    for node in range(1, len(adjacency)):
        length[node] = length[adjacency[:, node]].max() + 1
    return int(length[-1])


def _labels(operations: np.ndarray, path: int, num_operations: int, num_targets: int) -> np.ndarray:
    shift = np.arange(num_targets)[:, None]
    value = ((operations - 1 + shift) % num_operations + 0.5) / num_operations
    mean = value.mean(axis=1) if len(operations) else np.full(num_targets, 0.5)
    logit = 4 * (mean - 0.5) + 2 * (path / (len(operations) + 1) - 0.5)
    return 1 / (1 + np.exp(-logit))


def _check_range(num_nodes: int | Sequence[int]) -> tuple[int, int]:
    ends = num_nodes if isinstance(num_nodes, (tuple, list)) else (num_nodes, num_nodes)
    low, high = (check_integer("num_nodes", ends[i], least=2) for i in (0, -1))
    if len(ends) != 2 or low > high:
        raise ValueError(
            f"Expected 'num_nodes' to be a number or an ascending range of two (got {num_nodes!r})"
        )
    return low, high
