"""Augmentation of cells by cells that compute the same function."""

from __future__ import annotations

from collections.abc import Sequence

from torch_geometric.data import Data

from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.spaces.nasbench201 import cell_indices


def equivalent_graphs(graphs: Sequence[Data]) -> list[list[Data]]:
    r"""Returns the graphs of all cells that compute the same function as each NAS-Bench-201 cell.

    In these cells, operations on no path from input to output differ, a :obj:`skip_connect` moves
    past a sum, or intermediate feature maps change places. A predictor learns from all of them on
    the label of one.

    Args:
        graphs (sequence of Data): Graphs made by :meth:`NASBench201Cell.to_data
            <narformer_pyg.spaces.NASBench201Cell.to_data>`, with or without labels :obj:`y`.

    Returns:
        list: The graphs of 1 to 64 equivalent cells for each graph, with its labels; see
        :func:`~narformer_pyg.spaces.equivalent_indices`.

    Raises:
        ValueError: If a graph is not such a graph, or has further attributes.
    """
    out = []
    for i, data in enumerate(graphs):
        more = sorted(set(data.keys()) - {"op", "position", "edge_index", "num_nodes", "y"})
        if more:
            raise ValueError(
                "Expected the graphs to hold nothing but cells and labels, the only attributes "
                f"known of equivalent cells (got {', '.join(more)} in graph {i})"
            )
    for data, index in zip(graphs, cell_indices(graphs).tolist(), strict=True):
        indices = equivalent_indices(index).tolist()
        variants = [NASBench201Cell.from_index(i).to_data() for i in indices]
        for variant in variants:
            if "y" in data:
                variant.y = data.y
        out.append(variants)
    return out
