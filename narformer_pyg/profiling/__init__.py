"""Latency of ONNX models measured with ONNX Runtime, and random networks to measure.

Names are imported at first use: the processes that measure start fast and without torch.
"""

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

_LAZY = {
    **dict.fromkeys(("FAMILIES", "Family", "generate"), "families"),
    **dict.fromkeys(("LabelComparison", "LatencyLabel", "compare_labels"), "labels"),
    **dict.fromkeys(("read_labels", "write_labels"), "labels"),
    **dict.fromkeys(("measure_again", "write_networks"), "latency_set"),
    **dict.fromkeys(("Measurements", "measure_models", "profile_folder"), "measure"),
    **dict.fromkeys(("materialize", "strip_weights"), "weights"),
}

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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
