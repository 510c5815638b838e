"""Search spaces: architectures that can be parsed, formatted, varied, drawn and run."""

from narformer_pyg.spaces.nasbench201 import NASBench201Cell
from narformer_pyg.spaces.nasbench201_network import NASBench201Network

__all__ = ["NASBench201Cell", "NASBench201Network"]
