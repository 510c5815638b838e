"""The last rung of the ladder. ONNX Runtime is in the extra ``test``."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node

from narformer_pyg.convert import convert_onnx
from narformer_pyg.convert.onnx_model.graph import Graph
from narformer_pyg.convert.onnx_model.inputs import concrete_inputs
from narformer_pyg.convert.onnx_model.load import load_model
from narformer_pyg.convert.onnx_model.runtime import RuntimeRungError, run_shapes

pytest.importorskip("onnxruntime")


def data_dependent(**kwargs: object) -> onnx.ModelProto:
    """The number of non-zero inputs is known when the model has run, and not before."""
    return model(
        [
            node("MatMul", "x w", "a"),
            node("Add", "a one", "b"),
            node("NonZero", "b", "places"),
            node("Cast", "places", "c", to=TensorProto.FLOAT),
            node("Relu", "c", "y"),
        ],
        {"x": [2, 3]},
        ["y"],
        {"w": [3, 4], "one": np.array(1, np.float32)},  # stripped: zeros when it runs
    )


def test_it_answers_what_nothing_else_knows() -> None:
    conversion = convert_onnx(data_dependent())
    report = conversion.report
    assert report.is_complete
    assert report.rung == "onnxruntime"
    assert report.shapes_by_rung == {"onnx": 2, "onnxruntime": 3}
    assert conversion.data.attr[-1, 8:].tolist() == [2, 8, 0, 0]


def test_it_can_be_switched_off() -> None:
    report = convert_onnx(data_dependent(), use_runtime=False).report
    assert report.unknown_shapes == ("places", "c", "y")
    assert "shapes of 3 tensors are unknown" in report.notes[0]


def test_it_can_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = convert_onnx(data_dependent()).report
    assert report.unknown_shapes == ("places", "c", "y")
    assert "pip install 'narformer-pyg[runtime]'" in report.notes[0]


def shapes_by_both(proto: onnx.ModelProto) -> tuple[Graph, dict[str, tuple[int, ...]]]:
    loaded = load_model(proto)
    graph = loaded.graph.copy()
    graph.inputs, _ = concrete_inputs(loaded, None, None)
    names = [o for n in graph.nodes for o in n.outputs]
    return graph, {k: v.dims for k, v in run_shapes(loaded, graph, names).items()}  # type: ignore[misc]


def test_surrogates_have_the_right_shapes() -> None:
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    microsoft = {"domain": "com.microsoft"}
    proto = model(
        [
            helper.make_node("FusedConv", ["x", "k"], ["a"], pads=[1, 0, 1, 0], activation="Relu",
                             **microsoft),
            helper.make_node("Gelu", ["a"], ["b"], **microsoft),
            node("QuantizeLinear", "b s z", "q"),
            helper.make_node("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], ["p"],
                             **microsoft),
            helper.make_node("QLinearGlobalAveragePool", ["p", "s", "z", "s", "z"], ["g"],
                             **microsoft),
            node("DequantizeLinear", "g s z", "d"),
            node("Flatten", "d", "f"),
            helper.make_node("FusedMatMul", ["f", "w"], ["m"], transB=1, **microsoft),
            helper.make_node("BiasGelu", ["m", "h"], ["y"], **microsoft),
        ],
        {"x": [2, 3, 8, 8]},
        ["y"],
        {"k": [4, 3, 3, 3], "s": scale, "z": zero, "w": [5, 4], "h": [5]},
        opset_imports=[helper.make_opsetid(d, v) for d, v in (("", 17), ("com.microsoft", 1))],
    )  # fmt: skip
    _, real = shapes_by_both(proto)
    conversion = convert_onnx(proto)
    # Transposing is what a standard product cannot do: the model has to run.
    assert conversion.report.shapes_by_rung == {"onnx": 7, "onnxruntime": 2}
    assert not conversion.report.unknown_operators
    for name, attr in zip(conversion.node_names[1:], conversion.data.attr[1:], strict=True):
        expected = (list(real[name]) + [0] * 4)[:4]
        assert attr[8:].tolist() == expected, name


def test_a_model_that_does_not_run() -> None:
    proto = model(
        [helper.make_node("Strange", ["x"], ["y"], domain="nobody.knows")],
        {"x": [2]},
        ["y"],
        opset_imports=[helper.make_opsetid("nobody.knows", 1)],
    )
    with pytest.raises(RuntimeRungError, match=r"nobody\.knows"):
        shapes_by_both(proto)
    assert "nobody.knows" in convert_onnx(proto).report.notes[0]
