"""The DARTS search space."""

from narformer_pyg.spaces.darts.cell import DARTSGenotype
from narformer_pyg.spaces.darts.genotypes import DARTS_GENOTYPES
from narformer_pyg.spaces.darts.graph import NODE_TYPES, NUM_NODES, OPERATIONS, DARTSData
from narformer_pyg.spaces.darts.network import DARTSNetwork

__all__ = [
    "DARTS_GENOTYPES",
    "NODE_TYPES",
    "NUM_NODES",
    "OPERATIONS",
    "DARTSData",
    "DARTSGenotype",
    "DARTSNetwork",
]
