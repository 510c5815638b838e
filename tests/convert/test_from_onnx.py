from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import ResNet18, ints, model, node
from torch_geometric.data import Batch
from torch_geometric.utils import to_undirected

from narformer_pyg.convert import convert_onnx, from_onnx, summary_text
from narformer_pyg.errors import ConversionError
from narformer_pyg.nn import OperatorTokenEncoder

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

# The order of the authors' release.
PAPER_OPS = (
    "Conv", "Relu", "Add", "Sigmoid", "Reshape", "MaxPool", "Split", "GlobalAveragePool",
    "Gemm", "Transpose", "Upsample", "BatchNormalization", "Mul", "Concat", "Flatten",
    "AveragePool", "Cast", "MatMul", "ReduceMean", "Pow", "Slice", "Div", "Sub", "Sqrt", "Clip",
    "Softmax", "Tanh", "ConvTranspose",
)  # fmt: skip


def paper_number(value: float) -> list[float]:
    out = []
    for j in range(5):
        out += [np.sin(value / 10000 ** (j / 5)), np.cos(value / 10000 ** (j / 5))]
    return out


def paper_code(op_type: str, slots: list[int | None], dims: list[int]) -> list[float]:
    """The 152 numbers of a node, written out."""
    code = [0.0] * 32
    if op_type:
        code[PAPER_OPS.index(op_type)] = 1.0
    for slot in slots:
        code += [0.0] * 10 if slot is None else paper_number(slot)
    for dim in dims:
        code += paper_number(dim)
    return code


@pytest.mark.parametrize("batch_size", [1, 4])
def test_paper_features_of_resnet18(batch_size: int) -> None:
    resnet = ResNet18(batch_size)
    data = from_onnx(resnet.build(), vocabulary="nnlqp", counting="nnlqp")
    assert data.num_nodes == 70
    assert to_undirected(data.edge_index).size(1) == 2 * 77
    encoder = OperatorTokenEncoder("nnlqp")
    code = encoder(data)
    assert code.shape == (70, 152)
    expected = torch.tensor([paper_code(*row) for row in resnet.rows]).float()
    torch.testing.assert_close(code, expected, rtol=0, atol=1e-6)
    static = [batch_size, resnet.flops, resnet.parameters, resnet.accessed]
    torch.testing.assert_close(data.static, torch.tensor([static], dtype=torch.float))
    numbers = [batch_size, *(value / 1e9 for value in static[1:])]
    expected = torch.tensor([[code for number in numbers for code in paper_number(number)]]).float()
    torch.testing.assert_close(encoder.encode_static(data), expected, rtol=0, atol=1e-6)


def test_resnet18_costs() -> None:
    resnet = ResNet18(2)
    report = convert_onnx(resnet.build()).report
    assert report.flops == 2 * resnet.macs
    assert report.parameters == resnet.torch_parameters == 11_689_512  # torchvision's number


def test_the_data_sets_own_file(published: Path) -> None:
    file = published / "resnet18-v1-7-no-weight.onnx"
    conversion = convert_onnx(file, vocabulary="nnlqp", counting="nnlqp")
    report = conversion.report
    assert (report.num_nodes, report.num_edges) == (70, 77)
    assert f"{report.flops / 1e9:.2f}" == "3.64"
    resnet = ResNet18()
    resnet.build()
    assert (report.flops, report.parameters) == (resnet.flops, resnet.parameters)
    assert report.memory_access == resnet.accessed
    code = OperatorTokenEncoder("nnlqp")(conversion.data)
    expected = torch.tensor([paper_code(*row) for row in resnet.rows]).float()
    # The file joins the shortcut of a block in another place; nodes are the same ones.
    order, expected_order = code.tolist(), expected.tolist()
    assert len(order) == len(expected_order)
    torch.testing.assert_close(
        code[np.lexsort(code.numpy().round(3).T)],
        expected[np.lexsort(expected.numpy().round(3).T)],
        rtol=0,
        atol=1e-6,
    )


