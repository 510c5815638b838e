"""Torch modules as graphs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator
from typing import Any

import torch
from onnx import ModelProto
from torch_geometric.data import Data

from narformer_pyg.convert.onnx_model import Conversion
from narformer_pyg.convert.onnx_model.assemble import assemble
from narformer_pyg.convert.onnx_model.canonical import canonical
from narformer_pyg.convert.onnx_model.counting import check_counting
from narformer_pyg.convert.torch_trace.deployed import as_deployed
from narformer_pyg.convert.torch_trace.trace import arguments_of, inference, trace
from narformer_pyg.errors import ConversionError
from narformer_pyg.vocabulary import get_vocabulary


def from_torch(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    fold_batch_norm: bool = False,
    vocabulary: str = "onnx",
    counting: str = "standard",
    simplify: bool = True,
) -> Data:
    r"""Converts a torch module to a graph, by recording one run without data.

    .. code-block:: python

        data = from_torch(network, torch.empty(1, 3, 32, 32))
        # The whole network of a cell, of any search space:
        data = from_torch(cell.to_module(), torch.empty(1, 3, 32, 32))
        with torch.device("meta"):  # no memory for weights
            network = torchvision.models.vit_h_14()
        data = from_torch(network, torch.empty(8, 3, 224, 224), fold_batch_norm=True)

    The module runs as in inference (:meth:`torch.nn.Module.eval`) on tensors that have a shape and
    no data, whatever device it is on; this takes a fraction of a second and some megabytes for a
    network of any size. The shapes, and with them the batch size, are those of the examples. What
    depends on weights or constants alone is no operator of the graph. Operators have the form that
    :func:`torch.onnx.export` gives them, so that a module and its ONNX file have one graph;
    ``docs/converters.md`` lists the differences.

    Args:
        module (torch.nn.Module): The network; it is left as it was.
        example_inputs (torch.Tensor or tuple or dict): The arguments of one call: a tensor, a tuple
            of positional arguments, or a dictionary of named ones. Shapes and types matter, values
            do not.
        fold_batch_norm (bool, optional): Whether batch normalisation behind a convolution is a part
            of it and equal operators on the same input run once, as in exported and deployed
            networks, instead of each on its own, as PyTorch runs them. (default: :obj:`False`)
        vocabulary (str, optional): See :func:`~narformer_pyg.convert.from_onnx`.
            (default: :obj:`"onnx"`)
        counting (str, optional): See :func:`~narformer_pyg.convert.from_onnx`. Parameters are those
            of the module, each once. (default: :obj:`"standard"`)
        simplify (bool, optional): See :func:`~narformer_pyg.convert.from_onnx`.
            (default: :obj:`True`)

    Returns:
        Data: The graph, see :func:`~narformer_pyg.convert.from_onnx`.

    Raises:
        ConversionError: If the module fails with these inputs, if its control flow depends on
            values of tensors, or if its output does not depend on its inputs.
        TypeError: If :obj:`module` is not a module.
        ValueError: If :obj:`vocabulary` or :obj:`counting` is unknown.
    """
    return convert_torch(
        module,
        example_inputs,
        fold_batch_norm=fold_batch_norm,
        vocabulary=vocabulary,
        counting=counting,
        simplify=simplify,
    ).data


def convert_torch(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    fold_batch_norm: bool = False,
    vocabulary: str = "onnx",
    counting: str = "standard",
    simplify: bool = True,
) -> Conversion:
    r"""Converts a torch module to a graph and says how, see :func:`from_torch`.

    Returns:
        Conversion: The graph, its report, and the names, shapes and modules of its nodes.
    """
    _check_module(module)
    get_vocabulary(vocabulary)
    check_counting(counting)
    recorded = trace(module, example_inputs)
    graph, notes = recorded.graph, []
    num_operators = len(graph.nodes)
    if fold_batch_norm:
        as_deployed(graph)
    if recorded.num_unused:
        notes.append(
            f"{recorded.num_unused:,} parameters are folded into constants or not used by this call"
        )
    folded_flops = 0 if fold_batch_norm or counting != "standard" else recorded.folded_flops
    if folded_flops:
        notes.append(
            f"{folded_flops:,} FLOPs are of constants that PyTorch computes at every call: "
            "counted, but no operators of the graph"
        )
    unknown = sorted({node.operator for node in graph.nodes if node.domain})
    if unknown:
        notes.append(f"operators without a rule are unknown in the graph: {', '.join(unknown)}")
    plain = not simplify or vocabulary == "nnlqp"  # the paper's features are those of all operators
    return assemble(
        graph,
        graph if plain else canonical(graph),
        name=type(module).__name__,
        vocabulary=vocabulary,
        counting=counting,
        batch_size=None,
        num_operators=num_operators,
        notes=notes,
        parameters=recorded.parameters if counting == "standard" else None,
        modules=recorded.modules,
        folded_flops=folded_flops,
    )


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
    _check_module(module)
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportError(
            "torch.onnx.export needs the package onnxscript; install it with "
            '"pip install \'narformer-pyg[torch-export]\'" or "pip install onnxscript"'
        )
    args, kwargs = arguments_of(example_inputs)
    try:
        with inference(module), _quiet():
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


def _check_module(module: Any) -> None:
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"Expected 'module' to be a torch.nn.Module (got {type(module).__name__}: "
            f"{module!r:.80})"
        )


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
