"""Models by name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from narformer_pyg._registry import Registry

if TYPE_CHECKING:
    from narformer_pyg.nn.models.graph_regressor import GraphRegressor

#: Models by name; :func:`register_model` adds one, which :func:`create_model` then builds and a
#: checkpoint can name. A model keeps the arguments that rebuild it in :obj:`config`.
MODELS = Registry("model")
register_model = MODELS.register


def list_models() -> list[str]:
    """Returns the names that :func:`create_model` knows."""
    return MODELS.names()


def create_model(name: str, in_channels: int, **kwargs: Any) -> GraphRegressor:
    r"""Creates a model.

    Args:
        name (str): One of :func:`list_models`.
        in_channels (int): Size of each node code, for instance :obj:`encoder.out_channels`.
        **kwargs (optional): Additional arguments of the model, for instance of
            :class:`~narformer_pyg.nn.models.NARFormerV2`.

    Raises:
        ValueError: If there is no such model, or it does not take an argument.
    """
    cls = MODELS.get(name)
    known = _arguments(cls)
    unknown = sorted(kwargs.keys() - known)
    if unknown:
        raise ValueError(
            f"Expected arguments of the model {name!r}: {', '.join(sorted(known))} "
            f"(got {', '.join(map(repr, unknown))})"
        )
    return cls(in_channels=in_channels, **kwargs)


def _arguments(cls: Any) -> set[str]:
    """Returns the names of the arguments of a class, those of what it passes on included."""
    names: set[str] = set()
    for source in (cls, *getattr(cls, "PASSES_ON_TO", ())):
        names |= set(inspect.signature(source).parameters)
    return names - {"self", "kwargs"}