def test_data_contract() -> None:
    data = from_onnx(ResNet18().build())
    assert data.op.dtype == data.position.dtype == data.edge_index.dtype == torch.long
    assert data.attr.dtype == data.static.dtype == torch.float
    assert data.attr.shape == (70, 12)
    assert data.static.shape == (1, 4)
    assert data.position.tolist() == list(range(70))
    source, target = data.edge_index
    assert bool((source < target).all())  # positions follow the data flow
    assert data.edge_index.t().tolist() == sorted(
        data.edge_index.t().tolist(), key=lambda e: e[::-1]
    )
    expected = {"op", "position", "attr", "edge_index", "static", "num_nodes"}
    assert set(data.keys()) == expected | {"vocabulary", "counting"}
    assert (data.vocabulary, data.counting) == ("onnx", "standard")
    batch = Batch.from_data_list([data, data])
    assert batch.static.shape == (2, 4)
    encoder = OperatorTokenEncoder()
    code = encoder(data)
    torch.testing.assert_close(encoder(batch), torch.cat([code, code]))


def test_the_model_is_not_changed() -> None:
    proto = ResNet18().build()
    before = proto.SerializeToString(deterministic=True)
    from_onnx(proto, batch_size=2)
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_models_of_onnx(path: Path) -> None:
    report = convert_onnx(path, use_runtime=False).report
    assert report.is_complete
    assert report.rung == "onnx"
    assert not report.unknown_operators
    assert not {"Constant", "ConstantOfShape", "Identity", "Dropout"} & set(report.operators)


def test_parameters_of_light_models() -> None:
    counts = {
        name: convert_onnx(LIGHT / f"light_{name}.onnx").report.parameters
        for name in ("bvlc_alexnet", "vgg19", "resnet50")
    }
    # Alexnet with groups is Caffe's; the others are torchvision's numbers.
    assert counts == {"bvlc_alexnet": 60_965_224, "vgg19": 143_667_240, "resnet50": 25_557_032}


