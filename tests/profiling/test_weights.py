from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from narformer_pyg.profiling import generate, materialize, strip_weights
from narformer_pyg.profiling.weights import element_type, has_missing_weights


def fill(model: ModelProto, seed: int = 0) -> ModelProto:
    return materialize(model, np.random.default_rng(seed))


def arrays(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_materialize_fills_missing_weights_alone() -> None:
    model = generate("mobilenet_v2", 0)
    before = model.SerializeToString(deterministic=True)
    assert has_missing_weights(model)
    full = fill(model)
    assert not has_missing_weights(full)
    assert model.SerializeToString(deterministic=True) == before  # the argument stays as it was
    for old, new in zip(model.graph.initializer, full.graph.initializer, strict=True):
        assert list(old.dims) == list(new.dims)
        assert old == new or not old.name.startswith("constant")  # the limits of Clip stay
    assert fill(full, 1) == full
    assert fill(model) == full
    assert fill(model, 1) != full


@pytest.mark.parametrize("family", ["resnet", "nasbench201", "vit"])
def test_weights_keep_activations_in_range(family: str) -> None:
    model = generate(family, 1)
    values = arrays(fill(model))
    checked = 0
    for node in model.graph.node:
        weights = [values[name] for name in node.input[1:] if name in values]
        if node.op_type in ("Conv", "Gemm"):
            if weights[0].size > 2000:
                assert weights[0].std() == pytest.approx(np.sqrt(2 / weights[0][0].size), rel=0.1)
            assert abs(weights[1]).max() <= 0.1
        elif node.op_type.endswith("Normalization"):
            scale_and_variance = weights[0], weights[-1] if len(weights) == 4 else weights[0]
            assert all(((value > 0.89) & (value < 1.11)).all() for value in scale_and_variance)
            assert abs(weights[1]).max() <= 0.1
        checked += len(weights) > 1
    assert checked > 5


def test_strip_weights_keeps_shapes_and_small_values() -> None:
    full = fill(generate("vit", 0))
    stripped = strip_weights(full)
    assert stripped.ByteSize() < full.ByteSize() / 20
    for old, new in zip(full.graph.initializer, stripped.graph.initializer, strict=True):
        assert list(old.dims) == list(new.dims)
        kept = bool(new.raw_data)
        assert kept == (old.data_type == TensorProto.INT64 or np.prod(old.dims) <= 64)
    onnx.checker.check_model(fill(stripped), full_check=True)


def test_integers_cannot_be_random() -> None:
    model = generate("vit", 0)
    shape = next(t for t in model.graph.initializer if t.data_type == TensorProto.INT64)
    shape.ClearField("raw_data")
    with pytest.raises(ValueError, match=rf"'{shape.name}' to have data \(got none.*INT64"):
        fill(model)


def test_an_empty_tensor_misses_nothing() -> None:
    empty = helper.make_tensor("roi", TensorProto.FLOAT, [0], [])
    assert not has_missing_weights(helper.make_model(helper.make_graph([], "g", [], [], [empty])))


def test_element_type() -> None:
    half = TensorProto(name="a", dims=[10], data_type=TensorProto.FLOAT16)
    single = TensorProto(name="b", dims=[9], data_type=TensorProto.FLOAT)
    double = TensorProto(name="c", dims=[11], data_type=TensorProto.DOUBLE)
    found = [element_type(x) for x in ([], [single], [half, single], [half, single, double])]
    assert found == ["unknown", "float32", "float16", "double"]
