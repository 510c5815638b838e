"""Tensors of torch in ONNX's terms."""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from narformer_pyg.convert.onnx_model.graph import TensorType

_DTYPES = {
    torch.float32: TensorProto.FLOAT, torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16, torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64, torch.int32: TensorProto.INT32,
    torch.int16: TensorProto.INT16, torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8, torch.bool: TensorProto.BOOL,
    torch.complex64: TensorProto.COMPLEX64, torch.complex128: TensorProto.COMPLEX128,
}  # fmt: skip


def type_of(tensor: Tensor) -> TensorType:
    """Returns dimensions and element type in ONNX's terms."""
    return TensorType(tuple(tensor.shape), _DTYPES.get(tensor.dtype, 0))