def attention_model(heads: int = 4, width: int = 32) -> onnx.ModelProto:
    """A block as exporters write it: the heads are split by Shape, Gather, Concat and Reshape."""
    nodes = [
        node("Identity", "wq_", "wq"),
        node("Shape", "x", "shape"),
        node("Constant", "", "zero", value=helper.make_tensor("", TensorProto.INT64, [], [0])),
        node("Constant", "", "one", value=helper.make_tensor("", TensorProto.INT64, [], [1])),
        node("Gather", "shape zero", "batch_"),
        node("Gather", "shape one", "length_"),
        node("Unsqueeze", "batch_", "batch", axes=[0]),
        node("Unsqueeze", "length_", "length", axes=[0]),
        node("Concat", "batch length heads size", "split", axis=0),
        node("Concat", "batch length minus_one", "join", axis=0),
    ]
    for kind in "qkv":
        perm = [0, 2, 3, 1] if kind == "k" else [0, 2, 1, 3]
        nodes += [
            node("MatMul", f"x w{kind}", f"{kind}0"),
            node("Reshape", f"{kind}0 split", f"{kind}1"),
            node("Transpose", f"{kind}1", kind, perm=perm),
        ]
    nodes += [
        node("MatMul", "q k", "scores_"),
        node("Div", "scores_ root", "scores"),
        node("Softmax", "scores", "weights", axis=-1),
        node("Dropout", "weights", "dropped"),
        node("MatMul", "dropped v", "z0"),
        node("Transpose", "z0", "z1", perm=[0, 2, 1, 3]),
        node("Reshape", "z1 join", "z"),
        node("MatMul", "z wo", "out_"),
        node("Identity", "out_", "out"),
    ]
    weight = np.zeros((width, width), np.float32)
    return model(
        nodes,
        {"x": ["batch", "length", width]},
        ["out"],
        {
            "wq_": weight, "wk": weight, "wv": weight, "wo": weight,
            "heads": ints(heads), "size": ints(width // heads), "minus_one": ints(-1),
            "root": np.array(2.0, np.float32),
        },
        opset=12,
    )  # fmt: skip


class TestFolding:
    def test_shape_arithmetic_and_identities(self) -> None:
        conversion = convert_onnx(attention_model(), input_shapes={"x": (2, 10, 32)})
        report = conversion.report
        assert report.operators == {
            "MatMul": 6, "Reshape": 4, "Transpose": 4, "Div": 1, "Softmax": 1,
        }  # fmt: skip
        assert report.is_complete
        assert report.num_folded == 12
        # Four projections, scores and the weighted sum.
        macs = 2 * 10 * 32 * 32 * 4 + 2 * (2 * 4 * 10 * 10 * 8)
        assert report.flops == 2 * macs
        assert report.parameters == 4 * 32 * 32
        assert conversion.node_names[0] == "x"
        edges = {
            (conversion.node_names[a], conversion.node_names[b])
            for a, b in conversion.data.edge_index.t().tolist()
        }
        assert {("x", "q0"), ("q", "scores_"), ("weights", "z0"), ("z", "out_")} <= edges
        assert conversion.data.attr[-1].tolist()[8:] == [2, 10, 32, 0]

    def test_not_simplified(self) -> None:
        proto = attention_model()
        report = convert_onnx(proto, input_shapes={"x": (2, 10, 32)}, simplify=False).report
        assert sum(report.operators.values()) == len(proto.graph.node)
        assert report.is_complete
        assert report.num_folded == 0
        folded = convert_onnx(proto, input_shapes={"x": (2, 10, 32)}).report
        assert report.flops == folded.flops
        assert report.parameters == folded.parameters

    def test_weights_from_constant_of_shape(self) -> None:
        proto = model(
            [
                node("ConstantOfShape", "dims", "w"),
                node("Transpose", "w", "wt", perm=[1, 0]),
                node("MatMul", "x wt", "y"),
            ],
            {"x": [1, 600]},
            ["y"],
            {"dims": ints(500, 600)},
        )
        conversion = convert_onnx(proto)
        assert conversion.report.operators == {"MatMul": 1}
        assert conversion.report.parameters == 300_000

    def test_long_chain_of_shapes(self) -> None:
        """Exporters trace padding like this, once a block: a shape is known if the last one is."""
        length = 40
        nodes = []
        for i in range(length):
            nodes += [
                node("Shape", f"x{i}", f"shape{i}"),
                node("Mod", f"shape{i} window", f"rest{i}"),
                node("Equal", f"rest{i} zero", f"even{i}"),
                node("Where", f"even{i} shape{i} minus_one", f"new{i}"),
                node("Reshape", f"x{i} new{i}", f"y{i}"),
                node("Relu", f"y{i}", f"x{i + 1}"),
            ]
        proto = model(
            nodes,
            {"x0": [4, 8]},
            [f"x{length}"],
            {"window": ints(2), "zero": ints(0), "minus_one": ints(-1)},
        )
        report = convert_onnx(proto, use_runtime=False).report
        assert report.is_complete
        assert report.operators == {"Relu": length}  # each Reshape turns out to change nothing

    def test_condition_that_is_known(self) -> None:
        branches = {
            name: helper.make_graph(
                [node(op, "x", "inner"), node("Neg", "inner", f"{name}_out")],
                name,
                [],
                [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
            )
            for name, op in (("then", "Relu"), ("else", "Tanh"))
        }
        proto = model(
            [
                node("Shape", "x", "shape"),
                node("Size", "shape", "rank"),
                node("Equal", "rank three", "condition"),
                node(
                    "If",
                    "condition",
                    "y_",
                    then_branch=branches["then"],
                    else_branch=branches["else"],
                ),
                node("Abs", "y_", "y"),
            ],
            {"x": [4, 5]},
            ["y"],
            {"three": np.array(3)},
        )
        report = convert_onnx(proto).report
        assert report.operators == {"Tanh": 1, "Neg": 1, "Abs": 1}
        assert report.is_complete

    def test_condition_that_is_not_known(self) -> None:
        branch = helper.make_graph(
            [node("Relu", "a", "inner")],
            "branch",
            [],
            [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
        )
        proto = model(
            [
                node("Exp", "x", "a"),
                node("ReduceSum", "x", "total", keepdims=0),
                node("Cast", "total", "condition", to=TensorProto.BOOL),
                node("If", "condition", "y", then_branch=branch, else_branch=branch),
            ],
            {"x": [4, 5]},
            ["y"],
        )
        conversion = convert_onnx(proto)
        names = conversion.node_names
        edges = {(names[a], names[b]) for a, b in conversion.data.edge_index.t().tolist()}
        assert ("a", "y") in edges  # read by the subgraphs
        assert conversion.report.uncounted == ("If 'y'",)
        assert "'input_values'" in conversion.report.notes[0]
        assert conversion.data.attr[-1, 8:].tolist() == [4, 5, 0, 0]

    def test_an_input_that_is_a_setting(self) -> None:
        branches = [
            helper.make_graph(
                [node("MatMul", f"x w{width}", f"out{width}")],
                f"branch{width}",
                [],
                [helper.make_tensor_value_info(f"out{width}", TensorProto.FLOAT, None)],
                [TensorProto(name=f"w{width}", dims=[5, width], data_type=TensorProto.FLOAT)],
            )
            for width in (6, 7)
        ]
        proto = model(
            [
                node("Equal", "rate fast", "condition"),
                node("If", "condition", "y", then_branch=branches[0], else_branch=branches[1]),
            ],
            {"x": ["N", 5]},
            ["y"],
            {"fast": ints(16000).reshape(())},
        )
        proto.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.INT64, []))
        for rate, width in ((16000, 6), (8000, 7)):
            conversion = convert_onnx(proto, input_values={"rate": rate}, batch_size=2)
            assert conversion.node_names == ("x", "y")
            assert conversion.node_shapes == ((2, 5), (2, width))
            assert conversion.report.flops == 2 * 2 * 5 * width
            assert conversion.report.parameters == 5 * width
            assert list(conversion.report.input_shapes) == ["x"]
            assert conversion.report.num_folded == 1
        assert convert_onnx(proto, batch_size=2).report.uncounted == ("If 'y'",)
        with pytest.raises(ConversionError, match=r"name inputs of the model \(got 'speed'\)"):
            from_onnx(proto, input_values={"speed": 1})
        with pytest.raises(ConversionError, match=r"to have shape \[\] \(got \[1\]\)"):
            from_onnx(proto, input_values={"rate": [1]})
        with pytest.raises(ConversionError, match=r"of type INT64 \(got 'fast'"):
            from_onnx(proto, input_values={"rate": "fast"})

    def test_random_numbers_are_no_constants(self) -> None:
        proto = model(
            [node("RandomNormal", "", "noise", shape=[4, 5]), node("Add", "x noise", "y")],
            {"x": [4, 5]},
            ["y"],
        )
        assert convert_onnx(proto).report.operators == {"RandomNormal": 1, "Add": 1}

    def test_functions_are_inlined(self) -> None:
        function = helper.make_function(
            "custom",
            "Twice",
            ["a"],
            ["b"],
            [node("Add", "a a", "b")],
            [helper.make_opsetid("", 17)],
        )
        proto = model(
            [helper.make_node("Twice", ["x"], ["y"], domain="custom")],
            {"x": [4, 5]},
            ["y"],
            functions=[function],
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)],
        )
        assert convert_onnx(proto).report.operators == {"Add": 1}


