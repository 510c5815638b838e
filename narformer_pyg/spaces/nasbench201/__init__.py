"""The NAS-Bench-201 search space."""

from narformer_pyg.spaces.nasbench201.cell import (
    NUM_CELLS,
    NASBench201Cell,
    cell_codes,
    code_to_index,
)
from narformer_pyg.spaces.nasbench201.equivalence import (
    cell_indices,
    equivalent_indices,
    function_indices,
)
from narformer_pyg.spaces.nasbench201.graph import (
    CELL_EDGES,
    NODE_TYPES,
    NUM_NODES,
    OPERATIONS,
    NASBench201Data,
    graph_edge_index,
)
from narformer_pyg.spaces.nasbench201.network import NASBench201Network

__all__ = [
    "CELL_EDGES",
    "NODE_TYPES",
    "NUM_CELLS",
    "NUM_NODES",
    "OPERATIONS",
    "NASBench201Cell",
    "NASBench201Data",
    "NASBench201Network",
    "cell_codes",
    "cell_indices",
    "code_to_index",
    "equivalent_indices",
    "function_indices",
    "graph_edge_index",
]
