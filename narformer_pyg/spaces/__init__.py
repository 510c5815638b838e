"""Search spaces: architectures that can be parsed, formatted, varied, drawn and run."""

from narformer_pyg.spaces.darts import DARTSGenotype
from narformer_pyg.spaces.darts_genotypes import DARTS_GENOTYPES
from narformer_pyg.spaces.darts_network import DARTSNetwork
from narformer_pyg.spaces.nasbench101 import NASBench101Cell
from narformer_pyg.spaces.nasbench101_network import NASBench101Network
from narformer_pyg.spaces.nasbench201 import NASBench201Cell
from narformer_pyg.spaces.nasbench201_equivalence import equivalent_indices
from narformer_pyg.spaces.nasbench201_network import NASBench201Network

__all__ = [
    "DARTS_GENOTYPES",
    "DARTSGenotype",
    "DARTSNetwork",
    "NASBench101Cell",
    "NASBench101Network",
    "NASBench201Cell",
    "NASBench201Network",
    "equivalent_indices",
]
