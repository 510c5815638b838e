"""The last rung: ONNX Runtime executes the model and every tensor's shape is read off.

Needs the extra ``runtime``. Shapes that depend on the values of the inputs are those of one
example: floats drawn from [0, 1), ones elsewhere.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

from narformer_pyg.convert.onnx_model.graph import Graph, TensorType, has_data, num_elements
from narformer_pyg.convert.onnx_model.load import MAX_PROTO_BYTES, LoadedModel

log = logging.getLogger(__name__)

#: What a user does to get this rung.
HINT = "pip install 'narformer-pyg[runtime]' lets ONNX Runtime find them by running the model"


class RuntimeRungError(RuntimeError):
    """ONNX Runtime is absent or cannot run the model; the message says why."""


def is_available() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def run_shapes(model: LoadedModel, graph: Graph, names: Collection[str]) -> dict[str, TensorType]:
    r"""Runs the model once and returns the shapes of tensors.

    Args:
        model (LoadedModel): The model. Stripped weights are replaced by zeros.
        graph (Graph): Its graph, for the shapes of the inputs.
        names (collection of str): The tensors.

    Raises:
        RuntimeRungError: If ONNX Runtime is not installed or cannot run the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeRungError(f"onnxruntime is not installed; {HINT}") from error
    proto = _runnable(model, graph, names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    wanted = list(dict.fromkeys(names))
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        made = {output.name for output in session.get_outputs()}
        wanted = [name for name in wanted if name in made]
        if not wanted:  # all of them are inside of a branch; no names would mean all outputs
            return {}
        feeds = {i.name: _feed(graph, i.name) for i in session.get_inputs()}
        values = session.run(wanted, feeds)
    except Exception as error:  # its exceptions have no common base
        raise RuntimeRungError(str(error).strip().split("\n")[0][:300]) from error
    found = zip(wanted, values, strict=True)
    return {name: _type(value) for name, value in found if isinstance(value, np.ndarray)}


def _runnable(model: LoadedModel, graph: Graph, names: Collection[str]) -> ModelProto:
    """Returns a copy of the model that has its weights and exposes the tensors."""
    size = sum(
        max(0, num_elements(tuple(t.dims))) * 4
        for t in model.proto.graph.initializer
        if not has_data(t)
    )
    if model.proto.ByteSize() + size > MAX_PROTO_BYTES:
        raise RuntimeRungError("the model with its weights is larger than the 2 GB of a message")
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    if model.folder is not None and any(
        t.data_location == TensorProto.EXTERNAL for t in proto.graph.initializer
    ):
        load_external_data_for_model(proto, str(model.folder))
    for tensor in proto.graph.initializer:
        if not has_data(tensor):
            _fill(tensor)
    for value in proto.graph.input:
        type_ = graph.inputs.get(value.name)
        if type_ is not None and type_.dims is not None:
            del value.type.tensor_type.shape.dim[:]
            for dim in type_.dims:
                value.type.tensor_type.shape.dim.add(dim_value=dim)
    for output in proto.graph.output:  # of another input, perhaps
        output.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    present = {output.name for output in proto.graph.output}
    produced = {name for node in proto.graph.node for name in node.output}
    for name in names:
        if name in produced and name not in present:
            proto.graph.output.add(name=name)
    return proto


def _fill(tensor: TensorProto) -> None:
    tensor.ClearField("data_location")
    del tensor.external_data[:]
    if tensor.data_type == TensorProto.STRING:
        tensor.string_data.extend([b""] * max(0, num_elements(tuple(tensor.dims))))
        return
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.raw_data = np.zeros(tuple(tensor.dims), dtype).tobytes()


def _feed(graph: Graph, name: str) -> np.ndarray:
    value = graph.value(name)
    return _example(graph.inputs[name]) if value is None else value


def _example(type_: TensorType) -> np.ndarray:
    if type_.dtype == TensorProto.STRING:
        return np.full(type_.dims or (), "a", dtype=object)  # type: ignore[arg-type]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(type_.dtype)
    dims: Any = type_.dims or ()
    if np.issubdtype(dtype, np.floating):
        return np.random.default_rng(0).random(dims).astype(dtype)
    return np.ones(dims, dtype)


def _type(value: np.ndarray) -> TensorType:
    if value.dtype.kind in "OU":
        return TensorType(value.shape, TensorProto.STRING)
    return TensorType(value.shape, int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype)))
