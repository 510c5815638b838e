"""Converters from architectures of other formats to graphs.

Names that need onnx or networkx import them at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from narformer_pyg.convert.darts import from_darts
from narformer_pyg.convert.dispatch import to_data
from narformer_pyg.convert.nasbench101 import from_nasbench101
from narformer_pyg.convert.nasbench201 import from_nasbench201

if TYPE_CHECKING:
    from narformer_pyg.convert.onnx_model import (
        Conversion,
        ConversionReport,
        convert_onnx,
        from_onnx,
        summary_text,
    )
    from narformer_pyg.convert.to_nx import to_networkx
    from narformer_pyg.convert.torch_module import convert_torch, export_onnx, from_torch

_LAZY = {
    **dict.fromkeys(("Conversion", "ConversionReport", "convert_onnx"), "onnx_model"),
    **dict.fromkeys(("from_onnx", "summary_text"), "onnx_model"),
    **dict.fromkeys(("convert_torch", "export_onnx", "from_torch"), "torch_module"),
    "to_networkx": "to_nx",
}

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
    "summary_text",
    "to_data",
    "to_networkx",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
