"""Predictors: from architectures to numbers in the units of their labels."""

from narformer_pyg.predictor.averaging import AveragedPredictor
from narformer_pyg.predictor.calibration import MonotoneCalibration
from narformer_pyg.predictor.hub import list_pretrained
from narformer_pyg.predictor.predictor import ArchitecturePredictor

__all__ = ["ArchitecturePredictor", "AveragedPredictor", "MonotoneCalibration", "list_pretrained"]
