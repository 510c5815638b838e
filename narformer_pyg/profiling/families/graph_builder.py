"""A small typed builder of ONNX inference graphs, with shapes known at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

#: The first opset with LayerNormalization as one operator.
OPSET = 17
# The lowest version of the file format that carries this opset, so that old runtimes read it.
IR_VERSION = 8
_ONE_OPERATOR: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_swish": ("HardSwish", {}),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that flows through the graph, with its static shape."""

    name: str
    shape: tuple[int, ...]


class GraphBuilder:
    r"""Builds a network for images of batch size 1, in the form in which PyTorch exports it.

    Batch normalisation behind a convolution is folded into its bias, as in every inference export;
    operators that only exist in training are absent. Weights are initialisers with :obj:`dims` and
    no data, so that a network takes kilobytes: :func:`~narformer_pyg.profiling.materialize` fills
    them. Constants that an operator needs as a value (target shapes, clip limits) hold their data.
    """

    def __init__(self, rng: np.random.Generator, resolution: int, width: float) -> None:
        self.rng = rng
        self.width = width
        # Runtimes have fast paths for channels divisible by 8 or 16: networks with and without.
        self.divisor = self.pick(4, 8, 8, 16)
        self.parameters = 0
        self.multiply_accumulates = 0
        self.notes: dict[str, str] = {}  # metadata of the model beside its sizes
        self.input = Value("input", (1, 3, resolution, resolution))
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []

    # Choices

    def pick(self, *options: T) -> T:
        """Draws one of the options; an option named twice is twice as likely."""
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        """Draws an integer from :obj:`low` to :obj:`high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def channels(self, base: float) -> int:
        """Draws channels within 40 % of :obj:`base` times the width of the network."""
        value = base * self.width * self.rng.uniform(0.6, 1.4)
        return max(self.divisor, round(value / self.divisor) * self.divisor)

    # Parts of the graph

    def weight(self, *shape: int) -> Value:
        """Adds a float32 initialiser without data."""
        name = f"weight_{len(self._initializers)}"
        # No data on purpose.
        self._initializers.append(TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT))
        self.parameters += math.prod(shape)
        return Value(name, shape)

    def constant(self, value: Any, dtype: type[np.generic]) -> Value:
        """Adds an initialiser whose value matters."""
        name, array = f"constant_{len(self._initializers)}", np.asarray(value, dtype=dtype)
        self._initializers.append(numpy_helper.from_array(array, name))
        return Value(name, array.shape)

    def node(
        self, op_type: str, inputs: Sequence[Value], shape: tuple[int, ...], **attributes: Any
    ) -> Value:
        """Adds an operator with one output of a known shape."""
        if min(shape, default=1) < 1:
            raise ValueError(f"Expected a {op_type} to have an output (got the shape {shape})")
        name = f"{op_type.lower()}_{len(self._nodes)}"
        names = [x.name for x in inputs]
        self._nodes.append(helper.make_node(op_type, names, [name], f"/{name}", **attributes))
        return Value(name, shape)

    # Operators

    def conv(
        self, x: Value, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1,
        pad: int | None = None,
    ) -> Value:  # fmt: skip
        """A convolution with bias, padded by :obj:`kernel // 2` by default."""
        weight = (out_channels, x.shape[1] // groups, kernel, kernel)
        inputs = [x, self.weight(*weight), self.weight(out_channels)]
        pad = kernel // 2 if pad is None else pad
        options = {"dilations": [1, 1], "group": groups}
        y = self._windows("Conv", inputs, out_channels, kernel, stride, pad, **options)
        self.multiply_accumulates += math.prod(weight) * math.prod(y.shape[2:])
        return y

    def max_pool(
        self, x: Value, kernel: int, stride: int, pad: int = 0, ceil: bool = False
    ) -> Value:
        """A maximum over windows; :obj:`ceil` keeps a last incomplete window."""
        return self._windows("MaxPool", [x], x.shape[1], kernel, stride, pad, ceil_mode=int(ceil))

    def average_pool(
        self, x: Value, kernel: int, stride: int, pad: int = 0, include_pad: bool = True
    ) -> Value:
        """An average over windows; without :obj:`include_pad`, over the image's own values."""
        modes = {"ceil_mode": 0, "count_include_pad": int(include_pad)}
        return self._windows("AveragePool", [x], x.shape[1], kernel, stride, pad, **modes)

    def _windows(
        self, kind: str, inputs: list[Value], channels: int, kernel: int, stride: int, pad: int,
        **attributes: Any,
    ) -> Value:  # fmt: skip
        """Adds an operator on square windows of its first input."""
        batch, _, *sides = inputs[0].shape
        ceil = bool(attributes.get("ceil_mode"))
        shape = (batch, channels, *(_window(n, kernel, stride, pad, ceil) for n in sides))
        attributes |= {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "strides": [stride] * 2}
        return self.node(kind, inputs, shape, **attributes)

    def global_average_pool(self, x: Value) -> Value:
        """The mean of every channel, :obj:`[1, C, 1, 1]`."""
        return self.node("GlobalAveragePool", [x], (*x.shape[:2], 1, 1))

    def flatten(self, x: Value) -> Value:
        """Everything behind the batch in one dimension."""
        return self.node("Flatten", [x], (x.shape[0], math.prod(x.shape[1:])), axis=1)

    def linear(self, x: Value, out_features: int) -> Value:
        """A linear layer on vectors :obj:`[1, F]`: a Gemm."""
        features = x.shape[1]
        inputs = [x, self.weight(out_features, features), self.weight(out_features)]
        self.multiply_accumulates += features * out_features
        return self.node("Gemm", inputs, (x.shape[0], out_features), alpha=1.0, beta=1.0, transB=1)

    def classifier(self, x: Value) -> Value:
        """Global pooling and a linear layer to 10, 100 or 1,000 classes."""
        return self.linear(self.flatten(self.global_average_pool(x)), self.pick(10, 100, 1000))

    def linear_tokens(self, x: Value, out_features: int) -> Value:
        """A linear layer on tokens :obj:`[1, N, F]`: MatMul and Add, as exporters write it."""
        product = self.matmul(x, self.weight(x.shape[-1], out_features))
        return self.node("Add", [self.weight(out_features), product], product.shape)

    def matmul(self, a: Value, b: Value) -> Value:
        """The matrix product on the last two dimensions."""
        shape = (*a.shape[:-1], b.shape[-1])
        self.multiply_accumulates += math.prod(shape) * a.shape[-1]
        return self.node("MatMul", [a, b], shape)

    def layer_norm(self, x: Value) -> Value:
        """Layer normalisation of the last dimension."""
        inputs = [x, self.weight(x.shape[-1]), self.weight(x.shape[-1])]
        return self.node("LayerNormalization", inputs, x.shape, axis=-1, epsilon=1e-6)

    def batch_norm(self, x: Value) -> Value:
        """Batch normalisation that no convolution in front of it can absorb."""
        inputs = [x, *(self.weight(x.shape[1]) for _ in range(4))]
        return self.node("BatchNormalization", inputs, x.shape, epsilon=1e-5, momentum=0.9)

    def add(self, a: Value, b: Value) -> Value:
        """The sum of two tensors of one shape."""
        return self.node("Add", [a, b], a.shape)

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        """Tensors joined along one dimension."""
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self.node("Concat", values, tuple(shape), axis=axis)

    def reshape(self, x: Value, *shape: int) -> Value:
        """The same values in another shape."""
        return self.node("Reshape", [x, self.constant(shape, np.int64)], shape)

    def transpose(self, x: Value, *perm: int) -> Value:
        """The dimensions in another order."""
        return self.node("Transpose", [x], tuple(x.shape[p] for p in perm), perm=perm)

    def activation(self, x: Value, kind: str) -> Value:
        r"""Applies an activation function in the operators that exporters write.

        Args:
            x (Value): The input.
            kind (str): :obj:`"relu"`, :obj:`"sigmoid"`, :obj:`"hard_sigmoid"` and
                :obj:`"hard_swish"` are one operator; :obj:`"relu6"` is a Clip;
                :obj:`"hard_swish_decomposed"` is HardSigmoid and Mul, as in opsets below 14;
                :obj:`"silu"` is Sigmoid and Mul; :obj:`"gelu"` is Div, Erf, Add, Mul and Mul, as
                in opsets below 20.
        """
        if kind in _ONE_OPERATOR:
            op_type, attributes = _ONE_OPERATOR[kind]
            return self.node(op_type, [x], x.shape, **attributes)
        if kind == "relu6":
            limits = [self.constant(limit, np.float32) for limit in (0.0, 6.0)]
            return self.node("Clip", [x, *limits], x.shape)
        if kind == "hard_swish_decomposed":
            return self.node("Mul", [x, self.activation(x, "hard_sigmoid")], x.shape)
        if kind == "silu":
            return self.node("Mul", [x, self.activation(x, "sigmoid")], x.shape)
        if kind == "gelu":
            scaled = self.node("Div", [x, self.constant(math.sqrt(2), np.float32)], x.shape)
            erf = self.node("Erf", [scaled], x.shape)
            shifted = self.node("Add", [erf, self.constant(1.0, np.float32)], x.shape)
            product = self.node("Mul", [x, shifted], x.shape)
            return self.node("Mul", [product, self.constant(0.5, np.float32)], x.shape)
        raise ValueError(f"Expected 'kind' to be a known activation (got {kind!r})")

    def build(self, output: Value, name: str, metadata: dict[str, str]) -> ModelProto:
        """Returns the model whose result is :obj:`output`."""
        first, last = (
            helper.make_tensor_value_info(value.name, TensorProto.FLOAT, value.shape)
            for value in (self.input, output)
        )
        graph = helper.make_graph(self._nodes, name, [first], [last], self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="narformer_pyg"
        )
        properties = {
            **metadata, **self.notes, "resolution": self.input.shape[-1], "nodes": len(self._nodes),
            "parameters": self.parameters, "multiply_accumulates": self.multiply_accumulates,
        }  # fmt: skip
        helper.set_model_props(model, {key: str(value) for key, value in properties.items()})
        return model


def _window(size: int, kernel: int, stride: int, pad: int, ceil: bool = False) -> int:
    """Returns the number of windows along one side of an image."""
    span = size + 2 * pad - kernel
    if not ceil:
        return span // stride + 1
    windows = -(-span // stride) + 1
    # A window that would start in the padding behind the image is dropped, as in PyTorch.
    return windows - 1 if (windows - 1) * stride >= size + pad else windows
