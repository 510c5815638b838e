"""Augmentation of cells by others that compute the same function."""

from __future__ import annotations

from collections.abc import Sequence

from torch_geometric.data import Data

from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.spaces.nasbench201 import cell_indices


def equivalent_graphs(graphs: Sequence[Data]) -> list[list[Data]]:
    r"""Returns for each cell of NAS-Bench-201 the graphs of cells that compute the same function.

    Operations that reach nothing or are reached by nothing can be replaced at will, a
    :obj:`skip_connect` can stand before or behind what it is added to, and intermediate feature
    maps can be exchanged: training on one measured cell, a predictor can learn from all of these.

    Args:
        graphs (sequence of Data): Graphs as :meth:`NASBench201Cell.to_data
            <narformer_pyg.spaces.NASBench201Cell.to_data>` makes them, with labels :obj:`y` or
            without.

    Returns:
        list: For each graph those of its equivalents, 1 to 64, with its labels; see
        :func:`~narformer_pyg.spaces.equivalent_indices`.

    Raises:
        ValueError: If a graph is something else, or has further attributes.
    """
    out = []
    for i, data in enumerate(graphs):
        more = sorted(set(data.keys()) - {"op", "position", "edge_index", "num_nodes", "y"})
        if more:
            raise ValueError(
                "Expected the graphs to hold nothing but the cell and its labels, since no more is "
                f"known of its equivalents (got {', '.join(more)} in graph {i})"
            )
    for data, index in zip(graphs, cell_indices(graphs).tolist(), strict=True):
        indices = equivalent_indices(index).tolist()
        variants = [NASBench201Cell.from_index(i).to_data() for i in indices]
        for variant in variants:
            if "y" in data:
                variant.y = data.y
        out.append(variants)
    return out
