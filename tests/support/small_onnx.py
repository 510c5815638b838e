"""A small ONNX model that runs."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


def make_model(
    batch: int | str = 2, size: int = 8, kind: int = TensorProto.FLOAT, repeat: int = 1
) -> ModelProto:
    """A product of the input ``x`` with a square matrix, repeated."""
    x = helper.make_tensor_value_info("x", kind, [batch, size])
    y = helper.make_tensor_value_info("y", kind, [batch, size])
    names = ["x", *(f"h{i}" for i in range(repeat - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(repeat)]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = numpy_helper.from_array(np.ones((size, size), dtype) / size, "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
