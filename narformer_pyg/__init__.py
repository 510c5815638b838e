"""Accuracy, loss and latency of neural architectures, predicted with graph-aided attention."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narformer_pyg.convert import from_onnx, from_torch, to_data
    from narformer_pyg.nn.models import create_model
    from narformer_pyg.predictor import ArchitecturePredictor

__version__ = "0.1.0"

__all__ = ["ArchitecturePredictor", "create_model", "from_onnx", "from_torch", "to_data"]

# The main names load their rooms, and with them PyTorch, on first use.
_ROOMS = {
    "ArchitecturePredictor": "predictor",
    "create_model": "nn.models",
    "from_onnx": "convert",
    "from_torch": "convert",
    "to_data": "convert",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
