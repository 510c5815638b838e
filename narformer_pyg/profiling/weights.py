"""Weights left out of ONNX files, and random weights for models that have to run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, TensorProto, helper

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
# Weights are read from one pool of random numbers at changing offsets: drawing tens of millions of
# them would take longer than measuring the network.
_POOL_SIZE = 1 << 20


def has_missing_weights(model: ModelProto) -> bool:
    """Tells whether an initialiser of the model has a shape but no data."""
    return any(_is_missing(tensor) for tensor in model.graph.initializer)


def strip_weights(model: ModelProto, keep_elements: int = 64) -> ModelProto:
    r"""Returns a copy of a model without the data of its weights.

    Integers stay: as shapes and indices they change what the graph computes. The copy takes
    kilobytes and has every shape of the original.

    Args:
        model (onnx.ModelProto): The model, its data inside it.
        keep_elements (int, optional): The size up to which initialisers keep their data, since
            scalars and the like can be limits or factors. (default: :obj:`64`)
    """
    stripped = ModelProto()
    stripped.CopyFrom(model)
    for tensor in stripped.graph.initializer:
        if tensor.data_type in _FLOATS and math.prod(tensor.dims) > keep_elements:
            for field in _FIELDS:
                tensor.ClearField(field)
    return stripped


def materialize(model: ModelProto, rng: np.random.Generator) -> ModelProto:
    r"""Returns a copy of a model in which weights without data hold random numbers.

    Weights of linear operators are uniform with a variance of two over their fan-in, so that
    activations keep their size through any depth: denormal or infinite numbers would change the
    latency. Biases are small; scales and variances of normalisation layers are near one.

    Args:
        model (onnx.ModelProto): The model; initialisers that have data keep it.
        rng (numpy.random.Generator): The source of the numbers.

    Raises:
        ValueError: If an initialiser without data is not of a floating-point type: no random
            number can stand for a shape or an index.
    """
    filled = ModelProto()
    filled.CopyFrom(model)
    # The operator behind every input of a node (^T marks a transposed Gemm), and its place there.
    roles: dict[str, tuple[str, int]] = {}
    for node in filled.graph.node:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        for place, name in enumerate(node.input):
            roles.setdefault(name, (node.op_type + "^T" * transposed, place))
    pool = rng.uniform(-1.0, 1.0, _POOL_SIZE).astype(np.float32)
    for tensor in filled.graph.initializer:
        if not _is_missing(tensor):
            continue
        if tensor.data_type not in _FLOATS:
            kind = TensorProto.DataType.Name(tensor.data_type)
            raise ValueError(
                f"Expected the initialiser {tensor.name!r} to have data (got none of type {kind}, "
                "which random numbers cannot replace); strip floating-point weights only"
            )
        size, start = math.prod(tensor.dims), int(rng.integers(_POOL_SIZE // 2))
        values = np.resize(pool[start : start + size], tuple(tensor.dims))
        values = _scale(values, *roles.get(tensor.name, ("", 0)))
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.raw_data = np.ascontiguousarray(values, dtype=dtype).tobytes()
    return filled


def _is_missing(tensor: TensorProto) -> bool:
    return (
        tensor.data_location != TensorProto.EXTERNAL
        and math.prod(tensor.dims) > 0
        and not any(len(getattr(tensor, field)) for field in _FIELDS)
    )


def _scale(values: np.ndarray, operator: str, place: int) -> np.ndarray:
    """Gives numbers uniform in [-1, 1] the size that suits their role."""
    is_norm = operator.endswith("Normalization")
    if is_norm and (place == 1 or (operator == "BatchNormalization" and place == 4)):
        return 1.0 + 0.1 * values
    if values.ndim < 2 or place == 0:
        return 0.1 * values
    if operator in ("Conv", "Gemm^T"):
        fan_in = math.prod(values.shape[1:])
    elif operator == "ConvTranspose":
        fan_in = math.prod(values.shape) // values.shape[1]
    else:
        fan_in = values.shape[-2]
    return values * math.sqrt(6.0 / fan_in)  # a uniform number on [-a, a] has variance a^2 / 3


def element_type(tensors: Iterable[TensorProto]) -> str:
    """Returns the most frequent type of numbers in tensors, such as :obj:`"float32"`."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[TensorProto.DataType.Name(tensor.data_type)] += math.prod(tensor.dims)
    kind = max(counts, key=lambda kind: counts[kind], default="unknown")
    return "float32" if kind == "FLOAT" else kind.lower()
