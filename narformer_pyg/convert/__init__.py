"""Converters from architectures of other formats to graphs."""

from narformer_pyg.convert.dispatch import to_data
from narformer_pyg.convert.nasbench201 import from_nasbench201
from narformer_pyg.convert.onnx_model import (
    Conversion,
    ConversionReport,
    convert_onnx,
    from_onnx,
    summary_text,
)

__all__ = [
    "Conversion",
    "ConversionReport",
    "convert_onnx",
    "from_nasbench201",
    "from_onnx",
    "summary_text",
    "to_data",
]
