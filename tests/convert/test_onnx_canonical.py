from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import ints, model, node

from narformer_pyg.convert import convert_onnx
from narformer_pyg.convert.torch_module import export_onnx

Nodes = list[onnx.NodeProto]


def operators(
    nodes: Nodes, dims: Sequence[int], weights: dict[str, np.ndarray] | None = None, **kwargs: str
) -> dict[str, int]:
    """What is left of some nodes between ``x`` and ``y``, and of a Relu behind them."""
    nodes = [*nodes, node("Relu", "y", "z")]
    proto = model(nodes, {"x": dims}, ["z"], weights, opset=18)
    report = convert_onnx(proto, **kwargs).report
    assert report.is_complete
    left = dict(report.operators)
    assert left.pop("Relu") == 1
    return left


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        # all of a tensor, in its order
        ([node("Slice", "x zeros big", "y")], {}),
        ([node("Slice", "x zeros big axes", "y")], {}),
        ([node("Reshape", "x same", "y")], {}),
        ([node("Expand", "x ones", "y")], {}),
        ([node("Reshape", "x flat", "a"), node("Reshape", "a same", "y")], {}),
        ([node("Reshape", "x flat", "a"), node("Gather", "a all", "y", axis=0)], {"Reshape": 1}),
        # not all of it, or not in its order
        ([node("Slice", "x zeros big axes twos", "y")], {"Slice": 1}),
        ([node("Slice", "x big least axes back", "y")], {"Slice": 1}),
        ([node("Slice", "x ones4 big", "y")], {"Slice": 1}),
        ([node("Expand", "x five", "y")], {"Expand": 1}),
        ([node("Gather", "x some", "y", axis=0)], {"Gather": 1}),
        (
            [node("Reshape", "x flat", "a"), node("Gather", "a twisted", "y")],
            {"Reshape": 1, "Gather": 1},
        ),
    ],
)
def test_what_changes_nothing(nodes: Nodes, left: dict[str, int]) -> None:
    every = np.arange(2 * 3 * 4 * 4)
    weights = {
        "zeros": ints(0, 0, 0, 0), "ones4": ints(1, 1, 1, 1), "big": ints(*[2**62] * 4),
        "least": ints(*[-(2**62)] * 4), "axes": ints(0, 1, -2, -1), "twos": ints(2, 2, 2, 2),
        "back": ints(-1, -1, -1, -1), "same": ints(2, 3, 4, 4), "flat": ints(-1),
        "ones": ints(1, 1, 1, 1), "five": ints(5, 1, 1, 1, 1), "all": every.reshape(6, 4, 4),
        "some": ints(1, 0), "twisted": every[::-1].copy(),
    }  # fmt: skip
    assert operators(nodes, [2, 3, 4, 4], weights) == left


@pytest.mark.parametrize(
    ("dims", "shapes", "left"),
    [
        ([2, 3, 4], [[2, -1]], {"Flatten": 1}),
        ([2, 3, 4], [[6, 4]], {"Reshape": 1}),
        ([2, 3, 4], [[2, 3, 2, 2]], {"Reshape": 1}),
        ([2, 12], [[2, 12]], {}),
        ([2, 3, 4], [[-1], [2, 12]], {"Flatten": 1}),
        ([2, 3, 4], [[24], [4, 6], [3, 8]], {"Reshape": 1}),
        ([2, 3, 4], [[0, 12], [0, 4, 3]], {"Reshape": 1}),
    ],
)
def test_reshapes(dims: list[int], shapes: list[list[int]], left: dict[str, int]) -> None:
    names = ["x", *(f"a{i}" for i in range(1, len(shapes))), "y"]
    nodes = [node("Reshape", f"{names[i]} shape{i}", names[i + 1]) for i in range(len(shapes))]
    weights = {f"shape{i}": ints(*shape) for i, shape in enumerate(shapes)}
    assert operators(nodes, dims, weights) == left


def test_reshape_that_others_read() -> None:
    proto = model(
        [
            node("Reshape", "x flat", "a"),
            node("Reshape", "a pairs", "b"),
            node("Relu", "a", "y"),
            node("Tanh", "b", "z"),
        ],
        {"x": [2, 3, 4]},
        ["y", "z"],
        {"flat": ints(-1), "pairs": ints(12, 2)},
    )
    conversion = convert_onnx(proto)
    assert conversion.report.operators == {"Reshape": 2, "Relu": 1, "Tanh": 1}
    names = conversion.node_names
    edges = {(names[a], names[b]) for a, b in conversion.data.edge_index.t().tolist()}
    assert edges == {("x", "a"), ("x", "b"), ("a", "y"), ("b", "z")}
    # Three dimensions become two; the first that changes is the first.
    assert conversion.data.attr[names.index("b")].tolist() == [3, 0, 3, *[0] * 5, 12, 2, 0, 0]