@pytest.mark.parametrize("opset", [6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20, 21, 22])
def test_opsets(opset: int) -> None:
    axes = {"axes": [0]} if opset < 13 else {}
    nodes = [
        node("Conv", "x w", "a", kernel_shape=[3, 3]),
        node("Relu", "a", "b"),
        node("ReduceMean", "b axes3" if opset >= 18 else "b", "c", keepdims=0,
             **({} if opset >= 18 else {"axes": [3]})),
        node("Shape", "c", "s"),
        node("Squeeze", "one axes0" if opset >= 13 else "one", "first", **axes),
        node("Gather", "s first", "channels"),
        node("Unsqueeze", "channels axes0" if opset >= 13 else "channels", "size", **axes),
        node("Concat", "minus_one size", "shape", axis=0),
        node("Reshape", "c shape", "d"),
        node("Gemm", "d v z", "y", **({"broadcast": 1} if opset == 6 else {})),
    ]  # fmt: skip
    weights = {
        "w": [4, 3, 3, 3], "v": [4, 5], "z": [5], "one": ints(1), "minus_one": ints(-1),
        "axes0": ints(0), "axes3": ints(3),
    }  # fmt: skip
    proto = model(nodes, {"x": [2, 3, 8, 8]}, ["y"], weights, opset)
    report = convert_onnx(proto, use_runtime=False).report
    assert report.operators == {"Conv": 1, "Relu": 1, "ReduceMean": 1, "Reshape": 1, "Gemm": 1}
    assert report.is_complete
    assert report.flops == 2 * (2 * 4 * 36 * 27 + 12 * 4 * 5)
    assert report.parameters == 108 + 25


