from __future__ import annotations

import math
import statistics
import time
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from narformer_pyg.profiling import FAMILIES, generate, materialize
from narformer_pyg.profiling.families.graph_builder import GraphBuilder
from narformer_pyg.profiling.families.residual import _between_input_and_output
from narformer_pyg.spaces import NASBench201Cell
from narformer_pyg.spaces.nasbench201 import CELL_EDGES

SEEDS = range(12)


def metadata(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def count_multiply_accumulates(model: ModelProto) -> int:
    """Counts them from what ONNX infers, not from what the builder believes."""
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
    for seed in range(2):
        model = generate(family, seed)
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
def test_sizes_are_those_that_onnx_infers(family: str) -> None:
    for seed in range(3):
        model = generate(family, seed)
        found = metadata(model)
        assert int(found["multiply_accumulates"]) == count_multiply_accumulates(model)
        assert int(found["nodes"]) == len(model.graph.node)
        weights = [t for t in model.graph.initializer if t.name.startswith("weight")]
        assert int(found["parameters"]) == sum(math.prod(tensor.dims) for tensor in weights)
        assert not any(tensor.raw_data or tensor.float_data for tensor in weights)
        size = model.graph.input[0].type.tensor_type.shape.dim[3].dim_value
        assert int(found["resolution"]) == size
        assert found["family"] == family
        assert model.ByteSize() < 60_000


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds(family: str) -> None:
    contents = [generate(family, seed).SerializeToString(deterministic=True) for seed in SEEDS]
    assert len(set(contents)) == len(SEEDS)
    assert generate(family, 3).SerializeToString(deterministic=True) == contents[3]
    drawn = generate(family, np.random.default_rng(5))
    assert drawn == generate(family, np.random.default_rng(5))
    assert drawn == generate(family, int(metadata(drawn)["seed"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_vary_and_are_quick_to_draw(family: str) -> None:
    generate(family, 0)  # the first network of a family may import a search space
    seconds, models = [], []
    for seed in SEEDS:
        start = time.perf_counter()
        models.append(generate(family, seed))
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.2  # some 10 ms on a machine with nothing else to do
    sizes = [metadata(model) for model in models]
    macs = [int(size["multiply_accumulates"]) for size in sizes]
    assert len(set(macs)) == len(SEEDS)
    assert max(macs) > 4 * min(macs)
    assert all(1e7 <= number <= 3e9 for number in macs)
    assert len({size["nodes"] for size in sizes}) >= 4
    assert len({size["resolution"] for size in sizes}) >= 2


def kernels(model: ModelProto, depthwise: bool) -> set[int]:
    found = set()
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv" and (attributes["group"] > 16) == depthwise:
            found.add(attributes["kernel_shape"][0])
    return found


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("alexnet", {"Conv", "Relu", "MaxPool", "Flatten", "Gemm"}),
        ("vgg", {"Conv", "Relu", "MaxPool", "Flatten", "Gemm"}),
        ("googlenet", {"Conv", "Relu", "MaxPool", "Concat", "GlobalAveragePool", "Gemm"}),
        ("resnet", {"Conv", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"}),
        ("squeezenet", {"Conv", "Relu", "MaxPool", "Concat", "GlobalAveragePool", "Flatten"}),
        ("mobilenet_v2", {"Conv", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"}),
        ("mobilenet_v3", {"Conv", "Relu", "HardSigmoid", "Mul", "Add", "GlobalAveragePool"}),
        ("mnasnet", {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}),
        ("efficientnet", {"Conv", "Sigmoid", "Mul", "Add", "GlobalAveragePool", "Gemm"}),
        ("nasbench201", {"Conv", "Relu", "Add", "AveragePool", "BatchNormalization", "Gemm"}),
        ("vit", {"LayerNormalization", "MatMul", "Softmax", "Erf", "Transpose", "Reshape"}),
    ],
)
def test_operators_of_the_families(family: str, expected: set[str]) -> None:
    models = [generate(family, seed) for seed in SEEDS]
    assert expected <= set().union(*(operators(model) for model in models))
    if family in ("mobilenet_v2", "mobilenet_v3", "mnasnet", "efficientnet"):
        assert {3, 5, 7} <= set().union(*(kernels(model, depthwise=True) for model in models))
    elif family != "vit" and family != "nasbench201":
        assert {1, 3, 5} <= set().union(*(kernels(model, depthwise=False) for model in models))


def test_hard_swish_comes_in_both_forms() -> None:
    found = [operators(generate("mobilenet_v3", seed)) for seed in SEEDS]
    fused = [count["HardSwish"] > 0 for count in found]
    assert any(fused)
    assert not all(fused)


def test_groups_vary_in_resnet() -> None:
    groups = set()
    for seed in SEEDS:
        for node in generate("resnet", seed).graph.node:
            groups |= {a.i for a in node.attribute if a.name == "group"}
    assert {1, 2, 4} <= groups


def reaches(edges: list[tuple[int, int, str]], start: int, end: int) -> bool:
    return start == end or any(reaches(edges, t, end) for s, t, _ in edges if s == start)


def test_dead_operations_of_cells_are_left_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        cell = NASBench201Cell.random(rng)
        edges = [
            (s, t, name)
            for (s, t), name in zip(CELL_EDGES, cell.operations, strict=True)
            if name != "none"
        ]
        expected = [(s, t, o) for s, t, o in edges if reaches(edges, 0, s) and reaches(edges, t, 3)]
        assert _between_input_and_output(edges) == expected


def test_nasbench201_has_the_operations_of_its_cell() -> None:
    for seed in SEEDS:
        model = generate("nasbench201", seed)
        cell = NASBench201Cell.from_str(metadata(model)["cell"])
        edges = [
            (s, t, name)
            for (s, t), name in zip(CELL_EDGES, cell.operations, strict=True)
            if name != "none"
        ]
        live = Counter(name for _, _, name in _between_input_and_output(edges))
        found = operators(model)
        # Two reduction blocks have three convolutions and one pooling each, and there is the stem.
        convs, pools = found["Conv"] - 7, found["AveragePool"] - 2
        per_cell = live["nor_conv_1x1"] + live["nor_conv_3x3"]
        assert convs * live["avg_pool_3x3"] == pools * per_cell
        assert (convs, pools) in [
            (3 * n * per_cell, 3 * n * live["avg_pool_3x3"]) for n in range(6)
        ]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"), [(13, 3, 2, 0), (14, 3, 2, 0), (12, 2, 2, 1), (7, 3, 1, 1)]
)
def test_pooling_sizes_are_those_of_torch(size: int, kernel: int, stride: int, pad: int) -> None:
    torch = pytest.importorskip("torch")
    for ceil in (False, True):
        g = GraphBuilder(np.random.default_rng(0), size, 1.0)
        expected = torch.nn.functional.max_pool2d(
            torch.zeros(1, 3, size, size), kernel, stride, pad, ceil_mode=ceil
        )
        assert g.max_pool(g.input, kernel, stride, pad, ceil).shape == tuple(expected.shape)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"'family' to be among alexnet, .*vit \(got 'lenet'\)"):
        generate("lenet", 0)
    with pytest.raises(TypeError, match=r"'rng' to be a numpy.random.Generator.*got str: '0'"):
        generate("vgg", "0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got bool: True"):
        generate("vgg", True)
    with pytest.raises(ValueError, match=r"seed >= 0 \(got -1\)"):
        generate("vgg", -1)
    g = GraphBuilder(np.random.default_rng(0), 4, 1.0)
    with pytest.raises(ValueError, match=r"a Conv to have an output \(got the shape"):
        g.conv(g.input, 8, kernel=9, pad=0)
    with pytest.raises(ValueError, match=r"known activation \(got 'swish'\)"):
        g.activation(g.input, "swish")
