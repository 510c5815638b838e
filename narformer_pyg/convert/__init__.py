"""Converters from architectures of other formats to graphs.

Names that need onnx or networkx import them at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narformer_pyg._lazy import lazy_names
from narformer_pyg.convert.darts import from_darts
from narformer_pyg.convert.dispatch import to_data
from narformer_pyg.convert.nasbench101 import from_nasbench101
from narformer_pyg.convert.nasbench201 import from_nasbench201

if TYPE_CHECKING:
    from narformer_pyg.convert.named_networks import is_named, named_network
    from narformer_pyg.convert.onnx_model import (
        Conversion,
        ConversionReport,
        convert_onnx,
        from_onnx,
        summary_text,
    )
    from narformer_pyg.convert.to_nx import to_networkx
    from narformer_pyg.convert.torch_module import convert_torch, export_onnx, from_torch

__all__ = [
    "Conversion",
    "ConversionReport",
    "convert_onnx",
    "convert_torch",
    "export_onnx",
    "from_darts",
    "from_nasbench101",
    "from_nasbench201",
    "from_onnx",
    "from_torch",
    "is_named",
    "named_network",
    "summary_text",
    "to_data",
    "to_networkx",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "onnx_model": (
            "Conversion",
            "ConversionReport",
            "convert_onnx",
            "from_onnx",
            "summary_text",
        ),
        "named_networks": ("is_named", "named_network"),
        "torch_module": (
            "convert_torch",
            "export_onnx",
            "from_torch",
        ),
        "to_nx": ("to_networkx",),
    },
)
