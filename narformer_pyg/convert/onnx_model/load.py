"""Step 1: from a file or a model in memory to a :class:`Graph`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from narformer_pyg.convert.onnx_model.graph import (
    MAX_VALUE_ELEMENTS,
    Constant,
    Graph,
    Node,
    TensorType,
    num_elements,
)
from narformer_pyg.errors import ConversionError

#: What protobuf can hold in one message.
MAX_PROTO_BYTES = 2**31 - 1


@dataclass
class LoadedModel:
    """A model, where it came from, and the names of its dynamic dimensions."""

    proto: ModelProto
    name: str
    #: The folder that weights in other files are read from.
    folder: Path | None
    graph: Graph
    #: Input to its dimensions; a string is the name of a dynamic one, :obj:`None` has no name.
    input_dims: dict[str, tuple[int | str | None, ...] | None]


def load_model(source: str | os.PathLike[str] | ModelProto) -> LoadedModel:
    r"""Reads a model. Weights in other files are checked to be there, but not loaded.

    Args:
        source (str or os.PathLike or ModelProto): The file, or a model in memory, which is not
            changed.

    Raises:
        ConversionError: If it is not an ONNX model, is truncated or empty, or if a file with its
            weights is missing, too short, or outside the model's folder.
        FileNotFoundError: If there is no such file.
        TypeError: If :obj:`source` is none of these.
    """
    folder = None
    if isinstance(source, ModelProto):
        proto, name = source, source.graph.name or "model"
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        proto, name, folder = _read(path), path.name, path.parent
    else:
        raise TypeError(
            "Expected 'model' to be the path of an ONNX file or an onnx.ModelProto "
            f"(got {type(source).__name__}: {source!r:.80})"
        )
    if not proto.graph.node:
        raise ConversionError(f"Expected {name!r} to hold operators (got an empty graph)")
    if proto.functions:
        try:
            proto = onnx.inliner.inline_local_functions(proto)
        except Exception as error:
            raise ConversionError(
                f"Expected the functions of {name!r} to be well formed (got {error})"
            ) from error
    if folder is not None:
        _check_external_data(proto, folder, name)
    graph, input_dims = _view(proto)
    return LoadedModel(proto, name, folder, graph, input_dims)


def _read(path: Path) -> ModelProto:
    if path.is_dir():
        raise ConversionError(f"Expected 'model' to be a file (got the folder {str(path)!r})")
    try:
        proto = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Expected 'model' to be an ONNX file (got {str(path)!r}, which does not exist)"
        ) from None
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise ConversionError(
            f"Expected {str(path)!r} to be an ONNX model (got {path.stat().st_size} bytes that "
            f"protobuf cannot read: {error}); the file is of another format or truncated"
        ) from error
    if not proto.ir_version or not proto.HasField("graph"):
        raise ConversionError(
            f"Expected {str(path)!r} to be an ONNX model (got {path.stat().st_size} bytes without "
            "a version or a graph)"
        )
    return proto


def _check_external_data(proto: ModelProto, folder: Path, name: str) -> None:
    root = folder.resolve()
    for tensor in proto.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        info = ExternalDataInfo(tensor)
        path = (root / info.location).resolve()
        if not path.is_relative_to(root):
            raise ConversionError(
                f"Expected the weights of {name!r} to lie in its folder (got {info.location!r} for "
                f"{tensor.name!r}, which is {path} after links are followed); files elsewhere are "
                "not read: copy the file itself next to the model"
            )
        if not path.is_file():
            raise ConversionError(
                f"Expected the weights of {name!r} next to it (got no file {info.location!r} for "
                f"{tensor.name!r}); copy it to {str(folder)!r}"
            )
        end = (info.offset or 0) + (info.length or 0)
        if path.stat().st_size < end:
            raise ConversionError(
                f"Expected {info.location!r}, which holds the weights of {name!r}, to have at "
                f"least {end} bytes (got {path.stat().st_size}); it is truncated"
            )
        if 0 <= num_elements(tuple(tensor.dims)) <= MAX_VALUE_ELEMENTS:
            load_external_data_for_tensor(tensor, str(root))  # a shape may be among them
            tensor.data_location = TensorProto.DEFAULT


def _view(proto: ModelProto) -> tuple[Graph, dict[str, tuple[int | str | None, ...] | None]]:
    constants = {
        t.name: Constant(tuple(t.dims), t.data_type, t, is_initializer=True)
        for t in proto.graph.initializer
    }
    for sparse in proto.graph.sparse_initializer:
        constants[sparse.values.name] = Constant(
            tuple(sparse.dims), sparse.values.data_type, is_initializer=True
        )
    input_dims = {}
    inputs = {}
    for value in proto.graph.input:
        if value.name not in constants:  # before IR version 4, weights are inputs, too
            named = _named_dims(value)
            input_dims[value.name] = named
            dims = None if named is None else tuple(d if type(d) is int else None for d in named)
            inputs[value.name] = TensorType(dims, value.type.tensor_type.elem_type)
    graph = Graph(
        nodes=[Node(node, i) for i, node in enumerate(proto.graph.node)],
        inputs=inputs,
        outputs=[value.name for value in proto.graph.output],
        constants=constants,
        opsets={"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import},
    )
    for value in (*proto.graph.value_info, *proto.graph.output):
        named = _named_dims(value)
        if named is not None and all(type(d) is int for d in named):
            graph.declared[value.name] = TensorType(
                named,  # type: ignore[arg-type]
                value.type.tensor_type.elem_type,
            )
    return graph, input_dims


def _named_dims(value: ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Returns the dimensions; the value of a symbolic one, which reads as 0, is never used."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or None
        for d in tensor.shape.dim
    )
