"""The table: operator of PyTorch -> operators of ONNX's vocabulary, in the exporter's form.

A rule gets the recorder, the arguments by name, the output (or the list of outputs) and the
operator; it writes nodes down and returns the name of each output. Composites that have one form
here (attention, layer norm, linear) have the same by every route.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from narformer_pyg.convert.onnx_model.graph import Constant, TensorType
from narformer_pyg.convert.torch_trace.tensors import type_of
from narformer_pyg.convert.torch_trace.writer import GraphWriter

Rule = Callable[[GraphWriter, dict[str, Any], Any, Any], Any]

#: What makes new tensors: constants, whatever they are asked with.
CONSTANTS = frozenset(
    f"aten::{name}"
    for name in (
        "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "zeros_like",
        "ones_like", "full_like", "empty_like", "sym_size", "size", "rand_like", "randn_like",
        "zeros", "ones", "arange", "empty",
    )
)  # fmt: skip
#: What changes nothing at inference, or only how a tensor lies in memory.
PASSED_ON = frozenset(
    f"aten::{name}"
    for name in (
        "clone", "contiguous", "detach", "alias", "lift_fresh", "dropout", "feature_dropout",
        "alpha_dropout", "lift", "resolve_conj",
        "resolve_neg", "positive",
    )
)  # fmt: skip


def _grouped_shape(rows: Tensor, weights: Tensor, *_: Any) -> Tensor:
    """The product of each row with the matrix of its group."""
    return rows.new_empty(*rows.shape[:-1], weights.shape[-1])


def _recurrent_shape(x: Tensor, states: Any, *rest: Any) -> Any:
    """The outputs of recurrent layers, which torch unrolls step by step where there is no data."""
    if isinstance(rest[0], bool) or (isinstance(states, Tensor) and states.dim() == 1):
        raise NotImplementedError("packed sequences have no rule; pass a padded batch")
    bidirectional = rest[5]
    several = isinstance(states, (list, tuple))
    first = states[0] if several else states
    width = first.shape[-1] * (2 if bidirectional else 1)
    last = [torch.empty_like(state) for state in (states if several else [states])]
    return (x.new_empty(*x.shape[:-1], width), *last)


#: The outputs of operators that torch computes slowly, or not at all, without data.
SHAPES: dict[str, Callable[..., Any]] = {
    "aten::_grouped_mm": _grouped_shape,
    **dict.fromkeys(
        ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"), _recurrent_shape
    ),
}


def _like(tensor: Tensor, shape: Any = None) -> Any:
    """Returns the type of a tensor, or that of one with another shape."""
    type_ = type_of(tensor)
    return type_ if shape is None else TensorType(tuple(shape), type_.dtype)


def _unary(op_type: str, **names: str) -> Rule:
    """One input; ``names`` says which argument is which attribute."""

    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        source = next(v for v in a.values() if isinstance(v, Tensor))
        attributes = {name: a[argument] for name, argument in names.items()}
        return trace.node(op_type, [source], out, **attributes)

    return rule


def _chain(*op_types: str) -> Rule:
    """Operators in a row, each on the output of the one before."""

    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        name = next(iter(a.values()))
        for op_type in op_types:
            name = trace.node(op_type, [name], out)
        return name

    return rule


def _binary(op_type: str, reverse: bool = False) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        x, y = list(a.values())[:2]
        if reverse:
            x, y = y, x
        alpha = a.get("alpha", 1)
        if alpha not in (1, None) and isinstance(y, Tensor):
            y = trace.node("Mul", [y, float(alpha)], _like(y))
        return trace.node(op_type, [x, y], out)

    return rule


def _to(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    source = next(v for v in a.values() if isinstance(v, Tensor))
    if source.dtype == out.dtype:
        return trace.name(source)
    return trace.node("Cast", [source], out, to=_like(out).dtype)


def _view(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    source = next(iter(a.values()))
    if source.shape == out.shape:
        return trace.name(source)
    return trace.node("Reshape", [source], out)


def _squeeze(op_type: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        x = a["self"]
        if x.shape == out.shape:
            return trace.name(x)
        dims = a.get("dim")
        if dims is None:
            dims = [i for i, size in enumerate(x.shape) if size == 1]
        rank = max(x.dim(), out.dim())
        dims = sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims))
        if op_type == "Squeeze":
            dims = [d for d in dims if x.shape[d] == 1]
        return trace.node(op_type, [x, trace.constant(np.asarray(dims, np.int64))], out)

    return rule


def _permute(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["self"]
    rank = x.dim()
    perm = list(range(rank))
    if "dims" in a:
        perm = [d % rank for d in a["dims"]]
    elif "dim0" in a or "axis0" in a:
        i, j = (a[k] % max(rank, 1) for k in (("dim0", "dim1") if "dim0" in a else
                                              ("axis0", "axis1")))  # fmt: skip
        perm[i], perm[j] = perm[j], perm[i]
    elif "source" in a:
        source, target = ([v] if isinstance(v, int) else v for v in (a["source"],
                                                                     a["destination"]))  # fmt: skip
        source, target = [s % rank for s in source], [t % rank for t in target]
        rest = iter(d for d in range(rank) if d not in source)
        perm = [source[target.index(i)] if i in target else next(rest) for i in range(rank)]
    else:  # t, mT, T
        perm[-2:] = perm[-2:][::-1]
    if perm == sorted(perm):
        return trace.name(x)
    return trace.node("Transpose", [x], out, perm=perm)


def _expand(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["self"]
    return trace.name(x) if x.shape == out.shape else trace.node("Expand", [x], out)


def _slice(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["self"]
    if x.shape == out.shape:
        return trace.name(x)
    dim = a["dim"] % x.dim()
    size = x.shape[dim]
    start, step = a.get("start") or 0, a.get("step") or 1
    end = start + a["length"] if "length" in a else a.get("end")
    end = size if end is None else end
    start = max(0, start + size if start < 0 else start)
    end = min(size, end + size if end < 0 else end)
    numbers = [trace.constant(np.asarray([n], np.int64)) for n in (start, end, dim, step)]
    return trace.node("Slice", [x, *numbers], out)


def _select(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, dim = a["self"], a["dim"]
    dim = dim % x.dim()
    index = int(a["index"]) % max(1, x.shape[dim])
    return trace.node("Gather", [x, trace.constant(np.asarray(index))], out, axis=dim)


def _index_select(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("Gather", [a["self"], a["index"]], out, axis=a["dim"] % a["self"].dim())


def _embedding(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("Gather", [a["weight"], a["indices"]], out)


def _index(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, indices = a["self"], a["indices"]
    places = [i for i, index in enumerate(indices) if index is not None]
    read = [indices[i] for i in places]
    if len(read) == 1 and read[0].dtype != torch.bool:
        return trace.node("Gather", [x, read[0]], out, axis=places[0])
    return trace.node("GatherND", [x, *read[:1]], out)


def _split(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    out = out if isinstance(out, list) else [out]
    dim = a["dim"] % a["self"].dim()
    if len(out) == 1:
        return [trace.name(a["self"])]
    return trace.node("Split", [a["self"]], out, axis=dim)


def _unbind(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    out = out if isinstance(out, list) else [out]
    x, dim = a["self"], a["dim"] % a["self"].dim()
    axes = trace.constant(np.asarray([dim], np.int64))
    if len(out) == 1:
        return [trace.node("Squeeze", [x, axes], out[0])]
    shape = [1 if i == dim else s for i, s in enumerate(x.shape)]
    parts = trace.node("Split", [x], [torch.empty(shape, dtype=x.dtype, device="meta")
                                      for _ in out], axis=dim)  # fmt: skip
    return [trace.node("Squeeze", [p, axes], o) for p, o in zip(parts, out, strict=True)]


def _cat(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    dim = a.get("dim", 0) or 0
    return trace.node("Concat", list(a["tensors"]), out, axis=dim % out.dim())


def _stack(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    dim = (a.get("dim", 0) or 0) % out.dim()
    axes = trace.constant(np.asarray([dim], np.int64))
    parts = []
    for tensor in a["tensors"]:
        shape = list(tensor.shape)
        shape.insert(dim, 1)
        parts.append(trace.node("Unsqueeze", [tensor, axes], _like(tensor, shape)))
    return trace.node("Concat", parts, out, axis=dim)


def _linear(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, weight, bias = a["input"], a["weight"], a["bias"]
    if x.dim() == 2:
        return trace.node("Gemm", [x, weight, bias], out, transB=1)
    transposed = _transposed(trace, weight)
    name = trace.node("MatMul", [x, transposed], out)
    return name if bias is None else trace.node("Add", [name, bias], out)


def _transposed(trace: GraphWriter, weight: Tensor) -> str:
    """A weight as a product reads it: stored the other way round, or turned as an operator."""
    shape = _like(weight, tuple(weight.shape[:-2]) + tuple(weight.shape[-2:])[::-1])
    name = trace.name(weight)
    if name not in trace.graph.constants:
        perm = [*range(weight.dim() - 2), weight.dim() - 1, weight.dim() - 2]
        return trace.node("Transpose", [name], shape, perm=perm)
    turned = name + ".T"
    trace.graph.constants[turned] = Constant(shape.dims, shape.dtype, is_initializer=True)
    return turned


def _matmul(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("MatMul", list(a.values())[:2], out)


def _addmm(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, y, bias = a.get("mat1"), a.get("mat2"), a["self"]
    if a.get("beta", 1) == 0:
        return trace.node("MatMul", [x, y], out)
    return trace.node("Gemm", [x, y, bias], out)


def _baddbmm(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    product = trace.node("MatMul", [a["batch1"], a["batch2"]], out)
    if a.get("alpha", 1) != 1:
        product = trace.node("Mul", [product, float(a["alpha"])], out)
    return product if a.get("beta", 1) == 0 else trace.node("Add", [product, a["self"]], out)


def _einsum(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    equation = a["equation"].replace(" ", "")
    return trace.node("Einsum", list(a["tensors"]), out, equation=equation)


def _pair(value: Any, rank: int) -> list[int]:
    value = [value] if isinstance(value, int) else list(value)
    return value * rank if len(value) == 1 else value


def _conv(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, weight = a["input"], a["weight"]
    rank = weight.dim() - 2
    stride, dilation = _pair(a["stride"], rank), _pair(a["dilation"], rank)
    transposed = a.get("transposed", False) or "transpose" in func._schema.name
    padding = a["padding"]
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0
                 for d, k in zip(dilation, weight.shape[2:], strict=True)]  # fmt: skip
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    else:
        pads = _pair(padding, rank) * 2
    if x.dim() == rank + 1:  # without a batch
        x = trace.node("Unsqueeze", [x, trace.constant(np.asarray([0]))], _like(x, (1, *x.shape)))
        full = trace.node(
            "ConvTranspose" if transposed else "Conv", [x, weight, a["bias"]],
            _like(out, (1, *out.shape)), kernel_shape=list(weight.shape[2:]), strides=stride,
            dilations=dilation, pads=pads, group=a["groups"],
        )  # fmt: skip
        return trace.node("Squeeze", [full, trace.constant(np.asarray([0]))], out)
    extra = {}
    if transposed and any(_pair(a.get("output_padding", 0), rank)):
        extra["output_padding"] = _pair(a["output_padding"], rank)
    return trace.node(
        "ConvTranspose" if transposed else "Conv", [x, weight, a["bias"]], out,
        kernel_shape=list(weight.shape[2:]), strides=stride, dilations=dilation, pads=pads,
        group=a["groups"], **extra,
    )  # fmt: skip


def _batch_norm(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    x = a["input"]
    mean, var = a.get("running_mean"), a.get("running_var")
    read = [x, a["weight"], a["bias"]]
    if mean is not None:  # else with the statistics of the batch
        read += [mean, var]
    if isinstance(out, list):
        return [trace.node("BatchNormalization", read, out[0], epsilon=a.get("eps", 1e-5))]
    return trace.node("BatchNormalization", read, out, epsilon=a.get("eps", 1e-5))


def _layer_norm(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    first = out[0] if isinstance(out, list) else out
    name = trace.node(
        "LayerNormalization", [a["input"], a["weight"], a["bias"]], first,
        axis=-len(a["normalized_shape"]), epsilon=float(a["eps"]),
    )  # fmt: skip
    return [name] if isinstance(out, list) else name


def _group_norm(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, groups = a["input"], a["num_groups"]
    shape = (x.shape[0], groups, x[0].numel() // groups)
    ones = trace.constant(np.ones(groups, np.float32))
    zeros = trace.constant(np.zeros(groups, np.float32))
    name = trace.node("Reshape", [x], _like(x, shape))
    name = trace.node("InstanceNormalization", [name, ones, zeros], _like(x, shape))
    name = trace.node("Reshape", [name], out)
    if a["weight"] is not None:
        name = trace.node("Mul", [name, a["weight"]], out)
    return name if a["bias"] is None else trace.node("Add", [name, a["bias"]], out)


def _instance_norm(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    channels = a["input"].shape[1]
    weight, bias = a["weight"], a["bias"]
    if weight is None:
        weight = trace.constant(np.ones(channels, np.float32))
        bias = trace.constant(np.zeros(channels, np.float32))
    return trace.node("InstanceNormalization", [a["input"], weight, bias], out)


def _rms_norm(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["input"]
    count = len(a["normalized_shape"])
    axes = list(range(x.dim() - count, x.dim()))
    kept = _like(x, [1 if i in axes else s for i, s in enumerate(x.shape)])
    square = trace.node("Pow", [x, 2.0], out)
    mean = trace.node("ReduceMean", [square, trace.constant(np.asarray(axes))], kept, keepdims=1)
    mean = trace.node("Add", [mean, 1e-6], kept)
    root = trace.node("Reciprocal", [trace.node("Sqrt", [mean], kept)], kept)
    name = trace.node("Mul", [x, root], out)
    return name if a["weight"] is None else trace.node("Mul", [name, a["weight"]], out)


def _attention(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    q, k, v = a["query"], a["key"], a["value"]
    first = out[0] if isinstance(out, list) else out
    if a.get("enable_gqa") and q.shape[-3] != k.shape[-3]:
        repeats = q.shape[-3] // k.shape[-3]
        k, v = (_repeated(trace, t, repeats) for t in (k, v))
    else:
        k, v = (trace.name(k), _like(k)), (trace.name(v), _like(v))
    (k_name, k_type), (v_name, _) = k, v
    root = math.sqrt(a.get("scale") or 1 / math.sqrt(q.shape[-1]))
    rank = len(k_type.dims)
    turned = TensorType((*k_type.dims[:-2], k_type.dims[-1], k_type.dims[-2]), k_type.dtype)
    scores = _like(q, (*first.shape[:-1], k_type.dims[-2]))
    perm = [*range(rank - 2), rank - 1, rank - 2]
    k_name = trace.node("Transpose", [k_name], turned, perm=perm)
    q_name = trace.node("Mul", [q, root], _like(q))
    k_name = trace.node("Mul", [k_name, root], turned)
    name = trace.node("MatMul", [q_name, k_name], scores)
    mask = a.get("attn_mask")
    if mask is None and a.get("is_causal"):
        mask = torch.empty(scores.dims[-2:], device="meta")
    if mask is not None:
        name = trace.node("Add", [name, mask], scores)
    name = trace.node("Softmax", [name], scores, axis=-1)
    name = trace.node("MatMul", [name, v_name], first)
    return [name] if isinstance(out, list) else name


def _repeated(trace: GraphWriter, tensor: Tensor, repeats: int) -> tuple[str, Any]:
    """Heads of keys and values, repeated for the queries that share them."""
    *batch, heads, length, size = tensor.shape
    one = trace.constant(np.asarray([-3], np.int64))
    name = trace.node("Unsqueeze", [tensor, one], _like(tensor, (*batch, heads, 1, length, size)))
    name = trace.node("Expand", [name], _like(tensor, (*batch, heads, repeats, length, size)))
    full = _like(tensor, (*batch, heads * repeats, length, size))
    return trace.node("Reshape", [name], full), full


def _reduce(op_type: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
        x, dims = a["self"], a.get("dim")
        if "other" in a:  # the larger or smaller of two tensors
            return trace.node(op_type.removeprefix("Reduce"), [x, a["other"]], out)
        first = out[0] if isinstance(out, list) else out
        dims = range(x.dim()) if dims is None or dims == [] else dims
        dims = [d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)] if x.dim() else []
        keep = int(bool(a.get("keepdim", False)))
        if op_type in ("ArgMax", "ArgMin"):
            name = trace.node(op_type, [x], first, axis=dims[0] if dims else 0, keepdims=keep)
        else:
            axes = trace.constant(np.asarray(dims, np.int64))
            name = trace.node(op_type, [x, axes], first, keepdims=keep)
        return [name] if isinstance(out, list) else name

    return rule


def _norm(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    order = a.get("ord", a.get("p", 2))
    return _reduce("ReduceL1" if order == 1 else "ReduceL2")(trace, a, out, func)


def _variance(root: bool) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
        x, dims = a["self"], a.get("dim")
        several = isinstance(out, list)
        first = out[0] if several else out
        dims = list(range(x.dim())) if dims is None or isinstance(dims, bool) else dims
        dims = [d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)]
        keep = int(bool(a.get("keepdim", False)))
        kept = _like(x, [1 if i in dims else s for i, s in enumerate(x.shape)])
        axes = trace.constant(np.asarray(dims, np.int64))
        mean = trace.node("ReduceMean", [x, axes], kept, keepdims=1)
        centred = trace.node("Sub", [x, mean], _like(x))
        square = trace.node("Mul", [centred, centred], _like(x))
        name = trace.node("ReduceMean", [square, axes], first, keepdims=keep)
        if a.get("unbiased", True) is not False and a.get("correction", 1) != 0:
            size = math.prod(x.shape[d] for d in dims)
            name = trace.node("Mul", [name, float(size)], first)
            name = trace.node("Div", [name, float(size - 1)], first)
        if root:
            name = trace.node("Sqrt", [name], first)
        if several:  # of a pair, the second is the mean
            return [name, mean if keep else trace.node("Squeeze", [mean, axes], out[1])]
        return name

    return rule


def _softmax(op_type: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        return trace.node(op_type, [a["self"]], out, axis=a["dim"] % max(1, out.dim()))

    return rule


def _pool(op_type: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
        first = out[0] if isinstance(out, list) else out
        rank = int(func._schema.name.split("pool")[1][0])
        kernel = _pair(a["kernel_size"], rank)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": _pair(a.get("stride") or kernel, rank),
            "pads": _pair(a["padding"], rank) * 2,
            "ceil_mode": int(a["ceil_mode"]),
        }
        if op_type == "AveragePool":
            attributes["count_include_pad"] = int(a["count_include_pad"])
        else:
            attributes["dilations"] = _pair(a["dilation"], rank)
        name = trace.node(op_type, [a["self"]], first, **attributes)
        return [name] if isinstance(out, list) else name

    return rule


def _adaptive(kind: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
        x = a["self"]
        first = out[0] if isinstance(out, list) else out
        rank = int(func._schema.name.split("pool")[1][0])
        before, after = x.shape[-rank:], first.shape[-rank:]
        if all(size == 1 for size in after) and x.dim() == rank + 2:
            name = trace.node(f"Global{kind}Pool", [x], first)
        else:  # bins as near to equal as they can be
            strides = [b // o for b, o in zip(before, after, strict=True)]
            kernel = [b - (o - 1) * s for b, o, s in zip(before, after, strides, strict=True)]
            name = trace.node(f"{kind}Pool", [x], first, kernel_shape=kernel, strides=strides)
        return [name] if isinstance(out, list) else name

    return rule


def _clip(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    low = a.get("min", a.get("min_val"))
    high = a.get("max", a.get("max_val"))
    if "relu6" in func._schema.name:
        low, high = 0.0, 6.0
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        name = trace.name(a["self"])
        if low is not None:
            name = trace.node("Max", [name, low], out)
        return name if high is None else trace.node("Min", [name, high], out)
    numbers = [None if n is None else float(n) for n in (low, high)]
    return trace.node("Clip", [a["self"], *numbers], out)


def _gelu(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("Gelu", [a["self"]], out, approximate=a.get("approximate", "none"))


def _silu(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    gate = trace.node("Sigmoid", [a["self"]], out)
    return trace.node("Mul", [a["self"], gate], out)


def _glu(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    axis = a.get("dim", -1) % out.dim()
    first, second = trace.node("Split", [a["self"]], [out, out], axis=axis)
    return trace.node("Mul", [first, trace.node("Sigmoid", [second], out)], out)


def _add_product(op_type: str) -> Rule:
    """``self + value * first (* or /) second``."""

    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        first, second = a["tensor1"], a["tensor2"]
        shape = torch.broadcast_shapes(first.shape, second.shape)
        name = trace.node(op_type, [first, second], _like(out, shape))
        if a.get("value", 1) != 1:
            name = trace.node("Mul", [name, float(a["value"])], _like(out, shape))
        return trace.node("Add", [a["self"], name], out)

    return rule


def _softplus(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    plain = trace.node("Softplus", [a["self"]], out)
    large = trace.node("Greater", [a["self"], 20.0], TensorType(tuple(out.shape), 9))
    return trace.node("Where", [large, a["self"], plain], out)


def _masked_fill(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("Where", [a["mask"], a["value"], a["self"]], out)


def _where(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    if "other" not in a:
        return [trace.node("NonZero", [a["condition"]], o) for o in out]
    return trace.node("Where", [a["condition"], a["self"], a["other"]], out)


def _pad(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["self"]
    if x.shape == out.shape:
        return trace.name(x)
    pad, rank = a["pad"] if "pad" in a else a["padding"], x.dim()
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pad[2 * i : 2 * i + 2]
    mode = {"replicate": "edge", "circular": "wrap"}.get(
        str(a.get("mode")), a.get("mode", "constant")
    )
    pads = trace.constant(np.asarray(before + after, np.int64))
    value = a.get("value") or None  # zero is the default
    return trace.node("Pad", [x, pads, value], out, mode=mode)


def _resize(mode: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        x = a["input"] if "input" in a else a["self"]
        if x.shape == out.shape:
            return trace.name(x)
        return trace.node("Resize", [x], out, mode=mode)

    return rule


def _shuffle(op_type: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        if op_type == "SpaceToDepth":
            x, f = a["self"], a["downscale_factor"]
            *batch, c, h, w = x.shape
            shape = (*batch, c, h // f, f, w // f, f)
            name = trace.node("Reshape", [x], _like(x, shape))
            n = len(batch)
            perm = [*range(n + 1), n + 2, n + 4, n + 1, n + 3]
            turned = _like(x, [shape[p] for p in perm])
            return trace.node("Reshape", [trace.node("Transpose", [name], turned, perm=perm)], out)
        return trace.node(op_type, [a["self"]], out, blocksize=a["upscale_factor"], mode="CRD")

    return rule


def _roll(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    name, dims = trace.name(a["self"]), a["dims"]
    shifts = [a["shifts"]] if isinstance(a["shifts"], int) else a["shifts"]
    for shift, dim in zip(shifts, [dims] if isinstance(dims, int) else dims, strict=False):
        size = out.shape[dim]
        shift %= max(1, size)
        if not shift:
            continue
        parts = []
        for start, end in ((size - shift, size), (0, size - shift)):
            shape = list(out.shape)
            shape[dim] = end - start
            numbers = [trace.constant(np.asarray([n])) for n in (start, end, dim % out.dim(), 1)]
            parts.append(trace.node("Slice", [name, *numbers], _like(out, shape)))
        name = trace.node("Concat", parts, out, axis=dim % out.dim())
    return name


def _flip(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    dims = [d % out.dim() for d in a["dims"]]
    numbers = [
        trace.constant(np.asarray(n, np.int64))
        for n in ([-1] * len(dims), [-(2**63)] * len(dims), dims, [-1] * len(dims))
    ]
    return trace.node("Slice", [a["self"], *numbers], out)


def _repeat(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["self"]
    return trace.name(x) if x.shape == out.shape else trace.node("Tile", [x], out)


def _repeat_interleave(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, dim = a["self"], a.get("dim") or 0
    dim %= x.dim()
    axes = trace.constant(np.asarray([dim + 1], np.int64))
    shape = list(x.shape)
    shape.insert(dim + 1, 1)
    name = trace.node("Unsqueeze", [x, axes], _like(x, shape))
    shape[dim + 1] = out.shape[dim] // max(1, x.shape[dim])
    return trace.node("Reshape", [trace.node("Expand", [name], _like(x, shape))], out)


def _top_k(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
    k = trace.constant(np.asarray([a.get("k", a["self"].shape[-1])], np.int64))
    return trace.node("TopK", [a["self"], k], out, axis=a.get("dim", -1))


def _gather(op_type: str) -> Rule:
    def rule(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
        read = [a["self"], a["index"]]
        if op_type.startswith("Scatter"):
            read.append(a.get("src", a.get("value", a.get("source"))))
        return trace.node(op_type, read, out, axis=a["dim"] % max(1, a["self"].dim()))

    return rule


def _scatter_into(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    source = a.get("src", a.get("values", a.get("source")))
    return trace.node("ScatterND", [a["self"], None, source], out)


def _copy(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    source = a["src"]
    if not isinstance(source, Tensor) or source.shape == out.shape:
        return trace.name(source)
    return trace.node("Expand", [source], out)


def _fill(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("Expand", [a.get("value", 0)], out)


def _recurrent(op_type: str) -> Rule:
    """One node a layer, both directions of it in one."""

    def rule(trace: GraphWriter, a: dict[str, Any], out: Any, func: Any) -> Any:
        x, weights = a["input"], list(a["params"])
        directions = 2 if a["bidirectional"] else 1
        size = 4 if a["has_biases"] else 2
        hidden = weights[1].shape[1]
        if a["batch_first"]:
            x_type = _like(x, (x.shape[1], x.shape[0], *x.shape[2:]))
            name = trace.node("Transpose", [x], x_type, perm=[1, 0, 2])
        else:
            x_type, name = _like(x), trace.name(x)
        steps, batch = x_type.dims[:2]
        states: list[list[str]] = []
        for layer in range(a["num_layers"]):
            group = weights[layer * directions * size : (layer + 1) * directions * size]
            read = []
            for i in range(2):
                rows, columns = group[i].shape
                read.append(torch.empty(directions, rows, columns, device="meta"))
            bias = None
            if a["has_biases"]:
                bias = torch.empty(directions, 2 * group[2].numel(), device="meta")
            shapes: list[Any] = [(steps, directions, batch, hidden)]
            shapes += [(directions, batch, hidden)] * (len(out) - 1)
            name, *last = trace.node(
                op_type, [name, *read, bias],
                [torch.empty(shape, dtype=x.dtype, device="meta") for shape in shapes],
                hidden_size=hidden, direction="bidirectional" if directions == 2 else None,
            )  # fmt: skip
            states.append(last)
            turned = _like(x, (steps, batch, directions, hidden))
            name = trace.node("Transpose", [name], turned, perm=[0, 2, 1, 3])
            name = trace.node("Reshape", [name], _like(x, (steps, batch, directions * hidden)))
        if a["batch_first"]:
            name = trace.node("Transpose", [name], out[0], perm=[1, 0, 2])
        if len(states) == 1:
            return [name, *states[0]]
        joined = zip(zip(*states, strict=True), out[1:], strict=True)
        return [name, *(trace.node("Concat", list(each), o, axis=0) for each, o in joined)]

    return rule


def _rest(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    """``x - y * floor(x / y)``."""
    x, y = list(a.values())[:2]
    return trace.node("Mod", [x, y], out)


def _floor_divide(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x, y = list(a.values())[:2]
    return trace.node("Floor", [trace.node("Div", [x, y], out)], out)


def _divide(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    name = trace.node("Div", [a["self"], a["other"]], out)
    return trace.node("Floor", [name], out) if a.get("rounding_mode") else name


def _unfold(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    return trace.node("Gather", [a["self"]], out)


def _im2col(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    x = a["self"]
    (kh, kw), pad = _pair(a["kernel_size"], 2), _pair(a["padding"], 2)
    b, c, h, w = x.shape
    name = trace.name(x)
    if any(pad):
        h, w = h + 2 * pad[0], w + 2 * pad[1]
        name = trace.node("Pad", [name, trace.constant(np.asarray(
            [0, 0, *pad, 0, 0, *pad], np.int64))], _like(x, (b, c, h, w)))  # fmt: skip
    spans = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(
            (h, w), _pair(a["dilation"], 2), (kh, kw), _pair(a["stride"], 2), strict=True
        )
    ]
    rows = trace.constant(np.zeros((kh, spans[0]), np.int64))
    columns = trace.constant(np.zeros((kw, spans[1]), np.int64))
    name = trace.node("Gather", [name, rows], _like(x, (b, c, kh, spans[0], w)), axis=2)
    shape = (b, c, kh, spans[0], kw, spans[1])
    name = trace.node("Gather", [name, columns], _like(x, shape), axis=4)
    turned = _like(x, (b, c, kh, kw, *spans))
    name = trace.node("Transpose", [name], turned, perm=[0, 1, 2, 4, 3, 5])
    return trace.node("Reshape", [name], out)


def _col2im(trace: GraphWriter, a: dict[str, Any], out: Tensor, func: Any) -> Any:
    sizes = [trace.constant(np.asarray(a[key], np.int64)) for key in ("output_size", "kernel_size")]
    return trace.node(
        "Col2Im", [a["self"], *sizes], out, strides=list(a["stride"]),
        dilations=list(a["dilation"]), pads=list(a["padding"]) * 2,
    )  # fmt: skip


_PLAIN = {
    "abs": "Abs", "neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin",
    "cos": "Cos", "tan": "Tan", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "round": "Round",
    "sign": "Sign", "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "mish": "Mish",
    "hardswish": "HardSwish", "hardsigmoid": "HardSigmoid", "elu": "Elu", "selu": "Selu",
    "celu": "Celu", "leaky_relu": "LeakyRelu", "softsign": "Softsign", "logical_not": "Not",
    "bitwise_not": "Not", "isnan": "IsNaN", "isinf": "IsInf", "reciprocal": "Reciprocal",
    "cumsum": "CumSum", "cumprod": "CumProd", "tril": "Trilu", "triu": "Trilu", "acos": "Acos",
    "asin": "Asin", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
}  # fmt: skip
_PAIRS = {
    "add": "Add", "sub": "Sub", "subtract": "Sub", "mul": "Mul", "multiply": "Mul",
    "true_divide": "Div", "pow": "Pow", "maximum": "Max", "minimum": "Min", "eq": "Equal",
    "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "And",
    "bitwise_or": "Or", "bitwise_xor": "Xor", "prelu": "PRelu", "_prelu_kernel": "PRelu",
    "__and__": "And", "__or__": "Or", "outer": "Mul",
}  # fmt: skip
_SHORT: dict[str, Rule] = {
    **{name: _unary(op_type) for name, op_type in _PLAIN.items()},
    **{name: _binary(op_type) for name, op_type in _PAIRS.items()},
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d"), _binary("GridSample")),
    "ne": lambda t, a, o, f: t.node("Not", [t.node("Equal", list(a.values())[:2], o)], o),
    "rsub": _binary("Sub", reverse=True),
    "div": _divide, "floor_divide": _floor_divide, "remainder": _rest, "fmod": _rest,
    "rsqrt": _chain("Sqrt", "Reciprocal"),
    "log1p": lambda t, a, o, f: t.node("Log", [t.node("Add", [a["self"], 1.0], o)], o),
    "expm1": lambda t, a, o, f: t.node("Sub", [t.node("Exp", [a["self"]], o), 1.0], o),
    "square": lambda t, a, o, f: t.node("Pow", [a["self"], 2.0], o),
    "log_sigmoid": _chain("Sigmoid", "Log"),
    "gelu": _gelu, "silu": _silu, "glu": _glu, "softplus": _softplus,
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "clip", "hardtanh", "relu6"), _clip),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "unflatten", "view_as",
                     "reshape_as", "_reshape_alias"), _view),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _to),
    **dict.fromkeys(("permute", "transpose", "t", "mT", "movedim", "swapaxes", "swapdims",
                     "numpy_T", "adjoint", "matrix_H"), _permute),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    "squeeze": _squeeze("Squeeze"), "unsqueeze": _squeeze("Unsqueeze"),
    "slice": _slice, "narrow": _slice, "select": _select, "index_select": _index_select,
    "embedding": _embedding, "index": _index, "gather": _gather("GatherElements"),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), _gather("ScatterElements")),
    **dict.fromkeys(("index_put", "slice_scatter", "select_scatter", "index_copy", "index_add",
                     "masked_scatter", "_index_put_impl"), _scatter_into),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk"),
                    _split),
    "unbind": _unbind,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat), "stack": _stack,
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "_grouped_mm"), _matmul),
    "addcmul": _add_product("Mul"), "addcdiv": _add_product("Div"),
    "addmm": _addmm, "baddbmm": _baddbmm, "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution",
                     "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"),
                    _batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm),
    "group_norm": _group_norm, "instance_norm": _instance_norm, "rms_norm": _rms_norm,
    **dict.fromkeys(("scaled_dot_product_attention",), _attention),
    "mean": _reduce("ReduceMean"), "sum": _reduce("ReduceSum"), "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"), "max": _reduce("ReduceMax"), "min": _reduce("ReduceMin"),
    "prod": _reduce("ReduceProd"), "argmax": _reduce("ArgMax"), "argmin": _reduce("ArgMin"),
    "logsumexp": _reduce("ReduceLogSumExp"), "any": _reduce("ReduceMax"),
    "all": _reduce("ReduceMin"),
    **dict.fromkeys(("norm", "linalg_vector_norm"), _norm),
    "var": _variance(False), "std": _variance(True), "var_mean": _variance(False),
    "std_mean": _variance(True),
    **dict.fromkeys(("softmax", "_softmax", "special_softmax"), _softmax("Softmax")),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _softmax("LogSoftmax")),
    **{f"max_pool{i}d": _pool("MaxPool") for i in (1, 2, 3)},
    **{f"max_pool{i}d_with_indices": _pool("MaxPool") for i in (2, 3)},
    **{f"avg_pool{i}d": _pool("AveragePool") for i in (1, 2, 3)},
    **{f"adaptive_avg_pool{i}d": _adaptive("Average") for i in (1, 2, 3)},
    **{f"_adaptive_avg_pool{i}d": _adaptive("Average") for i in (2, 3)},
    **{f"adaptive_max_pool{i}d": _adaptive("Max") for i in (1, 2, 3)},
    "masked_fill": _masked_fill, "where": _where,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{f"upsample_{name}": _resize("nearest")
       for name in ("nearest1d", "nearest2d", "nearest3d")},
    **{f"upsample_{name}": _resize("linear")
       for name in ("linear1d", "bilinear2d", "trilinear3d", "_bilinear2d_aa")},
    "_upsample_bilinear2d_aa": _resize("linear"), "_upsample_bicubic2d_aa": _resize("cubic"),
    "upsample_bicubic2d": _resize("cubic"),
    "pixel_shuffle": _shuffle("DepthToSpace"), "pixel_unshuffle": _shuffle("SpaceToDepth"),
    "roll": _roll, "flip": _flip, "repeat": _repeat, "tile": _repeat,
    "repeat_interleave": _repeat_interleave, "topk": _top_k, "sort": _top_k,
    "copy": _copy, "fill": _fill, "zero": _fill, "unfold": _unfold, "im2col": _im2col,
    "col2im": _col2im,
    "lstm": _recurrent("LSTM"), "gru": _recurrent("GRU"), "rnn_tanh": _recurrent("RNN"),
    "rnn_relu": _recurrent("RNN"),
}  # fmt: skip
#: Operator of PyTorch, without the underscore of in-place forms, to its rule.
RULES: dict[str, Rule] = {f"aten::{name}": rule for name, rule in _SHORT.items()}
