"""Transforms of architecture graphs."""

from narformer_pyg.transforms.information_flow import InformationFlowAugmentation, augment

__all__ = ["InformationFlowAugmentation", "augment"]
