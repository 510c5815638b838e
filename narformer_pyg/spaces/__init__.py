"""Search spaces: cells to parse, format, vary and draw, and the networks built from them.

The graph of a cell says which space it is from: its attribute :obj:`space` is :obj:`"nasbench201"`,
:obj:`"nasbench101"` or :obj:`"darts"`. The attribute belongs to the graph's class
(:class:`NASBench201Data`, :class:`NASBench101Data`, :class:`DARTSData`), so it survives collating,
batching and slicing and takes no room in a dataset. A graph of unknown origin has none:
:obj:`getattr(data, "space", None)`.
"""

from narformer_pyg.spaces.darts import DARTS_GENOTYPES, DARTSData, DARTSGenotype, DARTSNetwork
from narformer_pyg.spaces.nasbench101 import NASBench101Cell, NASBench101Data, NASBench101Network
from narformer_pyg.spaces.nasbench201 import (
    NASBench201Cell,
    NASBench201Data,
    NASBench201Network,
    equivalent_indices,
)

__all__ = [
    "DARTS_GENOTYPES",
    "DARTSData",
    "DARTSGenotype",
    "DARTSNetwork",
    "NASBench101Cell",
    "NASBench101Data",
    "NASBench101Network",
    "NASBench201Cell",
    "NASBench201Data",
    "NASBench201Network",
    "equivalent_indices",
]
