"""All steps from an ONNX model to a graph."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from onnx import ModelProto
from torch_geometric.data import Data

from narformer_pyg._checks import check_integer
from narformer_pyg.convert.onnx_model.assemble import assemble
from narformer_pyg.convert.onnx_model.canonical import canonical
from narformer_pyg.convert.onnx_model.check import misfit, misscaled
from narformer_pyg.convert.onnx_model.counting import check_counting
from narformer_pyg.convert.onnx_model.fold import infer_and_fold
from narformer_pyg.convert.onnx_model.graph import Graph, TensorType
from narformer_pyg.convert.onnx_model.infer import (
    add_type,
    infer_node_with_onnx,
    infer_with_onnx,
    use_declared,
)
from narformer_pyg.convert.onnx_model.inputs import (
    InputShapes,
    batch_of,
    concrete_inputs,
    fix_values,
)
from narformer_pyg.convert.onnx_model.load import LoadedModel, load_model
from narformer_pyg.convert.onnx_model.order import check_nodes, check_sources, sort_nodes
from narformer_pyg.convert.onnx_model.report import Conversion
from narformer_pyg.convert.onnx_model.runtime import HINT, RuntimeRungError, run_shapes
from narformer_pyg.errors import ConversionError
from narformer_pyg.vocabulary import get_vocabulary

log = logging.getLogger(__name__)

#: Raised by whoever changes the graph of a model, so that graphs kept on disk are made again.
CONVERTER_REVISION = 1


def from_onnx(
    model: str | os.PathLike[str] | ModelProto,
    *,
    input_shapes: InputShapes | None = None,
    batch_size: int | None = None,
    input_values: Mapping[str, Any] | None = None,
    vocabulary: str = "onnx",
    counting: str = "standard",
    simplify: bool = True,
    use_runtime: bool = True,
) -> Data:
    r"""Converts an `ONNX <https://onnx.ai>`_ model to a graph.

    .. code-block:: python

        data = from_onnx("resnet18.onnx", batch_size=8)
        # Data(edge_index=[2, 77], op=[70], position=[70], attr=[70, 12], static=[1, 4], ...)

    A node is an operator or an input of the model; an edge is a tensor that one passes to another.
    Weights are not nodes, and neither is what no runtime executes: constants, shape arithmetic and
    identities are folded. Of weights only the dimensions are read, so files whose weights were
    stripped convert as well. What exporters write in several ways has one form, see
    :mod:`narformer_pyg.convert.onnx_model.canonical`.

    Args:
        model (str or os.PathLike or ModelProto): The file, or a model in memory, which is not
            changed.
        input_shapes (dict, optional): Input to shape, for inputs with dynamic dimensions.
            (default: :obj:`None`)
        batch_size (int, optional): The batch size, where it is dynamic. That of a model that was
            exported with a fixed one is changed if all shapes agree with the new one.
            (default: :obj:`None`)
        input_values (dict, optional): Values of inputs that are settings rather than data, for
            instance a sampling rate that chooses between two networks (:obj:`If`). They become
            constants. (default: :obj:`None`)
        vocabulary (str, optional): :obj:`"onnx"` for all standard operators or :obj:`"nnlqp"` for
            the paper's 28, see :class:`~narformer_pyg.vocabulary.OperatorVocabulary`.
            (default: :obj:`"onnx"`)
        counting (str, optional): How FLOPs, parameters and memory access are counted,
            :obj:`"standard"` or :obj:`"nnlqp"`, see
            :func:`~narformer_pyg.convert.onnx_model.counting.count`. (default: :obj:`"standard"`)
        simplify (bool, optional): If set to :obj:`False`, nothing is folded or rewritten: the nodes
            are those of the file. (default: :obj:`True`)
        use_runtime (bool, optional): If set to :obj:`False`, ONNX Runtime is not used, even where
            it is installed. Otherwise it executes the model for shapes that nothing else finds.
            (default: :obj:`True`)

    Returns:
        Data: :obj:`op` (long, :obj:`[N]`, an id of the vocabulary), :obj:`position` (long,
        :obj:`[N]`, topological index), :obj:`attr` (float, :obj:`[N, 12]`: 8 definition slots, see
        :mod:`narformer_pyg.convert.onnx_model.slots`, and 4 output dimensions, 0 where there is
        none; -1 is unknown), :obj:`edge_index` (long, :obj:`[2, E]`, in the direction of the data
        flow, sorted by target, then by source), :obj:`static` (float, :obj:`[1, 4]`: batch size,
        FLOPs, parameters, memory access in bytes, or elements for :obj:`"nnlqp"`),
        :obj:`num_nodes`, and :obj:`vocabulary` and :obj:`counting` as given, so that no predictor
        of others misreads the graph.

    Raises:
        ConversionError: If it is no ONNX model, truncated, cyclic or empty; if its weights are
            missing or lie outside of its folder; if an input has a dynamic dimension that nothing
            says; if shapes do not fit together, for instance with another batch size.
        FileNotFoundError: If there is no such file.
        TypeError: If :obj:`model` is neither a path nor a model.
        ValueError: If another argument is none of the above.
    """
    return convert_onnx(
        model,
        input_shapes=input_shapes,
        batch_size=batch_size,
        input_values=input_values,
        vocabulary=vocabulary,
        counting=counting,
        simplify=simplify,
        use_runtime=use_runtime,
    ).data


def convert_onnx(
    model: str | os.PathLike[str] | ModelProto | LoadedModel,
    *,
    input_shapes: InputShapes | None = None,
    batch_size: int | None = None,
    input_values: Mapping[str, Any] | None = None,
    vocabulary: str = "onnx",
    counting: str = "standard",
    simplify: bool = True,
    use_runtime: bool = True,
) -> Conversion:
    r"""Converts an ONNX model to a graph and says how, see :func:`from_onnx` for the arguments.

    Returns:
        Conversion: The graph, its :class:`ConversionReport`, and the names and shapes behind its
        nodes.
    """
    get_vocabulary(vocabulary)  # before any work
    check_counting(counting)
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size)
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    full = loaded.graph.copy()
    check_nodes(full.nodes, full.opset)
    full.nodes = sort_nodes(full.nodes)
    check_sources(full)
    fix_values(loaded, full, input_values or {})
    inputs, changed = concrete_inputs(loaded, input_shapes, batch_size, tuple(input_values or ()))
    notes: list[str] = []
    full.inputs = inputs
    graph = _with_shapes(loaded, full, use_runtime, notes)
    if changed:
        notes.append(_verify_change(loaded, full, graph))
    elif (problem := misfit(graph)) is not None:
        raise ConversionError(
            f"Expected the input shapes to fit {loaded.name!r} (got "
            f"{_shapes(inputs)}, with which {problem})"
        )
    bodies = [str(node) for node in graph.nodes if node.has_body]
    if bodies:
        notes.append(
            f"{len(bodies)} operators run graphs of their own, which are neither nodes nor counted "
            f"({', '.join(bodies[:3])}); where an input decides, give it in 'input_values'"
        )
    if not graph.nodes:
        raise ConversionError(
            f"Expected {loaded.name!r} to compute something from its inputs (got a graph of "
            "nothing but constants and copies)"
        )
    if not simplify:
        emitted = _unfolded(full, graph)
    else:  # the paper's features are those of the operators in the file
        emitted = graph if vocabulary == "nnlqp" else canonical(graph)
    return assemble(
        graph,
        emitted,
        name=loaded.name,
        vocabulary=vocabulary,
        counting=counting,
        batch_size=batch_size,
        num_operators=len(full.nodes),
        notes=notes,
    )


def _with_shapes(model: LoadedModel, full: Graph, use_runtime: bool, notes: list[str]) -> Graph:
    """Climbs the ladder as far as needed; returns the folded graph."""
    graph = full.copy()
    infer_and_fold(graph, infer_with_onnx, infer_node_with_onnx)
    if graph.unknown() and graph.inputs.items() <= model.graph.inputs.items():
        use_declared(graph)
        infer_and_fold(graph, infer_with_onnx, infer_node_with_onnx)
    unknown = graph.unknown()
    if not unknown:
        return graph
    reason = "use_runtime=False"
    if use_runtime:
        try:
            for name, type_ in run_shapes(model, graph, unknown).items():
                add_type(graph, name, type_, "onnxruntime")
        except RuntimeRungError as error:
            reason = str(error)
        else:
            reason = "ONNX Runtime does not expose them"
            infer_and_fold(graph, infer_with_onnx, infer_node_with_onnx)
    unknown = graph.unknown()
    if unknown:
        hint = "" if HINT in reason else f" ({reason})" if use_runtime else f"; {HINT}"
        notes.append(
            f"the shapes of {len(unknown)} tensors are unknown and -1 in the graph"
            f"{hint or f' ({reason})'}"
        )
    return graph


def _verify_change(model: LoadedModel, full: Graph, graph: Graph) -> str:
    """Raises unless all shapes agree with inputs that differ from those of the export."""
    before = full.copy()
    before.inputs = {name: model.graph.inputs[name] for name in graph.inputs}
    old, new = batch_of(before.inputs), batch_of(graph.inputs)
    what = f"{_shapes(graph.inputs)} instead of the exported {_shapes(before.inputs)}"
    problem = misfit(graph)
    unknown = graph.unknown()
    only_batch = all(
        type_.dims is not None
        and before.inputs[name].dims is not None
        and type_.dims[1:] == before.inputs[name].dims[1:]  # type: ignore[index]
        for name, type_ in graph.inputs.items()
    )
    if problem is None and not unknown and only_batch:
        infer_and_fold(before, infer_with_onnx, infer_node_with_onnx)
        problem = misscaled(before, graph, Fraction(new, old))
    if problem is None and unknown:
        problem = f"the shape of {unknown[0]!r} is unknown, so that nothing can be verified"
    if problem is not None:
        raise ConversionError(
            f"Expected {model.name!r} to take {what}, but the export has its own sizes in it: "
            f"{problem}; export it again with dynamic dimensions, or with these sizes"
        )
    return f"converted with {what}; all shapes agree"


def _unfolded(full: Graph, graph: Graph) -> Graph:
    """Returns the graph with all of its operators and the shapes that are known."""
    out = full.copy()
    out.constants = graph.constants
    out.types, out.rungs = dict(graph.types), dict(graph.rungs)
    # Constants come from operators here; folded ones must not hide what these say.
    infer_with_onnx(out)
    return out


def _shapes(inputs: dict[str, TensorType]) -> str:
    return ", ".join(f"{name} {list(type_.dims or ())}" for name, type_ in inputs.items())
