"""Transforms of architecture graphs."""

from narformer_pyg.transforms.encode_tokens import EncodeTokens
from narformer_pyg.transforms.equivalent_cells import equivalent_graphs
from narformer_pyg.transforms.information_flow import InformationFlowAugmentation, augment

__all__ = ["EncodeTokens", "InformationFlowAugmentation", "augment", "equivalent_graphs"]