class TestNodes:
    def test_unsorted_graphs_are_sorted(self) -> None:
        proto = model([node("Relu", "a", "y"), node("Exp", "x", "a")], {"x": [1, 2]}, ["y"])
        conversion = convert_onnx(proto)
        assert conversion.node_names == ("x", "a", "y")
        assert conversion.data.edge_index.tolist() == [[0, 1], [1, 2]]

    def test_repeated_operand_is_one_edge(self) -> None:
        data = from_onnx(model([node("Mul", "x x", "y")], {"x": [1, 2]}, ["y"]))
        assert data.edge_index.tolist() == [[0], [1]]

    def test_outputs_of_the_paper_are_nodes(self) -> None:
        proto = model(
            [node("Split", "x", "a b", axis=1), node("Add", "a b", "y")],
            {"x": [1, 4]},
            ["y"],
            opset=11,
        )
        assert convert_onnx(proto, vocabulary="nnlqp").node_names == ("x", "a", "b", "y")
        conversion = convert_onnx(proto)
        assert conversion.node_names == ("x", "a", "y")
        assert conversion.data.edge_index.tolist() == [[0, 1], [1, 2]]

    def test_more_than_four_dimensions(self) -> None:
        proto = model([node("Relu", "x", "y")], {"x": [1, 2, 3, 4, 5, 6]}, ["y"])
        assert from_onnx(proto).attr[1, 8:].tolist() == [1, 2, 3, 4 * 5 * 6]
        assert from_onnx(proto, vocabulary="nnlqp").attr[1, 8:].tolist() == [1, 2, 3, 4]

    def test_operators_of_other_domains(self) -> None:
        proto = model(
            [
                helper.make_node("FastGelu", ["x", "b"], ["a"], domain="com.microsoft"),
                helper.make_node("Strange", ["a"], ["c"], domain="nobody.knows"),
                node("Relu", "c", "y"),
            ],
            {"x": [2, 8]},
            ["y"],
            {"b": np.zeros(8, np.float32)},
            opset_imports=[
                helper.make_opsetid(d, v)
                for d, v in (("", 17), ("com.microsoft", 1), ("nobody.knows", 1))
            ],
        )
        conversion = convert_onnx(proto)
        report = conversion.report
        assert report.unknown_operators == {"nobody.knows::Strange": 1}
        assert conversion.data.attr[1, 8:].tolist() == [2, 8, 0, 0]
        assert report.unknown_shapes == ("c", "y")
        assert conversion.data.attr[2:, 8:].unique().tolist() == [-1]
        assert not report.is_complete
        assert "unknown" in report.notes[0]
        text = summary_text(report)
        assert "not in vocabulary: nobody.knows::Strange 1" in text
        assert "unknown shapes:    c, y" in text

    def test_declared_shapes_answer_for_unknown_operators(self) -> None:
        proto = model(
            [
                helper.make_node("Strange", ["x"], ["c"], domain="nobody.knows"),
                node("Relu", "c", "y"),
            ],
            {"x": [2, 8]},
            ["y"],
            opset_imports=[helper.make_opsetid(d, 17) for d in ("", "nobody.knows")],
        )
        proto.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 3]))
        report = convert_onnx(proto).report
        assert report.is_complete
        assert report.rung == "declared"


def test_summary() -> None:
    text = summary_text(convert_onnx(ResNet18().build(), counting="nnlqp").report)
    assert "70 nodes, 77 edges" in text
    assert "3.64 G" in text
    assert "elements" in text
    assert "data [1, 3, 224, 224]" in text


def conv_model(
    x: tuple[int | str, ...], weight: tuple[int, ...], **kwargs: object
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], **kwargs)],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=weight)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


