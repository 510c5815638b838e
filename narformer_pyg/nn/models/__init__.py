"""Models, and the predictor that joins one with its token encoder."""

from narformer_pyg.nn.models.baselines import GNNBaseline
from narformer_pyg.nn.models.frozen import FrozenNARFormerV2
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.narformer_v2 import NARFormerV2
from narformer_pyg.nn.models.predictor import ArchitecturePredictor, list_pretrained
from narformer_pyg.nn.models.registry import create_model, list_models

__all__ = [
    "ArchitecturePredictor",
    "FrozenNARFormerV2",
    "GNNBaseline",
    "GraphRegressor",
    "NARFormerV2",
    "create_model",
    "list_models",
    "list_pretrained",
]
