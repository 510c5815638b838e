"""Step 2: a number for every dimension of every input."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import onnx

from narformer_pyg.convert.onnx_model.graph import Constant, Graph, TensorType, num_elements
from narformer_pyg.convert.onnx_model.load import LoadedModel
from narformer_pyg.errors import ConversionError

#: A tensor with more elements than this fits no machine: its dimensions are a mistake.
MAX_ELEMENTS = 2**40

InputShapes = Mapping[str, Sequence[int]]


def concrete_inputs(
    model: LoadedModel,
    input_shapes: InputShapes | None,
    batch_size: int | None,
    without: Collection[str] = (),
) -> tuple[dict[str, TensorType], bool]:
    r"""Returns the inputs with numbers for dimensions, and whether a fixed dimension was changed.

    Dynamic dimensions are taken from :obj:`input_shapes`; :obj:`batch_size` fills the first
    dimension of every input and all dimensions that share its name.

    Args:
        model (LoadedModel): The model.
        input_shapes (dict, optional): Input to shape.
        batch_size (int, optional): The batch size.
        without (collection of str, optional): Inputs that are none, see :func:`fix_values`.

    Raises:
        ConversionError: If a dimension stays unknown, or :obj:`input_shapes` does not fit.
    """
    named = {name: dims for name, dims in model.input_dims.items() if name not in without}
    given = dict(input_shapes or {})
    changed = False
    for name, shape in given.items():
        old = _checked_input(named, name, shape)
        pairs = zip(shape if old is None else old, shape, strict=True)
        changed |= any(type(d) is int and d != s for d, s in pairs)
        named[name] = tuple(int(s) for s in shape)
    if batch_size is not None:
        changed |= _set_batch(named, set(given), batch_size)
    missing = {
        name: dims
        for name, dims in named.items()
        if dims is None or any(type(d) is not int for d in dims)
    }
    if missing:
        raise ConversionError(_missing_message(model, missing, batch_size))
    inputs = {}
    for name, dims in named.items():
        numbers = tuple(int(d) for d in dims)  # type: ignore[union-attr, arg-type]
        if num_elements(numbers) > MAX_ELEMENTS:
            raise ConversionError(
                f"Expected input {name!r} to have at most 2**40 elements (got {list(numbers)})"
            )
        inputs[name] = TensorType(numbers, model.graph.inputs[name].dtype)
    return inputs, changed


def fix_values(model: LoadedModel, graph: Graph, values: Mapping[str, Any]) -> None:
    r"""Turns inputs with given values into constants.

    Args:
        model (LoadedModel): The model, whose inputs these then no longer are.
        graph (Graph): Its graph, which is changed.
        values (dict): Input to value.

    Raises:
        ConversionError: If there is no such input, or the value does not fit it.
    """
    for name, value in values.items():
        if name not in graph.inputs:
            raise ConversionError(
                f"Expected 'input_values' to name inputs of the model (got {name!r}); "
                f"it has {', '.join(map(repr, graph.inputs)) or 'none'}"
            )
        dtype = graph.inputs[name].dtype
        dims = model.input_dims[name]
        try:
            array = np.asarray(value, dtype=onnx.helper.tensor_dtype_to_np_dtype(dtype))
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            raise ConversionError(
                f"Expected 'input_values[{name!r}]' to be of type "
                f"{onnx.TensorProto.DataType.Name(dtype)} (got {value!r:.80}: {error})"
            ) from error
        if array.ndim == 0 and dims is not None and len(dims) == 1:
            array = array.reshape(1)
        if array.dtype.kind in "iu" and not np.array_equal(array.ravel(), np.ravel(value)):
            raise ConversionError(
                f"Expected 'input_values[{name!r}]' to be of type "
                f"{onnx.TensorProto.DataType.Name(dtype)} (got {value!r:.80})"
            )
        fits = dims is None or len(dims) == array.ndim
        if not fits or any(
            type(d) is int and d != s for d, s in zip(dims or (), array.shape, strict=False)
        ):
            raise ConversionError(
                f"Expected 'input_values[{name!r}]' to have shape {_text(dims)} "
                f"(got {list(array.shape)})"
            )
        graph.constants[name] = Constant(array.shape, dtype, computed=array)
        del graph.inputs[name]


def batch_of(inputs: Mapping[str, TensorType]) -> int:
    """Returns the first dimension of the first input that has one; 1 if none has."""
    return next((int(t.dims[0]) for t in inputs.values() if t.dims and t.dims[0]), 1)


def _checked_input(
    named: Mapping[str, tuple[int | str | None, ...] | None], name: str, shape: Sequence[int]
) -> tuple[int | str | None, ...] | None:
    if name not in named:
        raise ConversionError(
            f"Expected 'input_shapes' to name inputs of the model (got {name!r}); "
            f"it has {', '.join(map(repr, named)) or 'none'}"
        )
    is_shape = isinstance(shape, Iterable) and not isinstance(shape, str)
    if not is_shape or not all(
        isinstance(s, Integral) and not isinstance(s, bool) and s >= 0 for s in shape
    ):
        raise ConversionError(
            f"Expected 'input_shapes[{name!r}]' to be whole numbers (got {shape!r})"
        )
    old = named[name]
    if old is not None and len(old) != len(shape):
        raise ConversionError(
            f"Expected 'input_shapes[{name!r}]' to have {len(old)} dimensions, as in "
            f"{_text(old)} (got {tuple(shape)})"
        )
    return old


def _set_batch(
    named: dict[str, tuple[int | str | None, ...] | None], given: set[str], batch_size: int
) -> bool:
    """Writes the batch size into the inputs; returns whether one of another size was fixed."""
    first = [dims[0] for dims in named.values() if dims]
    symbols = {d for d in first if isinstance(d, str)}
    # States of recurrent layers begin with another number, which is not the batch.
    fixed = next((d for d in first if type(d) is int), None)
    changed = False
    for name, dims in named.items():
        if not dims or name in given:
            continue
        new = [batch_size if d in symbols else d for d in dims]
        if new[0] is None:
            new[0] = batch_size
        elif not symbols and dims[0] == fixed and fixed != batch_size:
            new[0] = batch_size
            changed = True
        named[name] = tuple(new)
    return changed


def _missing_message(
    model: LoadedModel,
    missing: Mapping[str, tuple[int | str | None, ...] | None],
    batch_size: int | None,
) -> str:
    listed = ", ".join(f"{name!r} {_text(dims)}" for name, dims in missing.items())
    only_batch = batch_size is None and all(
        dims is not None and all(type(d) is int for d in dims[1:]) for dims in missing.values()
    )
    example = ", ".join(
        f"{name!r}: ({''.join(f'{d if type(d) is int else 1}, ' for d in dims or (1,)).rstrip()})"
        for name, dims in missing.items()
    )
    call = f"from_onnx({model.name!r}, input_shapes={{{example}}})"
    if only_batch:
        call = f"from_onnx({model.name!r}, batch_size=1)"
    return (
        f"Expected every input of {model.name!r} to have a fixed shape, since the operators of a "
        f"graph are described by theirs (got dynamic dimensions: {listed}); "
        f"pass numbers, for instance {call}"
    )


def _text(dims: Sequence[int | str | None] | None) -> str:
    if dims is None:
        return "[unknown rank]"
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"
