from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto

from narformer_pyg.profiling import FAMILIES, generate, materialize
from narformer_pyg.profiling.families.graph_builder import GraphBuilder
from narformer_pyg.profiling.families.residual import _between_input_and_output
from narformer_pyg.spaces import NASBench201Cell
from narformer_pyg.spaces.nasbench201 import CELL_EDGES

SEEDS = range(12)


@functools.cache
def networks(family: str) -> list[ModelProto]:
    return [generate(family, seed) for seed in SEEDS]


def metadata(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def attributes(family: str, op_type: str, name: str) -> set[str]:
    """Returns the values of an attribute in all networks, as text."""
    nodes = [node for model in networks(family) for node in model.graph.node]
    found = [a for node in nodes if node.op_type == op_type for a in node.attribute]
    return {str(onnx.helper.get_attribute_value(a)) for a in found if a.name == name}


def count_multiply_accumulates(model: ModelProto) -> int:
    """Counts them from the shapes that ONNX infers, not from those of the builder."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    total = 0
    for node in inferred.node:
        out = math.prod(shapes[node.output[0]])
        if node.op_type == "Conv":
            total += out * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += out * shapes[node.input[0]][-1]
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_models_are_valid_and_run(family: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for model in networks(family)[:2]:
        full = materialize(model, np.random.default_rng(0))
        onnx.checker.check_model(full, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            full.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (declared,) = session.get_inputs()
        image = np.random.default_rng(1).standard_normal(declared.shape).astype(np.float32)
        (out,) = session.run(None, {declared.name: image})
        assert list(out.shape) == session.get_outputs()[0].shape
        # Weights of the right size keep numbers in the range in which processors are fast.
        assert np.isfinite(out).all()
        assert 1e-4 < out.std() < 1e6


@pytest.mark.parametrize("family", FAMILIES)
def test_metadata(family: str) -> None:
    for model in networks(family)[:3]:
        weights = [t for t in model.graph.initializer if t.name.startswith("weight")]
        assert not any(tensor.raw_data or tensor.float_data for tensor in weights)
        assert model.ByteSize() < 60_000
        found = metadata(model)
        assert found["family"] == family
        assert int(found["multiply_accumulates"]) == count_multiply_accumulates(model)
        assert int(found["nodes"]) == len(model.graph.node)
        assert int(found["parameters"]) == sum(math.prod(tensor.dims) for tensor in weights)
        size = model.graph.input[0].type.tensor_type.shape.dim[3].dim_value
        assert int(found["resolution"]) == size


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_depend_on_the_seed_alone_and_vary(family: str) -> None:
    assert generate(family, 3) == networks(family)[3]
    drawn = generate(family, np.random.default_rng(5))
    assert drawn == generate(family, np.random.default_rng(5))
    assert drawn == generate(family, int(metadata(drawn)["seed"]))
    sizes = [metadata(model) for model in networks(family)]
    macs = [int(size["multiply_accumulates"]) for size in sizes]
    assert len(set(macs)) == len(SEEDS)
    assert max(macs) > 4 * min(macs)
    assert all(1e7 <= number <= 3e9 for number in macs)
    assert len({size["nodes"] for size in sizes}) >= 4
    assert len({size["resolution"] for size in sizes}) >= 2


@pytest.mark.parametrize(
    ("family", "expected", "kernels"),
    [
        ("alexnet", "Conv Relu MaxPool Flatten Gemm", {1, 3, 5}),
        ("vgg", "Conv Relu MaxPool Flatten Gemm", {1, 3, 5}),
        ("googlenet", "Conv Relu MaxPool Concat GlobalAveragePool Gemm", {1, 3, 5}),
        ("resnet", "Conv Relu MaxPool Add GlobalAveragePool Flatten Gemm", {1, 3, 5}),
        ("squeezenet", "Conv Relu MaxPool Concat GlobalAveragePool Flatten", {1, 3, 5}),
        ("mobilenet_v2", "Conv Clip Add GlobalAveragePool Flatten Gemm", {3, 5, 7}),
        ("mobilenet_v3", "Conv Relu HardSigmoid Mul Add GlobalAveragePool", {3, 5, 7}),
        ("mnasnet", "Conv Relu Add ReduceMean Gemm", {3, 5, 7}),
        ("efficientnet", "Conv Sigmoid Mul Add GlobalAveragePool Gemm", {3, 5, 7}),
        ("nasbench201", "Conv Relu Add AveragePool BatchNormalization Gemm", {1, 3}),
        ("vit", "LayerNormalization MatMul Softmax Erf Transpose Reshape", set()),
    ],
)
def test_operators_of_the_families(family: str, expected: str, kernels: set[int]) -> None:
    assert set(expected.split()) <= set().union(*map(operators, networks(family)))
    assert {str([size, size]) for size in kernels} <= attributes(family, "Conv", "kernel_shape")


def test_forms_that_vary_within_a_family() -> None:
    has_hard_swish = {operators(model)["HardSwish"] > 0 for model in networks("mobilenet_v3")}
    assert has_hard_swish == {True, False}
    assert {"1", "2", "4"} <= attributes("resnet", "Conv", "group")


Edges = list[tuple[int, int, str]]


def reaches(edges: Edges, start: int, end: int) -> bool:
    return start == end or any(reaches(edges, t, end) for s, t, _ in edges if s == start)


def live_edges(cell: NASBench201Cell) -> Edges:
    named = zip(CELL_EDGES, cell.operations, strict=True)
    edges = [(s, t, name) for (s, t), name in named if name != "none"]
    live = [(s, t, o) for s, t, o in edges if reaches(edges, 0, s) and reaches(edges, t, 3)]
    assert _between_input_and_output(edges) == live
    return live


def test_cells_of_nasbench201_leave_dead_operations_out() -> None:
    rng = np.random.default_rng(0)
    assert any(len(live_edges(NASBench201Cell.random(rng))) < 4 for _ in range(100))
    for model in networks("nasbench201"):
        names = Counter(
            o for *_, o in live_edges(NASBench201Cell.from_str(metadata(model)["cell"]))
        )
        found = operators(model)
        # Two reduction blocks have three convolutions and one pooling each, and there is the stem.
        convs, pools = found["Conv"] - 7, found["AveragePool"] - 2
        per_cell = names["nor_conv_1x1"] + names["nor_conv_3x3"]
        assert (convs, pools) in [
            (3 * n * per_cell, 3 * n * names["avg_pool_3x3"]) for n in range(1, 6)
        ]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"), [(13, 3, 2, 0), (14, 3, 2, 0), (12, 2, 2, 1), (7, 3, 1, 1)]
)
@pytest.mark.parametrize("ceil", [False, True])
def test_pooling_sizes_are_those_of_torch(
    size: int, kernel: int, stride: int, pad: int, ceil: bool
) -> None:
    g = GraphBuilder(np.random.default_rng(0), size, 1.0)
    image = torch.zeros(1, 3, size, size)
    expected = torch.nn.functional.max_pool2d(image, kernel, stride, pad, ceil_mode=ceil)
    assert g.max_pool(g.input, kernel, stride, pad, ceil).shape == tuple(expected.shape)


@pytest.mark.parametrize(
    ("family", "rng", "message"),
    [
        ("lenet", 0, r"'family' to be among alexnet, .*vit \(got 'lenet'\)"),
        ("vgg", "0", r"'rng' to be a numpy.random.Generator.*got str: '0'"),
        ("vgg", True, r"got bool: True"),
        ("vgg", -1, r"seed >= 0 \(got -1\)"),
    ],
)
def test_arguments_are_checked(family: str, rng: int, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        generate(family, rng)


def test_impossible_layers_are_refused() -> None:
    g = GraphBuilder(np.random.default_rng(0), 4, 1.0)
    with pytest.raises(ValueError, match=r"a Conv to have an output \(got the shape"):
        g.conv(g.input, 8, kernel=9, pad=0)
    with pytest.raises(ValueError, match=r"known activation \(got 'swish'\)"):
        g.activation(g.input, "swish")
