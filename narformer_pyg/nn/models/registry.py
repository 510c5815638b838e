"""Models by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from narformer_pyg.nn.models.baselines import GNNBaseline
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.narformer_v2 import NARFormerV2

_MODELS: dict[str, Callable[..., GraphRegressor]] = {
    "narformer_v2": NARFormerV2,
    "gcn": partial(GNNBaseline, "gcn"),
    "gat": partial(GNNBaseline, "gat"),
    "gin": partial(GNNBaseline, "gin"),
    "graphsage": partial(GNNBaseline, "graphsage"),
}


def list_models() -> list[str]:
    """Returns the names that :func:`create_model` knows."""
    return list(_MODELS)


def create_model(name: str, in_channels: int, **kwargs: Any) -> GraphRegressor:
    r"""Creates a model.

    Args:
        name (str): One of :func:`list_models`.
        in_channels (int): Size of each node code, for instance :obj:`encoder.out_channels`.
        **kwargs (optional): Additional arguments of
            :class:`~narformer_pyg.nn.models.NARFormerV2` or
            :class:`~narformer_pyg.nn.models.GNNBaseline`.

    Raises:
        ValueError: If there is no such model.
    """
    if name not in _MODELS:
        raise ValueError(f"Expected 'name' to be among {', '.join(_MODELS)} (got {name!r})")
    return _MODELS[name](in_channels=in_channels, **kwargs)


def model_name(model: GraphRegressor) -> str:
    """Returns the name under which :func:`create_model` builds such a model."""
    if isinstance(model, GNNBaseline):
        return model.network
    if type(model) is NARFormerV2:
        return "narformer_v2"
    raise ValueError(
        f"Expected 'model' to be one that 'create_model' can build, so that it can be saved (got "
        f"{type(model).__name__}); save its 'state_dict()' yourself"
    )
