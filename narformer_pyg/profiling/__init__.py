"""Latency of ONNX models measured with ONNX Runtime, and random networks to measure.

Names are imported at first use: the processes that measure start fast and without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narformer_pyg._lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, {
    "families": ["FAMILIES", "Family", "generate"],
    "labels": ["LabelComparison", "LatencyLabel", "compare_labels", "read_labels", "write_labels"],
    "latency_set": ["measure_again", "write_networks"],
    "measure": ["Measurements", "measure_models", "profile_folder"],
    "weights": ["materialize", "strip_weights"],
})  # fmt: skip
