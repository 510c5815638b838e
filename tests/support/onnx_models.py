"""Small ONNX models built in code, with what they cost worked out on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    weights: dict[str, np.ndarray | Sequence[int]] | None = None,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
    **kwargs: Any,
) -> ModelProto:
    """A model; a weight that is a list of dimensions has no data."""
    initializers = []
    for name, value in (weights or {}).items():
        if isinstance(value, np.ndarray):
            initializers.append(numpy_helper.from_array(value, name))
        else:
            initializers.append(TensorProto(name=name, dims=value, data_type=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, dtype, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )
    opsets = kwargs.pop("opset_imports", [helper.make_opsetid("", opset)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **kwargs)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node whose tensors are named in one string each."""
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@dataclass
class ResNet18:
    """ResNet-18 with stripped weights, as in the NNLQP data set, and its cost by hand."""

    batch_size: int = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, Sequence[int]] = field(default_factory=dict)
    #: FLOPs, parameters and accessed elements as NNLQP counts them; multiply-accumulates and
    #: parameters as everybody does.
    flops: int = 0
    parameters: int = 0
    accessed: int = 0
    macs: int = 0
    torch_parameters: int = 0
    #: Operator and the codes' numbers: 8 definition slots (None if not there) and 4 dimensions.
    rows: list[tuple[str, list[int | None], list[int]]] = field(default_factory=list)

    def build(self) -> ModelProto:
        self._row("", [], [self.batch_size, 3, 224, 224])
        x, size = self.conv("data", 3, 64, 7, 2, 3, 224)
        x = self.relu(self.norm(x, 64, size), 64, size)
        x, size = self.pool(x, 64, size)
        channels = 64
        for stage, width in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                shortcut = x
                if stride == 2:
                    shortcut, small = self.conv(x, channels, width, 1, 2, 0, size)
                    shortcut = self.norm(shortcut, width, small)
                x, small = self.conv(x, channels, width, 3, stride, 1, size)
                x = self.relu(self.norm(x, width, small), width, small)
                x, size = self.conv(x, width, width, 3, 1, 1, small)
                x = self.norm(x, width, size)
                x = self.add("Add", f"{shortcut} {x}", [width, size, size])
                self.flops += self.batch_size * width * size * size
                x = self.relu(x, width, size)
                channels = width
        x = self.add("GlobalAveragePool", x, [512, 1, 1])
        self.flops += 512 * 7  # the width alone
        x = self.add("Flatten", x, [512])
        self.weights.update(fc=[1000, 512], fc_bias=[1000])
        self.add("Gemm", f"{x} fc fc_bias", [1000], [1], transB=1)
        self.flops += 1000 * (2 * 512 - 1 + 1)
        self._weigh(1000 * 513, 1000 * 513)
        self.macs += self.batch_size * 1000 * 512
        return model(
            self.nodes,
            {"data": [self.batch_size, 3, 224, 224]},
            [self.nodes[-1].output[0]],
            self.weights,
            opset=8,
        )

    def add(
        self,
        op_type: str,
        inputs: str,
        dims: Sequence[int],
        slots: Sequence[int] = (),
        **attributes: Any,
    ) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op_type, inputs, name, **attributes))
        self._row(op_type, slots, [self.batch_size, *dims])
        self.accessed += self.batch_size * math.prod(dims)
        return name

    def conv(
        self, x: str, c_in: int, c_out: int, kernel: int, stride: int, pad: int, size: int
    ) -> tuple[str, int]:
        weight = f"w{len(self.nodes)}"
        self.weights[weight] = [c_out, c_in, kernel, kernel]
        size = (size + 2 * pad - kernel) // stride + 1
        per_output = c_in * kernel * kernel
        self.flops += c_out * size * size * (2 * per_output - 1)
        self.macs += self.batch_size * c_out * size * size * per_output
        self._weigh(c_out * per_output, c_out * per_output)
        name = self.add(
            "Conv",
            f"{x} {weight}",
            [c_out, size, size],
            [kernel, stride, pad, 1, 1, 0],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )
        return name, size

    def norm(self, x: str, channels: int, size: int) -> str:
        names = [f"{kind}{len(self.nodes)}" for kind in ("scale", "shift", "mean", "var")]
        self.weights.update({name: [channels] for name in names})
        self.flops += 4 * self.batch_size * channels * size * size
        self._weigh(4 * channels, 2 * channels)
        return self.add("BatchNormalization", f"{x} {' '.join(names)}", [channels, size, size])

    def relu(self, x: str, channels: int, size: int) -> str:
        return self.add("Relu", x, [channels, size, size])

    def pool(self, x: str, channels: int, size: int) -> tuple[str, int]:
        size = (size + 2 - 3) // 2 + 1
        dims = [channels, size, size]
        attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        return self.add("MaxPool", x, dims, [3, 2, 1], **attributes), size

    def _row(self, op_type: str, slots: Sequence[int], dims: list[int]) -> None:
        padded = [*slots, *[None] * (8 - len(slots))]
        self.rows.append((op_type, padded, (dims + [0] * 4)[:4]))

    def _weigh(self, nnlqp: int, torch: int) -> None:
        self.parameters += nnlqp
        self.accessed += nnlqp
        self.torch_parameters += torch