class TestMalformed:
    def test_kernel_larger_than_the_input(self) -> None:
        report = convert_onnx(conv_model((1, 3, 1, 1), (4, 3, 3, 3)), use_runtime=False).report
        assert report.unknown_shapes == ("y",)
        assert report.flops == 0  # not the product of two negative sizes

    def test_static_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ConversionError, match="cannot convolve"):
            from_onnx(conv_model((1, 5, 8, 8), (4, 3, 3, 3)))

    @pytest.mark.parametrize("shape", [(3,), ()])
    def test_ranks_that_do_not_fit(self, shape: tuple[int, ...]) -> None:
        proto = conv_model((1, 3, 8, 8), (4, 3, 3, 3))
        proto.graph.input[0].type.tensor_type.ClearField("shape")
        with pytest.raises(ConversionError, match="cannot apply Conv"):
            from_onnx(proto, input_shapes={"x": shape}, use_runtime=False)

    def test_attribute_of_another_type(self) -> None:
        data = from_onnx(conv_model((1, 3, 8, 8), (4, 3, 3, 3), dilations="a"), use_runtime=False)
        assert data.num_nodes == 2

    def test_a_tensor_from_nowhere(self) -> None:
        proto = conv_model((1, 3, 8, 8), (4, 3, 3, 3))
        proto.graph.node[0].input[0] = "nope"
        with pytest.raises(ConversionError, match="'nope', which Conv"):
            from_onnx(proto)

    def test_shapes_given_as_something_else(self) -> None:
        proto = conv_model(("N", 3, 8, 8), (4, 3, 3, 3))
        expected = from_onnx(proto, input_shapes={"x": (2, 3, 8, 8)})
        data = from_onnx(proto, input_shapes={"x": np.array([2, 3, 8, 8])})  # type: ignore[dict-item]
        assert torch.equal(data.attr, expected.attr)
        for wrong in (5, (True, 3, 8, 8), (2.0, 3, 8, 8)):
            with pytest.raises(ConversionError, match="whole numbers"):
                from_onnx(proto, input_shapes={"x": wrong})  # type: ignore[dict-item]


def test_values_of_whole_numbers() -> None:
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "s"], ["y"])],
        "expand",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    for value in (6, [6], 6.0):
        conversion = convert_onnx(proto, input_values={"s": value})
        assert conversion.node_shapes[-1] == (6,)
    with pytest.raises(ConversionError, match="INT64"):
        convert_onnx(proto, input_values={"s": 2.5})


def test_range_of_a_repeated_input() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Range", ["zero", "n", "n"], ["r"]),
            helper.make_node("Add", ["x", "r"], ["y"]),
        ],
        "range",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
        [
            helper.make_tensor("zero", TensorProto.INT64, [], [0]),
            helper.make_tensor("n", TensorProto.INT64, [], [3]),
        ],
    )
    conversion = convert_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert conversion.report.operators == {"Add": 1}


def if_model(num_outputs: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    inner = [helper.make_node("Relu", ["r"], ["r1"])]
    inner += [helper.make_node("Relu", [f"r{i}"], [f"r{i + 1}"]) for i in range(1, 4)]
    outputs = [value(f"r{4 - i}", TensorProto.FLOAT, None) for i in range(num_outputs)]
    branch = helper.make_graph(inner, "branch", [], outputs)
    other = helper.make_graph(
        [helper.make_node("Sigmoid", ["r"], [f"s{i}"]) for i in range(num_outputs)],
        "other", [], [value(f"s{i}", TensorProto.FLOAT, None) for i in range(num_outputs)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["r"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["first"]),
        helper.make_node("Equal", ["first", "two"], ["same"]),
        helper.make_node("If", ["same"], ["z"], then_branch=branch, else_branch=other),
        helper.make_node("Sigmoid", ["z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "if", [value("x", TensorProto.FLOAT, ["N", 3])],
        [value("y", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("zero", TensorProto.INT64, [], [0]),
            helper.make_tensor("two", TensorProto.INT64, [], [2]),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_shapes_inside_of_a_branch_that_replaces_as_many_nodes() -> None:
    report = convert_onnx(if_model(1), batch_size=2, use_runtime=False).report
    assert report.unknown_shapes == ()
    assert report.operators == {"Relu": 5, "Sigmoid": 1}


def test_branch_with_too_many_outputs() -> None:
    with pytest.raises(ConversionError, match="2 outputs of its branch"):
        convert_onnx(if_model(2), batch_size=2, use_runtime=False)
