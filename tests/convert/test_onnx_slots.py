from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import ints, model, node

from narformer_pyg.convert import convert_onnx
from narformer_pyg.vocabulary import get_vocabulary


def slots_of(
    op_type: str,
    inputs: dict[str, list[int]],
    weights: dict[str, Any] | None = None,
    opset: int = 17,
    outputs: str = "y",
    order: list[str] | None = None,
    **attributes: Any,
) -> dict[str, float]:
    """Returns the definition slots of an operator by name."""
    names = order or [*inputs, *(weights or {})]
    made = helper.make_node(op_type, names, outputs.split(), **attributes)
    proto = model([made], inputs, outputs.split(), weights, opset)
    conversion = convert_onnx(proto)
    assert conversion.report.is_complete, conversion.report
    vocabulary = get_vocabulary("onnx")
    i = conversion.node_names.index(outputs.split()[0])
    names_of_slots = vocabulary.slots[int(conversion.data.op[i])]
    values = conversion.data.attr[i, :8].tolist()
    assert not any(values[len(names_of_slots) :])
    return dict(zip(names_of_slots, values, strict=False))


IMAGE = {"x": [2, 4, 9, 12]}


@pytest.mark.parametrize(
    ("op_type", "arguments", "expected"),
    [
        (
            "Conv",
            {
                "inputs": IMAGE, "weights": {"w": [6, 2, 3, 5], "b": [6]}, "group": 2,
                "pads": [1, 2, 1, 2], "strides": [2, 1], "dilations": [1, 2],
            },
            {
                "kernel": 3, "stride": 2, "pad": 1, "dilation": 1, "group": 2, "bias": 1,
                "output_padding": 0, "kernel_last": 5,
            },
        ),
        (
            "Conv",
            {"inputs": IMAGE, "weights": {"w": [6, 4, 3, 3]}, "auto_pad": "SAME_UPPER"},
            {"pad": 1, "stride": 1, "bias": 0},
        ),
        (
            "MaxPool",
            {"inputs": IMAGE, "kernel_shape": [2, 3], "ceil_mode": 1, "strides": [2, 2]},
            {"kernel": 2, "kernel_last": 3, "ceil_mode": 1, "norm_order": 0, "dilation": 1},
        ),
        (
            "LpPool",
            {"inputs": IMAGE, "kernel_shape": [2, 2], "p": 3},
            {"norm_order": 3},
        ),
        (
            "Gemm",
            {"inputs": {"x": [8, 3]}, "weights": {"w": [5, 8], "b": [5]}, "transA": 1, "transB": 1},
            {"contracted": 8, "bias": 1, "trans_a": 1, "trans_b": 1, "constant_operands": 2},
        ),
        (
            "MatMul",
            {"inputs": {"x": [2, 3, 8], "z": [2, 8, 4]}},
            {"contracted": 8, "bias": 0, "constant_operands": 0, "operand_rank": 3},
        ),
        (
            "Einsum",
            {"inputs": {"x": [2, 3, 8], "z": [2, 4, 8]}, "equation": "bij,bkj->bik"},
            {"contracted": 8},
        ),
        (
            "LayerNormalization",
            {"inputs": {"x": [2, 5, 8]}, "weights": {"s": [5, 8], "b": [5, 8]}, "axis": -2},
            {"axis": 1, "normalized_size": 40, "bias": 1, "constant_operands": 2},
        ),
        (
            "LRN", {"inputs": IMAGE, "size": 5}, {"window": 5, "axis": 1},
        ),
        (
            "ReduceMean",
            {"inputs": IMAGE, "axes": [-1, -2], "keepdims": 0},
            {"first_axis": 2, "num_axes": 2, "keepdims": 0, "reduced_size": 108},
        ),
        (
            "ReduceMean",
            {"inputs": IMAGE, "weights": {"a": ints(1)}, "opset": 18},
            {"first_axis": 1, "num_axes": 1, "keepdims": 1, "reduced_size": 4},
        ),
        (
            "GlobalAveragePool",
            {"inputs": IMAGE},
            {"first_axis": 2, "num_axes": 2, "reduced_size": 108},
        ),
        ("Softmax", {"inputs": {"x": [2, 5, 8]}}, {"axis": 2, "axis_size": 8}),
        ("Softmax", {"inputs": {"x": [2, 5, 8]}, "opset": 11}, {"axis": 1, "axis_size": 5}),
        (
            "Add",
            {"inputs": {"x": [2, 5, 8]}, "weights": {"b": [8]}},
            {"num_inputs": 2, "constant_operands": 1, "operand_size": 8, "operand_rank": 1},
        ),
        (
            "Transpose",
            {"inputs": {"x": [2, 5, 8]}, "perm": [1, 0, 2]},
            {"perm_0": 1, "perm_1": 0, "perm_2": 2, "perm_3": 0},
        ),
        ("Transpose", {"inputs": {"x": [2, 5, 8]}}, {"perm_0": 2, "perm_1": 1, "perm_2": 0}),
        (
            "Concat",
            {"inputs": {"x": [2, 5], "z": [2, 3]}, "axis": -1},
            {"axis": 1, "num_inputs": 2, "axis_size": 8},
        ),
        (
            "Split",
            {"inputs": {"x": [2, 6]}, "axis": 1, "outputs": "y z", "opset": 11},
            {"axis": 1, "num_outputs": 2, "axis_size": 6},
        ),
        (
            "Slice",
            {
                "inputs": {"x": [2, 9]},
                "weights": {"s": ints(0), "e": ints(9), "a": ints(-1), "t": ints(2)},
            },
            {"first_axis": 1, "num_axes": 1, "step": 2},
        ),
        (
            "Gather",
            {"inputs": {"x": [4, 9]}, "weights": {"i": ints(0, 1, 2)}, "axis": 1},
            {"axis": 1, "index_elements": 3, "rows": 9, "constant_operands": 1},
        ),
        (
            "Pad",
            {"inputs": {"x": [4, 9]}, "weights": {"p": ints(0, 1, 0, 2)}, "mode": "reflect"},
            {"mode": 1, "num_padded_axes": 1, "padded_elements": 12},
        ),
        (
            "Resize",
            {
                "inputs": IMAGE, "weights": {"s": np.array([1, 1, 2, 3], np.float32)},
                "order": ["x", "", "s"], "mode": "linear",
            },
            {"mode": 1, "scale": 3, "scale_first": 2},
        ),
        ("DepthToSpace", {"inputs": IMAGE, "blocksize": 2}, {"block_size": 2, "mode": 0}),
        ("Cast", {"inputs": IMAGE, "to": TensorProto.FLOAT16}, {"to": 10}),
        (
            "TopK",
            {"inputs": {"x": [2, 9]}, "weights": {"k": ints(3)}, "outputs": "y i"},
            {"axis": 1, "k": 3, "axis_size": 9},
        ),
        ("Unsqueeze", {"inputs": {"x": [2, 9]}, "weights": {"a": ints(-1)}}, {"first_axis": 2}),
        ("Flatten", {"inputs": IMAGE, "axis": 2}, {"input_rank": 4, "first_axis": 2}),
        ("Relu", {"inputs": IMAGE}, {}),
    ],
)  # fmt: skip
def test_slots(op_type: str, arguments: dict[str, Any], expected: dict[str, float]) -> None:
    found = slots_of(op_type, **arguments)
    assert {name: found[name] for name in expected} == expected


def test_unknown_numbers_are_minus_one() -> None:
    proto = model(
        [
            helper.make_node("Strange", ["x"], ["a"], domain="nobody.knows"),
            node("Softmax", "a", "y"),
        ],
        {"x": [2, 8]},
        ["y"],
        opset_imports=[helper.make_opsetid(d, 17) for d in ("", "nobody.knows")],
    )
    assert convert_onnx(proto).data.attr[-1].tolist() == [-1, -1, *[0] * 6, *[-1] * 4]
