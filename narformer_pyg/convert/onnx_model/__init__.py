"""ONNX models as graphs, in small steps: load, inputs, shapes, folding, order, counting, tokens."""

from narformer_pyg.convert.onnx_model.convert import convert_onnx, from_onnx
from narformer_pyg.convert.onnx_model.report import Conversion, ConversionReport, summary_text

__all__ = ["Conversion", "ConversionReport", "convert_onnx", "from_onnx", "summary_text"]