@pytest.mark.parametrize(
    ("dims", "axes", "keepdims", "is_pool"),
    [
        ([2, 3, 4, 5], [2, 3], 1, True),
        ([2, 3, 4, 5], [-1, -2], 1, True),
        ([2, 3, 4, 5, 6], [2, 3, 4], 1, True),
        ([2, 3, 4, 5], [2, 3], 0, False),
        ([2, 3, 4, 5], [3], 1, False),
        ([2, 3, 4, 5], [1, 2], 1, False),
        ([2, 3, 4, 5], [1, 2, 3], 1, False),
        ([2, 3, 4], [2], 1, False),
    ],
)
def test_mean(dims: list[int], axes: list[int], keepdims: int, is_pool: bool) -> None:
    name = "GlobalAveragePool" if is_pool else "ReduceMean"
    mean = [node("ReduceMean", "x axes", "y", keepdims=keepdims)]
    assert operators(mean, dims, {"axes": ints(*axes)}) == {name: 1}


def test_mean_is_the_pool() -> None:
    """The two ways to write it give one graph, and the paper's vocabulary has both."""
    pool = model([node("GlobalAveragePool", "x", "y")], {"x": [2, 3, 4, 5]}, ["y"])
    mean = model(
        [node("ReduceMean", "x", "y", axes=[2, 3], keepdims=1)], {"x": [2, 3, 4, 5]}, ["y"]
    )
    a, b = convert_onnx(pool).data, convert_onnx(mean).data
    assert torch.equal(a.op, b.op)
    assert torch.equal(a.attr, b.attr)
    for kwargs in ({"vocabulary": "nnlqp"}, {"simplify": False}):
        assert convert_onnx(mean, **kwargs).report.operators == {"ReduceMean": 1}
    # What it costs in the paper's data set is that of the operator in the file.
    assert convert_onnx(mean, counting="nnlqp").report.flops == 2 * 3


@pytest.mark.parametrize(
    ("inputs", "attributes", "name"),
    [
        ("x w", {"transB": 1}, "MatMul"),
        ("x v", {}, "MatMul"),
        ("x x", {"transB": 1}, "Gemm"),
        ("x w b", {"transB": 1}, "Gemm"),
        ("x v", {"alpha": 0.5}, "Gemm"),
        ("x u", {"transA": 1}, "Gemm"),
    ],
)
def test_gemm_without_a_sum(inputs: str, attributes: dict[str, float], name: str) -> None:
    proto = model(
        [node("Gemm", inputs, "y", **attributes)],
        {"x": [2, 6]},
        ["y"],
        {"w": [5, 6], "v": [6, 5], "u": [2, 5], "b": [5]},
    )
    conversion = convert_onnx(proto)
    assert conversion.report.operators == {name: 1}
    contracted = 2 if attributes.get("transA") else 6
    assert conversion.data.attr[-1, 0] == contracted
    outputs = int(conversion.data.attr[-1, 8:10].prod())
    assert conversion.report.flops == 2 * outputs * contracted


def slices(*bounds: tuple[int, int]) -> tuple[Nodes, dict[str, np.ndarray]]:
    """Slices along the second dimension, and their sum."""
    nodes = [node("Slice", f"x s{i} e{i} axis", f"part{i}") for i in range(len(bounds))]
    nodes.append(helper.make_node("Sum", [f"part{i}" for i in range(len(bounds))], ["y"]))
    weights = {f"s{i}": ints(start) for i, (start, _) in enumerate(bounds)}
    weights.update({f"e{i}": ints(end) for i, (_, end) in enumerate(bounds)})
    return nodes, {**weights, "axis": ints(1)}


@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        ([(0, 3), (3, 6)], {"Split": 1}),
        ([(-3, 2**62), (0, -3)], {"Split": 1}),
        ([(0, 2), (4, 6), (2, 4)], {"Split": 1}),
        ([(0, 3), (0, 3)], {"Slice": 2}),
        ([(0, 2), (2, 4)], {"Slice": 2}),
        ([(0, 3), (3, 6), (0, 3)], {"Slice": 3}),
    ],
)
def test_split(bounds: list[tuple[int, int]], left: dict[str, int]) -> None:
    nodes, weights = slices(*bounds)
    assert operators(nodes, [2, 6, 4], weights) == {**left, "Sum": 1}


def test_unequal_parts_are_no_split() -> None:
    nodes = [
        node("Slice", "x zero two axis", "a"),
        node("Slice", "x two six axis", "b"),
        node("Concat", "b a", "y", axis=1),
    ]
    weights = {"zero": ints(0), "two": ints(2), "six": ints(6), "axis": ints(1)}
    assert operators(nodes, [2, 6, 4], weights) == {"Slice": 2, "Concat": 1}


