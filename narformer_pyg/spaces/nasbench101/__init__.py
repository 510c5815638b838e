"""The NAS-Bench-101 search space."""

from narformer_pyg.spaces.nasbench101.cell import NUM_CELLS, NASBench101Cell
from narformer_pyg.spaces.nasbench101.codes import (
    DIGITS,
    all_edge_bits,
    unpack_codes,
    vertex_channels,
)
from narformer_pyg.spaces.nasbench101.graph import (
    MAX_EDGES,
    MAX_VERTICES,
    NODE_TYPES,
    OPERATIONS,
    NASBench101Data,
)
from narformer_pyg.spaces.nasbench101.network import NASBench101Network

__all__ = [
    "DIGITS",
    "MAX_EDGES",
    "MAX_VERTICES",
    "NODE_TYPES",
    "NUM_CELLS",
    "OPERATIONS",
    "NASBench101Cell",
    "NASBench101Data",
    "NASBench101Network",
    "all_edge_bits",
    "unpack_codes",
    "vertex_channels",
]
