"""NAS-Bench-101 cells as graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_geometric.data import Data

from narformer_pyg.spaces import NASBench101Cell


def from_nasbench101(matrix: Any, operations: Sequence[str]) -> Data:
    r"""Converts a cell of `NAS-Bench-101 <https://arxiv.org/abs/1902.09635>`_ to a graph.

    .. code-block:: python

        data = from_nasbench101(
            [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
            ["input", "conv3x3-bn-relu", "maxpool3x3", "output"],
        )
        # NASBench101Data(edge_index=[2, 4], op=[4], position=[4], num_nodes=4)

    Args:
        matrix (array_like): The adjacency matrix, upper triangular, of zeros and ones.
        operations (sequence of str): The operation of each vertex, as the benchmark names them.

    Returns:
        Data: The graph with its operations on the nodes, without vertices that are on no path from
        input to output, see :meth:`NASBench101Cell.to_data`.

    Raises:
        ConversionError: If it is not a cell of this space.
        TypeError: If :obj:`operations` is not a sequence of names.
    """
    return NASBench101Cell(matrix, operations).to_data()  # type: ignore[arg-type]
