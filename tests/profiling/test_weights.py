from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from narformer_pyg.profiling import generate, materialize, strip_weights
from narformer_pyg.profiling.weights import element_type, has_missing_weights


def arrays(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_materialize_fills_what_is_missing_and_nothing_else() -> None:
    model = generate("mobilenet_v2", 0)
    before = model.SerializeToString(deterministic=True)
    assert has_missing_weights(model)
    full = materialize(model, np.random.default_rng(0))
    assert not has_missing_weights(full)
    assert model.SerializeToString(deterministic=True) == before  # the argument stays as it was
    for old, new in zip(model.graph.initializer, full.graph.initializer, strict=True):
        assert list(old.dims) == list(new.dims)
        if old.name.startswith("constant"):  # the limits of Clip
            assert old == new
    assert materialize(full, np.random.default_rng(1)) == full
    again = materialize(model, np.random.default_rng(0))
    assert again == full
    assert materialize(model, np.random.default_rng(1)) != full


def test_weights_have_the_variance_that_keeps_activations_in_range() -> None:
    model = generate("resnet", 1)
    values = arrays(materialize(model, np.random.default_rng(0)))
    checked = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = values[node.input[1]]
            if weight.size > 2000:
                fan_in = weight[0].size
                assert weight.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.1)
                checked += 1
            assert abs(values[node.input[2]]).max() <= 0.1
    assert checked > 5


@pytest.mark.parametrize("family", ["nasbench201", "vit"])
def test_scales_and_variances_of_norms_are_near_one(family: str) -> None:
    model = generate(family, 0)
    values = arrays(materialize(model, np.random.default_rng(0)))
    norms = [node for node in model.graph.node if node.op_type.endswith("Normalization")]
    assert norms
    for node in norms:
        near_one = [values[node.input[1]]]
        if node.op_type == "BatchNormalization":
            near_one.append(values[node.input[4]])
        assert all(((value > 0.89) & (value < 1.11)).all() for value in near_one)
        assert abs(values[node.input[2]]).max() <= 0.1


def test_strip_weights_keeps_shapes_and_small_values() -> None:
    full = materialize(generate("vit", 0), np.random.default_rng(0))
    stripped = strip_weights(full)
    assert stripped.ByteSize() < full.ByteSize() / 20
    assert has_missing_weights(stripped)
    for old, new in zip(full.graph.initializer, stripped.graph.initializer, strict=True):
        assert list(old.dims) == list(new.dims)
        kept = bool(new.raw_data)
        assert kept == (old.data_type == TensorProto.INT64 or np.prod(old.dims) <= 64)
    onnx.checker.check_model(materialize(stripped, np.random.default_rng(0)), full_check=True)


def test_integers_cannot_be_made_up() -> None:
    model = generate("vit", 0)
    shape = next(t for t in model.graph.initializer if t.data_type == TensorProto.INT64)
    shape.ClearField("raw_data")
    with pytest.raises(ValueError, match=rf"'{shape.name}' to have data \(got none.*INT64"):
        materialize(model, np.random.default_rng(0))


def test_an_empty_tensor_misses_nothing() -> None:
    empty = helper.make_tensor("roi", TensorProto.FLOAT, [0], [])
    model = helper.make_model(helper.make_graph([], "g", [], [], [empty]))
    assert not has_missing_weights(model)


def test_element_type() -> None:
    half = TensorProto(name="a", dims=[10], data_type=TensorProto.FLOAT16)
    single = TensorProto(name="b", dims=[9], data_type=TensorProto.FLOAT)
    double = TensorProto(name="c", dims=[11], data_type=TensorProto.DOUBLE)
    assert element_type([]) == "unknown"
    assert element_type([single]) == "float32"
    assert element_type([half, single]) == "float16"
    assert element_type([half, single, double]) == "double"
