"""Torch modules as graphs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from onnx import ModelProto
from torch_geometric.data import Data

from narformer_pyg.convert.onnx_model import Conversion, convert_onnx
from narformer_pyg.errors import ConversionError


def from_torch(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    vocabulary: str = "onnx",
    counting: str = "standard",
    simplify: bool = True,
    use_runtime: bool = True,
) -> Data:
    r"""Converts a torch module to a graph, by an export to ONNX in memory.

    The module is exported as it runs in inference (:meth:`torch.nn.Module.eval`) with
    :func:`torch.onnx.export`, which needs the package :obj:`onnxscript`; the shapes, and with them
    the batch size, are those of the examples. The graph is that of the exported model: the exporter
    folds batch normalisation into convolutions and merges weights that are equal, as new modules'
    biases are, so that there can be fewer parameters than in the module.

    .. code-block:: python

        data = from_torch(network, torch.randn(1, 3, 32, 32))
        # The whole network of a cell, of any search space:
        data = from_torch(cell.to_module(), torch.randn(1, 3, 32, 32))

    Args:
        module (torch.nn.Module): The network. Its training mode is left as it was.
        example_inputs (torch.Tensor or tuple or dict): The arguments of one call: a tensor, a tuple
            of positional arguments, or a dictionary of named ones. Shapes and types matter, values
            do not.
        vocabulary (str, optional): See :func:`~narformer_pyg.convert.from_onnx`.
            (default: :obj:`"onnx"`)
        counting (str, optional): See :func:`~narformer_pyg.convert.from_onnx`.
            (default: :obj:`"standard"`)
        simplify (bool, optional): See :func:`~narformer_pyg.convert.from_onnx`.
            (default: :obj:`True`)
        use_runtime (bool, optional): See :func:`~narformer_pyg.convert.from_onnx`.
            (default: :obj:`True`)

    Returns:
        Data: The graph, see :func:`~narformer_pyg.convert.from_onnx`.

    Raises:
        ConversionError: If torch cannot export the module, or the result cannot be converted.
        ImportError: If :obj:`onnxscript` is not installed.
        TypeError: If :obj:`module` is not a module.
    """
    return convert_torch(
        module,
        example_inputs,
        vocabulary=vocabulary,
        counting=counting,
        simplify=simplify,
        use_runtime=use_runtime,
    ).data


def convert_torch(module: torch.nn.Module, example_inputs: Any, **kwargs: Any) -> Conversion:
    r"""Converts a torch module to a graph and says how.

    Args:
        module (torch.nn.Module): The network.
        example_inputs (torch.Tensor or tuple or dict): The arguments of one call.
        **kwargs (optional): Those of :func:`~narformer_pyg.convert.convert_onnx`.

    Returns:
        Conversion: The graph, its report, and the names of its nodes.
    """
    return convert_onnx(export_onnx(module, example_inputs), **kwargs)


def export_onnx(module: torch.nn.Module, example_inputs: Any) -> ModelProto:
    r"""Exports a module to an ONNX model in memory, as it runs in inference.

    .. code-block:: python

        onnx.save(export_onnx(cell.to_module(), torch.randn(1, 3, 32, 32)), "cell.onnx")
        data = from_onnx("cell.onnx")
        measure_models(["cell.onnx"]).labels[0].latency_ms  # of narformer_pyg.profiling

    Args:
        module (torch.nn.Module): The network.
        example_inputs (torch.Tensor or tuple or dict): The arguments of one call.

    Raises:
        ConversionError: If torch cannot export the module.
        ImportError: If :obj:`onnxscript` is not installed.
        TypeError: If :obj:`module` is not a module.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"Expected 'module' to be a torch.nn.Module (got {type(module).__name__}: "
            f"{module!r:.80})"
        )
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportError(
            "torch.onnx.export needs the package onnxscript; install it with "
            '"pip install \'narformer-pyg[torch-export]\'" or "pip install onnxscript"'
        )
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    elif isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        args = tuple(example_inputs)
    else:
        args = (example_inputs,)
    try:
        with _inference(module), _quiet():
            program = torch.onnx.export(
                module, args, kwargs=kwargs or None, dynamo=True, verbose=False
            )
    except Exception as error:  # the exporter's own exceptions wrap those of the module
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip() or type(cause).__name__).split("\n")[0]
        raise ConversionError(
            f"Expected torch.onnx.export to export {type(module).__name__} (got "
            f"{type(cause).__name__}: {reason[:300]}); call the module with 'example_inputs' to "
            "see whether they fit"
        ) from error
    if program is None:
        raise ConversionError(
            f"Expected torch.onnx.export to return a model of {type(module).__name__} (got None)"
        )
    return program.model_proto


@contextlib.contextmanager
def _inference(module: torch.nn.Module) -> Iterator[None]:
    """Switches a module and all of its parts to inference for the time of the block."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress off the screen; errors are raised, not printed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
