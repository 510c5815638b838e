"""Accuracy, loss and latency of neural architectures, predicted with graph-aided attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narformer_pyg._lazy import lazy_names

if TYPE_CHECKING:
    from narformer_pyg.convert import from_onnx, from_torch, to_data
    from narformer_pyg.nn.models import create_model
    from narformer_pyg.predictor import ArchitecturePredictor

__version__ = "0.1.0"

__all__ = ["ArchitecturePredictor", "create_model", "from_onnx", "from_torch", "to_data"]

# The main names load their rooms, and with them PyTorch, on first use.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "predictor": ("ArchitecturePredictor",),
        "nn.models": ("create_model",),
        "convert": ("from_onnx", "from_torch", "to_data"),
    },
)