def test_edges_of_a_split() -> None:
    nodes, weights = slices((3, 6), (0, 3))
    nodes.insert(1, node("Tanh", "part0", "early"))
    nodes.append(node("Add", "early y", "z"))
    proto = model(nodes, {"x": [2, 6, 4]}, ["z"], weights)
    conversion = convert_onnx(proto)
    names = conversion.node_names
    assert names == ("x", "part1", "early", "y", "z")
    edges = [(names[a], names[b]) for a, b in conversion.data.edge_index.t().tolist()]
    assert edges == [("x", "part1"), ("part1", "early"), ("part1", "y"), ("early", "z"), ("y", "z")]
    assert conversion.report.num_folded == 1
    split = onnx.ModelProto()
    split.CopyFrom(proto)
    del split.graph.node[:]
    split.graph.node.extend(
        [node("Split", "x", "part1 part0", axis=1), *(n for n in nodes if n.op_type != "Slice")]
    )
    data = convert_onnx(split).data
    assert torch.equal(data.attr, conversion.data.attr)
    assert torch.equal(data.edge_index, conversion.data.edge_index)


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([node("Concat", "x", "y", axis=1)], {}),
        ([node("Concat", "x x", "a", axis=1), node("Concat", "a x", "y", axis=-2)], {"Concat": 1}),
        # of other dimensions, or with another reader
        ([node("Concat", "x x", "a", axis=1), node("Concat", "a a", "y", axis=2)], {"Concat": 2}),
        ([node("Concat", "x x", "a", axis=1), node("Concat", "a a", "y", axis=1)], {"Concat": 2}),
        (
            [
                node("Concat", "x x", "a", axis=1),
                node("Tanh", "a", "b"),
                node("Concat", "a b", "y", axis=1),
            ],
            {"Concat": 2, "Tanh": 1},
        ),
    ],
)
def test_concat(nodes: Nodes, left: dict[str, int]) -> None:
    assert operators(nodes, [2, 6, 4]) == left


def test_roll_by_nothing() -> None:
    nodes = [
        node("Slice", "x zero big axis", "a"),
        node("Slice", "x zero zero axis", "b"),
        node("Concat", "a b", "y", axis=1),
    ]
    weights = {"zero": ints(0), "big": ints(2**62), "axis": ints(1)}
    assert operators(nodes, [2, 6, 4], weights) == {}


def test_edges_of_concats_in_a_row() -> None:
    nodes = [
        node("Tanh", "x", "a"),
        node("Concat", "a x", "b", axis=1),
        node("Relu", "x", "c"),
        node("Concat", "c b", "d", axis=1),
        node("Concat", "d a", "y", axis=1),
    ]
    conversion = convert_onnx(model(nodes, {"x": [2, 3]}, ["y"]))
    names = conversion.node_names
    edges = {(names[a], names[b]) for a, b in conversion.data.edge_index.t().tolist()}
    assert edges == {("x", "a"), ("x", "c"), ("c", "y"), ("a", "y"), ("x", "y")}
    assert conversion.data.attr[-1, 8:].tolist() == [2, 12, 0, 0]
    both = convert_onnx(model(nodes, {"x": [2, 3]}, ["b", "y"])).report.operators
    assert both["Concat"] == 2  # what comes out stays


def test_names_that_branches_read_are_kept() -> None:
    branch = helper.make_graph(
        [node("Tanh", "same", "out")],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    proto = model(
        [
            node("Reshape", "x shape", "same"),
            node("ReduceMax", "x", "top", keepdims=0),
            node("Cast", "top", "condition", to=TensorProto.BOOL),
            node("If", "condition", "y", then_branch=branch, else_branch=branch),
        ],
        {"x": [4, 5]},
        ["y"],
        {"shape": ints(4, 5)},
    )
    assert "Reshape" in convert_onnx(proto).report.operators


def test_nothing_but_what_changes_nothing() -> None:
    proto = model([node("Reshape", "x shape", "y")], {"x": [4, 5]}, ["y"], {"shape": ints(4, 5)})
    assert convert_onnx(proto).report.operators == {"Reshape": 1}


class Halves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        pooled = torch.nn.functional.adaptive_avg_pool2d(a * b, 1)
        return pooled.flatten(1)


def test_export_of_torch() -> None:
    report = convert_onnx(export_onnx(Halves(), torch.rand(2, 6, 4, 4))).report
    assert report.operators == {"Split": 1, "Mul": 1, "GlobalAveragePool": 1, "Flatten": 1}


def test_malformed_slices_stay() -> None:
    bounds = {"zeros": ints(0, 0), "big": ints(9, 9), "axes": ints(0, 7), "one": ints(9)}
    for inputs in ("x zeros big axes", "x zeros one"):
        proto = model(
            [node("Slice", inputs, "y"), node("Relu", "y", "z")], {"x": [2, 3, 4, 5]}, ["z"],
            bounds, opset=18,
        )  # fmt: skip
        report = convert_onnx(proto, use_runtime=False).report
        assert report.operators == {"Slice": 1, "Relu": 1}
