"""Predictors: from architectures to numbers in the units of their labels."""

from narformer_pyg.predictor.predictor import ArchitecturePredictor, list_pretrained

__all__ = ["ArchitecturePredictor", "list_pretrained"]
