from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import ResNet18, ints, model, node

from narformer_pyg.convert import convert_onnx, from_onnx
from narformer_pyg.errors import ConversionError


def dynamic(**inputs: list[int | str | None]) -> onnx.ModelProto:
    inputs = inputs or {"x": ["N", 3, "H", "W"]}
    return model([node("Relu", next(iter(inputs)), "y")], inputs, ["y"])


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"'model'.*none\.onnx', which does not exist"):
            from_onnx(tmp_path / "none.onnx")
        with pytest.raises(ConversionError, match="the folder"):
            from_onnx(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a model", b"<html></html>"])
    def test_other_formats(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(ConversionError, match=r"model\.onnx' to be an ONNX model"):
            from_onnx(path)

    def test_truncated(self, tmp_path: Path) -> None:
        content = ResNet18().build().SerializeToString()
        path = tmp_path / "model.onnx"
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ConversionError, match="another format or truncated"):
            from_onnx(path)

    def test_wrong_type(self) -> None:
        with pytest.raises(
            TypeError, match=r"path of an ONNX file or an onnx.ModelProto \(got int"
        ):
            from_onnx(5)  # type: ignore[arg-type]

    def test_empty(self) -> None:
        with pytest.raises(ConversionError, match="empty graph"):
            from_onnx(model([], {"x": [1]}, ["x"]))
        constant = model([node("Add", "a a", "y")], {"x": [1]}, ["y"], {"a": ints(1)})
        with pytest.raises(ConversionError, match="constants and copies"):
            from_onnx(constant)


class TestExternalData:
    def save(self, folder: Path) -> tuple[onnx.ModelProto, Path]:
        weight = np.ones((600, 600), np.float32)
        proto = model([node("MatMul", "x w", "y")], {"x": [1, 600]}, ["y"], {"w": weight})
        path = folder / "model.onnx"
        onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin")
        return proto, path

    def test_it_is_not_needed_in_memory(self, tmp_path: Path) -> None:
        _, path = self.save(tmp_path)
        stored = convert_onnx(path).report
        assert stored.parameters == 360_000
        loaded = onnx.load(path, load_external_data=False)
        assert convert_onnx(loaded).report.flops == stored.flops

    def test_shapes_are_read(self, tmp_path: Path) -> None:
        proto = model(
            [node("Reshape", "x shape", "y")], {"x": [1, 6]}, ["y"], {"shape": ints(2, 3)}
        )
        path = tmp_path / "model.onnx"
        onnx.save_model(
            proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0
        )
        assert from_onnx(path).attr[-1, 8:].tolist() == [2, 3, 0, 0]

    def test_missing(self, tmp_path: Path) -> None:
        _, path = self.save(tmp_path)
        (tmp_path / "weights.bin").unlink()
        with pytest.raises(ConversionError, match=r"no file 'weights\.bin' for 'w'"):
            from_onnx(path)

    def test_truncated(self, tmp_path: Path) -> None:
        _, path = self.save(tmp_path)
        (tmp_path / "weights.bin").write_bytes(b"1234")
        with pytest.raises(ConversionError, match=r"at least 1440000 bytes \(got 4\)"):
            from_onnx(path)

    @pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
    def test_outside_of_the_folder(self, tmp_path: Path, location: str) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        _, path = self.save(folder)
        (tmp_path / "secret.bin").write_bytes(bytes(1_440_000))
        (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
        loaded = onnx.load(path, load_external_data=False)
        for entry in loaded.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = location
        path.write_bytes(loaded.SerializeToString())
        with pytest.raises(ConversionError, match="to lie in its folder"):
            from_onnx(path)


class TestGraphs:
    def test_cycle(self) -> None:
        proto = model(
            [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")],
            {"x": [1]},
            ["y"],
        )
        with pytest.raises(ConversionError, match=r"no cycle.*Add 'a', Relu 'b'"):
            from_onnx(proto)

    def test_two_producers(self) -> None:
        proto = model([node("Relu", "x", "y"), node("Exp", "x", "y")], {"x": [1]}, ["y"])
        with pytest.raises(ConversionError, match=r"one producer.*Relu 'y' and Exp 'y'"):
            from_onnx(proto)

    @pytest.mark.parametrize(
        ("broken", "message"),
        [
            (node("Reshape", "x", "y"), r"Reshape 'y' to have at least 2 inputs in opset 17"),
            (node("Add", "x", "y"), r"at least 2 inputs in opset 17 \(got \['x'\]\)"),
            (node("Cast", "x", "y"), r"Cast 'y' to have the attribute 'to' in opset 17"),
            (onnx.helper.make_node("Relu", ["x"], []), "to have an output"),
            (onnx.helper.make_node("Relu", [""], ["y"]), "at least 1 inputs"),
        ],
    )
    def test_malformed_operators(self, broken: onnx.NodeProto, message: str) -> None:
        with pytest.raises(ConversionError, match=message):
            from_onnx(model([broken], {"x": [1]}, ["y"]))

    def test_huge(self) -> None:
        proto = model([node("Relu", "x", "y")], {"x": [2**20, 2**21]}, ["y"])
        with pytest.raises(ConversionError, match=r"at most 2\*\*40 elements"):
            from_onnx(proto)
        proto = model(
            [node("Expand", "x shape", "y")], {"x": [1]}, ["y"], {"shape": ints(2**31, 2**31)}
        )
        with pytest.raises(ConversionError, match=r"2\*\*40 elements.*for 'y'"):
            from_onnx(proto)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_models_convert_or_say_why(seed: int) -> None:
    rng = random.Random(seed)
    proto = ResNet18().build()
    for _ in range(3):
        broken = rng.choice(proto.graph.node)
        damage = rng.randrange(5)
        if damage == 0:
            del broken.input[rng.randrange(len(broken.input)) :]
        elif damage == 1:
            del broken.attribute[:]
        elif damage == 2:
            broken.op_type = rng.choice(("If", "Loop", "Reshape", "Constant", "LSTM", "Slice"))
        elif damage == 3 and broken.output:
            broken.output[0] = ""
        else:
            tensor = rng.choice(proto.graph.initializer)
            tensor.dims[:] = rng.choice(([], [0], [1, 2, 3], [2**30]))
    for vocabulary in ("onnx", "nnlqp"):
        with contextlib.suppress(ConversionError):  # and nothing else
            convert_onnx(proto, vocabulary=vocabulary, use_runtime=False)


class TestInputs:
    def test_dynamic(self) -> None:
        with pytest.raises(ConversionError) as caught:
            from_onnx(dynamic())
        message = str(caught.value)
        assert "'x' [N, 3, H, W]" in message
        assert "from_onnx('test', input_shapes={'x': (1, 3, 1, 1,)})" in message
        data = from_onnx(dynamic(), input_shapes={"x": (2, 3, 8, 9)})
        assert data.attr[:, 8:].tolist() == [[2, 3, 8, 9]] * 2
        assert data.static[0, 0] == 2

    def test_dynamic_batch(self) -> None:
        with pytest.raises(ConversionError, match=r"from_onnx\('test', batch_size=1\)"):
            from_onnx(dynamic(x=["N", 4]))
        assert from_onnx(dynamic(x=["N", 4]), batch_size=7).attr[1, 8] == 7
        assert from_onnx(dynamic(x=[None, 4]), batch_size=7).attr[1, 8] == 7

    def test_the_batch_fills_its_name_everywhere(self) -> None:
        proto = model([node("Mul", "x state", "y")], {"x": ["N", 4], "state": [2, "N", 4]}, ["y"])
        data = from_onnx(proto, batch_size=5)
        assert data.attr[:, 8:11].tolist() == [[5, 4, 0], [2, 5, 4], [2, 5, 4]]

    def test_unknown_rank(self) -> None:
        proto = dynamic(x=[1])
        proto.graph.input[0].type.tensor_type.ClearField("shape")
        with pytest.raises(ConversionError, match=r"'x' \[unknown rank\]"):
            from_onnx(proto)
        assert from_onnx(proto, input_shapes={"x": (3, 4)}).attr[1, 8:10].tolist() == [3, 4]

    def test_wrong_shapes(self) -> None:
        with pytest.raises(ConversionError, match=r"name inputs of the model \(got 'z'\).*'x'"):
            from_onnx(dynamic(), input_shapes={"z": (1,)})
        with pytest.raises(ConversionError, match=r"4 dimensions, as in \[N, 3, H, W\]"):
            from_onnx(dynamic(), input_shapes={"x": (1, 3)})
        with pytest.raises(ConversionError, match="whole numbers"):
            from_onnx(dynamic(), input_shapes={"x": (1, 3, 8.0, 8)})  # type: ignore[dict-item]

    def test_shapes_that_do_not_fit(self) -> None:
        proto = model(
            [node("Flatten", "x", "a"), node("Gemm", "a w", "y")],
            {"x": ["N", "H"]},
            ["y"],
            {"w": [8, 4]},
        )
        data = from_onnx(proto, input_shapes={"x": (2, 8)})
        assert data.attr[-1, 8:].tolist() == [2, 4, 0, 0]
        with pytest.raises(ConversionError, match=r"to fit 'test'.*cannot multiply \[2, 9\]"):
            from_onnx(proto, input_shapes={"x": (2, 9)})

    @pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
    def test_wrong_batch_size(self, batch_size: object) -> None:
        with pytest.raises(ValueError, match="'batch_size' to be a positive integer"):
            from_onnx(dynamic(), batch_size=batch_size)  # type: ignore[arg-type]

    def test_wrong_names(self) -> None:
        with pytest.raises(ValueError, match=r"'counting' to be among 'standard', 'nnlqp'"):
            from_onnx(dynamic(x=[1]), counting="macs")
        with pytest.raises(ValueError, match=r"'vocabulary' to be among 'onnx', 'nnlqp'"):
            from_onnx(dynamic(x=[1]), vocabulary="tf")


class TestBatchOfStaticExports:
    def test_verified(self) -> None:
        report = convert_onnx(ResNet18(1).build(), batch_size=8).report
        expected = ResNet18(8)
        expected.build()
        assert report.batch_size == 8
        assert report.flops == 2 * expected.macs
        assert "all shapes agree" in report.notes[0]

    def reshaped(self, *shape: int) -> onnx.ModelProto:
        return model(
            [node("Reshape", "x shape", "a"), node("MatMul", "a w", "y")],
            {"x": [1, 4, 8]},
            ["y"],
            {"shape": ints(*shape), "w": [8, 2]},
        )

    def test_flexible(self) -> None:
        assert from_onnx(self.reshaped(-1, 8), batch_size=3).attr[-1, 8] == 12

    def test_baked_in(self) -> None:
        with pytest.raises(ConversionError, match=r"cannot make \[4, 8\] of \[3, 4, 8\]"):
            from_onnx(self.reshaped(4, 8), batch_size=3)

    def test_hidden_in_a_flexible_dimension(self) -> None:
        # The product of a sequence with itself grows with the square of a batch in its length.
        proto = model(
            [
                node("Reshape", "x shape", "a"),
                node("Transpose", "a", "t", perm=[0, 2, 1]),
                node("MatMul", "a t", "y"),
            ],
            {"x": [1, 4, 8]},
            ["y"],
            {"shape": ints(1, -1, 8)},
        )
        with pytest.raises(ConversionError, match=r"gives \[1, 12, 12\] where it gave \[1, 4, 4\]"):
            from_onnx(proto, batch_size=3)

    def test_unknown_shapes_verify_nothing(self) -> None:
        proto = model(
            [onnx.helper.make_node("Strange", ["x"], ["y"], domain="nobody.knows")],
            {"x": [1, 4]},
            ["y"],
            opset_imports=[onnx.helper.make_opsetid("nobody.knows", 1)],
        )
        with pytest.raises(ConversionError, match="nothing can be verified"):
            from_onnx(proto, batch_size=3)

    def test_same_batch_is_no_change(self) -> None:
        assert not convert_onnx(self.reshaped(4, 8), batch_size=1).report.notes


def test_symbolic_dimensions_are_never_read_as_zero() -> None:
    proto = dynamic(x=["N", 4])
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    data = from_onnx(proto, batch_size=2)
    assert (data.attr[:, 8:10] > 0).all()


def test_optional_inputs_may_be_empty_names() -> None:
    body = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["c"], ["c_out"]),
            onnx.helper.make_node("Relu", ["s"], ["s_out"]),
        ],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("s", TensorProto.FLOAT, [2, 3]),
        ],
        [
            onnx.helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("s_out", TensorProto.FLOAT, [2, 3]),
        ],
    )
    loop = onnx.helper.make_node("Loop", ["", "", "x"], ["y"], body=body)
    proto = model([loop], {"x": [2, 3]}, ["y"])
    assert convert_onnx(proto, use_runtime=False).report.operators == {"Loop": 1}
    with pytest.raises(ConversionError, match="at least 2 inputs"):
        convert_onnx(model([onnx.helper.make_node("Add", ["x", ""], ["y"])], {"x": [2, 3]}, ["y"]))
