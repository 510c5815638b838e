"""Models of graphs, by name."""

from narformer_pyg.nn.models.baselines import GNNBaseline
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.narformer_v2 import NARFormerV2
from narformer_pyg.nn.models.registry import MODELS, create_model, list_models, register_model

__all__ = [
    "MODELS",
    "GNNBaseline",
    "GraphRegressor",
    "NARFormerV2",
    "create_model",
    "list_models",
    "register_model",
]
