"""Latency of ONNX models measured with ONNX Runtime, and networks to measure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narformer_pyg.profiling.families import FAMILIES, Family, generate
    from narformer_pyg.profiling.labels import (
        LabelComparison,
        LatencyLabel,
        compare_labels,
        read_labels,
        write_labels,
    )
    from narformer_pyg.profiling.latency_set import measure_again, write_networks
    from narformer_pyg.profiling.measure import Measurements, measure_models, profile_folder
    from narformer_pyg.profiling.weights import materialize, strip_weights

__all__ = [
    "FAMILIES",
    "Family",
    "LabelComparison",
    "LatencyLabel",
    "Measurements",
    "compare_labels",
    "generate",
    "materialize",
    "measure_again",
    "measure_models",
    "profile_folder",
    "read_labels",
    "strip_weights",
    "write_labels",
    "write_networks",
]

# The process that measures imports this package too, and must start fast and without torch: names
# are looked up when they are used.
_MODULES = {
    "families": ("FAMILIES", "Family", "generate"),
    "labels": (
        "LabelComparison", "LatencyLabel", "compare_labels", "read_labels", "write_labels",
    ),
    "latency_set": ("measure_again", "write_networks"),
    "measure": ("Measurements", "measure_models", "profile_folder"),
    "weights": ("materialize", "strip_weights"),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
