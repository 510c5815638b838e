"""Models by name."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

from narformer_pyg._registry import Registry
from narformer_pyg.nn.models.baselines import GNNBaseline
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.narformer_v2 import NARFormerV2

MODELS = Registry("model")
register_model = MODELS.register

register_model("narformer_v2")(NARFormerV2)
for _name in ("gcn", "gat", "gin", "graphsage"):
    _init = partialmethod(GNNBaseline.__init__, _name)
    register_model(_name)(type(_name, (GNNBaseline,), {"__init__": _init}))


def list_models() -> list[str]:
    """Returns the names that :func:`create_model` knows."""
    return MODELS.names()


def create_model(name: str, in_channels: int, **kwargs: Any) -> GraphRegressor:
    r"""Creates a model.

    Args:
        name (str): One of :func:`list_models`.
        in_channels (int): Size of each node code, for instance :obj:`encoder.out_channels`.
        **kwargs (optional): Additional arguments of the model.

    Raises:
        ValueError: If there is no such model.
    """
    if name not in MODELS.names():
        raise ValueError(f"Expected 'name' to be among {', '.join(list_models())} (got {name!r})")
    return MODELS.get(name)(in_channels=in_channels, **kwargs)


def model_name(model: GraphRegressor) -> str:
    """Returns the name under which :func:`create_model` builds such a model."""
    return MODELS.name_of(model)
