from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_models import model, node
from predictors import ARCH, OTHER, small_predictor
from torch_geometric.data import Batch, Data

from narformer_pyg.convert import from_nasbench201, to_data
from narformer_pyg.datasets import FakeNAS, NASBench201
from narformer_pyg.errors import ConversionError
from narformer_pyg.nn import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces import DARTS_GENOTYPES, NASBench201Cell
from narformer_pyg.testing import assert_batch_invariant
from narformer_pyg.training import mape

MATRIX = [[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv3x3-bn-relu", "output"]


def network_predictor(vocabulary: str = "onnx") -> ArchitecturePredictor:
    torch.manual_seed(0)
    encoder = OperatorTokenEncoder(vocabulary)
    sizes = {"hidden_channels": 16, "num_blocks": 2, "static_channels": encoder.static_channels}
    network = create_model("narformer_v2", encoder.out_channels, readout="sum", **sizes)
    return ArchitecturePredictor(encoder, network, ["latency"], ["ms"]).eval()


def relu_model() -> onnx.ModelProto:
    return model([node("Relu", "x", "y")], {"x": [1, 3, 8, 8]}, ["y"])


def labelled(num_targets: int = 1) -> NASBench201:
    return NASBench201(target=["cifar10_test_acc", "cifar100_test_acc"][:num_targets])[:100]


class TestForward:
    def test_is_predict(self) -> None:
        predictor, dataset = small_predictor(100.0, num_targets=2), labelled(2)
        predictor.calibrate(dataset)
        expected = predictor.predict(dataset)
        batch = Batch.from_data_list(list(dataset))
        torch.testing.assert_close(predictor(batch), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(predictor(dataset[7]), expected[7:8], rtol=1e-5, atol=0)
        raw = predictor.forward_scaled(batch) * 100
        torch.testing.assert_close(predictor.calibration(raw), expected)
        predictor.training = True  # without dropout
        torch.testing.assert_close(predictor(batch), raw)
        assert not torch.allclose(raw, expected)

    @pytest.mark.parametrize("dtype", [torch.float, torch.double])
    def test_copies(self, dtype: torch.dtype) -> None:
        predictor = small_predictor([2.0, 3.0], num_targets=2, metadata={"a": 1})
        predictor.calibrate(labelled(2))
        copied = copy.deepcopy(predictor).to(dtype)
        other = small_predictor(num_targets=2, seed=1).to(dtype)
        other.load_state_dict(predictor.state_dict())
        expected = predictor.predict([ARCH, OTHER])
        for same in (copied, other):
            out = same.predict([ARCH, OTHER])
            assert out.dtype == dtype
            torch.testing.assert_close(out.float(), expected, rtol=1e-5, atol=0)
        assert copied.metadata == {"a": 1}


class TestPredict:
    def test_anything(self) -> None:
        predictor = small_predictor()
        cell = NASBench201Cell.from_str(ARCH)
        named, bare = cell.to_data(), cell.to_data()
        named.name, named.y = "a cell", torch.ones(1, 1)
        del bare.num_nodes
        one, other = predictor.predict(ARCH), predictor.predict(OTHER)
        assert one.shape == (1,)
        assert not one.requires_grad
        assert not torch.allclose(one, other)
        mixed = [ARCH, cell, named, bare, OTHER]
        for architecture in mixed[:4]:
            torch.testing.assert_close(predictor.predict(architecture), one)
        expected = torch.stack([one, one, one, one, other])
        torch.testing.assert_close(predictor.predict(mixed), expected)
        torch.testing.assert_close(predictor.predict(item for item in mixed), expected)
        torch.testing.assert_close(predictor.predict(np.array([ARCH, OTHER])), expected[3:])
        torch.testing.assert_close(predictor.predict((ARCH, OTHER)), expected[3:])
        assert predictor.predict(MATRIX).shape == (1,)
        assert predictor.predict([MATRIX, ARCH]).shape == (2, 1)
        for nothing in ([], iter([]), NASBench201()[:0]):
            assert predictor.predict(nothing).shape == (0, 1)

    def test_dataset_and_batch(self, capsys: pytest.CaptureFixture[str]) -> None:
        predictor, dataset = small_predictor(), FakeNAS(9)
        expected = torch.stack([predictor.predict(data) for data in dataset])
        torch.testing.assert_close(predictor.predict(dataset), expected)
        torch.testing.assert_close(predictor.predict(list(dataset)), expected)
        torch.testing.assert_close(predictor.predict(dataset[3:7]), expected[3:7])
        batch = Batch.from_data_list(dataset[:4])
        torch.testing.assert_close(predictor.predict(batch), expected[:4])
        assert capsys.readouterr().err == ""
        for batch_size in (1, 2, 8, 9, 100):
            out = predictor.predict(dataset, batch_size, progress=True)
            torch.testing.assert_close(out, expected)
            assert "9/9" in capsys.readouterr().err
        assert_batch_invariant(predictor, list(dataset))

    def test_stays_as_it_is(self) -> None:
        predictor = small_predictor()
        expected = predictor.predict(ARCH)
        for mode in (True, False):
            predictor.train(mode)
            predictor.model.readout.train(not mode)
            modes = [module.training for module in predictor.modules()]
            numbers = torch.get_rng_state()
            assert torch.equal(predictor.predict(ARCH, device="cpu"), expected)  # no dropout
            assert torch.equal(torch.get_rng_state(), numbers)
            assert [module.training for module in predictor.modules()] == modes

    @pytest.mark.parametrize("training", [False, True])
    def test_threads(self, training: bool) -> None:
        predictor, dataset = small_predictor(), FakeNAS(64)
        expected = predictor.predict(dataset)
        predictor.train(training)
        parts = [dataset[i::8] for i in range(8)] * 4
        with ThreadPoolExecutor(8) as pool:
            out = list(pool.map(lambda part: predictor.predict(part, batch_size=4), parts))
        for i, prediction in enumerate(out):
            torch.testing.assert_close(prediction, expected[i % 8 :: 8], rtol=1e-5, atol=0)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_gpu(self) -> None:
        predictor = small_predictor(100.0)
        predictor.calibrate(NASBench201()[:50])
        expected = predictor.predict(NASBench201()[:50])
        out = predictor.predict(NASBench201()[:50], device="cuda")
        assert predictor.device.type == out.device.type == "cpu"
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=0)
        moved = predictor.to("cuda").predict(NASBench201()[:50])
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=0)

    def test_wrong_arguments(self) -> None:
        predictor = small_predictor()
        wrong = from_nasbench201(ARCH)
        wrong.edge_index[0, 0] = 12
        with pytest.raises(ValueError, match=r"'edge_index' of graph 1 .*0 to 7 \(got the edge"):
            predictor.predict([ARCH, wrong, ARCH])
        with pytest.raises(ValueError, match=r"'batch_size'.*got 0"):
            predictor.predict(ARCH, batch_size=0)
        with pytest.raises(ValueError, match=r"'device' to be .*got 'foo'"):
            predictor.predict(ARCH, device="foo")
        with pytest.raises(ConversionError, match=r"\(architecture 1\)"):
            predictor.predict([ARCH, "|nonsense|"])
        with pytest.raises(ConversionError, match=r"got int: 3"):
            predictor.predict(3)
        with pytest.raises(ConversionError, match=r"got NoneType"):
            predictor.predict([ARCH, None])
        with pytest.raises(ValueError, match=r"'data\.op'"):
            predictor.predict(Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2))


class TestNetworks:
    @pytest.mark.parametrize(
        "architecture", [str(DARTS_GENOTYPES["DARTS_V1"]), MATRIX], ids=["darts", "nasbench101"]
    )
    def test_other_spaces(self, architecture: Any) -> None:
        network = create_model("narformer_v2", 128, hidden_channels=16, num_blocks=1)
        predictor = ArchitecturePredictor(CellTokenEncoder(), network).eval()
        graph = to_data(architecture)
        torch.testing.assert_close(predictor.predict(architecture), predictor.predict(graph))
        with pytest.raises(ValueError, match="'space'"):
            small_predictor(space="nasbench201").predict(architecture)

    @pytest.mark.parametrize("vocabulary", ["onnx", "nnlqp"])
    def test_onnx_by_the_conventions_of_the_encoder(self, vocabulary: str, tmp_path: Path) -> None:
        predictor = network_predictor(vocabulary)
        path = tmp_path / "model.ONNX"
        onnx.save(relu_model(), path)
        expected = predictor.predict(relu_model())
        assert expected.shape == (1,)
        for architecture in (path, str(path)):
            torch.testing.assert_close(predictor.predict(architecture), expected)
        both = predictor.predict([path, relu_model()])
        torch.testing.assert_close(both, torch.stack([expected, expected]))

    def test_torch_modules(self) -> None:
        pytest.importorskip("onnxscript")
        module, inputs = (
            torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()),
            torch.ones(1, 4),
        )
        predictor = network_predictor()
        out = predictor.predict((module, inputs))
        assert out.shape == (1,)
        torch.testing.assert_close(predictor.predict([(module, inputs)] * 2), out.expand(2, 1))
        with pytest.raises(ConversionError, match="example_inputs"):
            predictor.predict(module)

    @pytest.mark.parametrize("form", ["text", "path", "model", "module", "pair"])
    def test_networks_and_a_predictor_of_cells(self, form: str) -> None:
        network = {
            "text": "model.onnx",
            "path": Path("model.onnx"),
            "model": relu_model(),
            "module": torch.nn.Sequential(torch.nn.ReLU()),
            "pair": (torch.nn.ReLU(), torch.ones(1)),
        }[form]
        message = "to be a cell, since this predictor is of cells .*a whole network"
        for i, architectures in enumerate([network, [ARCH, network]]):
            with pytest.raises(ConversionError, match=f"architecture {i} {message}"):
                small_predictor().predict(architectures)

    def test_cells_and_a_predictor_of_networks(self) -> None:
        for cell in (ARCH, NASBench201Cell.from_str(ARCH), MATRIX):
            with pytest.raises(ConversionError, match=r"to be a whole network.*a cell\); its netw"):
                network_predictor().predict(cell)


class TestConventions:
    def graph(self, **attributes: Any) -> Data:
        return Data.from_dict({**from_nasbench201(ARCH).to_dict(), **attributes})

    def test_space(self) -> None:
        predictor, other = small_predictor(space="nasbench201"), small_predictor(space="darts")
        graph = from_nasbench201(ARCH)
        expected = small_predictor().predict(graph)  # of any space
        torch.testing.assert_close(predictor.predict([graph])[0], expected)
        message = r"'space' of architecture 0 to be that of the predictor, 'darts' \(got 'nasben"
        for architecture in (graph, ARCH):
            with pytest.raises(ValueError, match=message):
                other.predict(architecture)
        torch.testing.assert_close(other.predict(self.graph()), expected)

    def test_vocabulary_and_counting(self) -> None:
        with pytest.raises(ValueError, match=r"'vocabulary'.*got 'onnx'\); this predictor is of c"):
            small_predictor().predict(self.graph(vocabulary="onnx"))
        with pytest.raises(ValueError, match=r"'counting'.*convert the models with counting='sta"):
            network_predictor().check_conventions(self.graph(counting="nnlqp"))

    def test_dataset(self) -> None:
        dataset = FakeNAS(4)
        dataset._data.space = ["darts"] * 4
        with pytest.raises(ValueError, match=r"'space' of 'x' .*got 'darts'"):
            small_predictor(space="nasbench201").check_conventions(dataset, " of 'x'")


class TestCalibrate:
    def test_values_change_and_order_does_not(self) -> None:
        predictor, graphs = small_predictor(100.0), labelled()
        before = predictor.predict(graphs)[:, 0]
        predictor.train()
        predictor.calibrate(graphs)
        assert all(module.training for module in predictor.modules())
        after = predictor.predict(graphs)[:, 0]
        labels = graphs.labels("cifar10_test_acc")
        assert mape(after, labels) < mape(before, labels)
        assert torch.equal(before.argsort(stable=True), after.argsort(stable=True))
        torch.testing.assert_close(predictor.predict(graphs[3]), after[[3]])
        predictor.calibrate(graphs)  # from the predictions before the first one
        torch.testing.assert_close(predictor.predict(graphs)[:, 0], after)

    def test_several_targets_with_gaps(self) -> None:
        predictor, graphs = small_predictor(100.0, num_targets=2), labelled(2)
        listed = [data.clone() for data in graphs]
        for data in listed[::2]:
            data.y[0, 1] = float("nan")
        predictor.calibrate(listed)
        out = predictor.predict(graphs)
        for i, name in enumerate(graphs.target_names):
            assert abs(out[:, i].median() - graphs.labels(name).median()) < 5.0

    @pytest.mark.parametrize("label", [None, [[0.0]], [[float("inf")]], [[1.0, 2.0]]])
    def test_without_good_labels(self, label: Any) -> None:
        predictor = small_predictor(100.0)
        predictor.calibrate(labelled())
        before = predictor.calibration
        graphs = [data.clone() for data in labelled()]
        if label is None:
            del graphs[3].y
        else:
            graphs[3].y = torch.tensor(label)
        with pytest.raises(ValueError, match=r"of shape \[1, 1\] \(got .* in graph 3"):
            predictor.calibrate(graphs)
        for nothing in ([], [Data(y=torch.tensor([[float("nan")]]))]):
            with pytest.raises(ValueError, match="at least one label"):
                predictor.calibrate(nothing)
        assert predictor.calibration is before


class TestWithTargets:
    @pytest.mark.parametrize("num_targets", [1, 2, 3])
    def test_all_but_the_last_layer(self, num_targets: int) -> None:
        predictor = small_predictor(100.0, num_targets=2, space="nasbench201", metadata={"a": 1})
        names, units = [f"t{i}" for i in range(num_targets)], ["ms"] * num_targets
        other = predictor.with_targets(names, units, scale=2.5)
        assert (other.target_names, other.units) == (tuple(names), tuple(units))
        assert other.scale.tolist() == [2.5] * num_targets
        assert (other.space, other.metadata, other.training) == ("nasbench201", {}, False)
        old, new = predictor.model.state_dict(), other.model.state_dict()
        differing = {key for key in old if not torch.equal(old[key], new[key])}
        assert differing == {"head.lin_3.weight", "head.lin_3.bias"}
        assert other.predict(ARCH).shape == (num_targets,)
        with torch.no_grad():
            next(other.model.parameters()).add_(1.0)
        assert all(torch.equal(w, predictor.model.state_dict()[k]) for k, w in old.items())

    @pytest.mark.parametrize("names", ["latency", []])
    def test_wrong_names(self, names: Any) -> None:
        with pytest.raises(ValueError, match=r"'(target_names|out_channels)' to be"):
            small_predictor().with_targets(names)


class TestArguments:
    def test_widths_must_fit(self) -> None:
        encoder = CellTokenEncoder(7, 8, num_frequencies=4)
        model = create_model("gcn", 8, hidden_channels=8)
        with pytest.raises(ValueError, match=r"'model.in_channels'.*\(got 8 and 16\)"):
            ArchitecturePredictor(encoder, model)
        model = create_model("gcn", 16, hidden_channels=8, static_channels=3)
        with pytest.raises(ValueError, match=r"'model.static_channels'.*\(got 3 and 0\)"):
            ArchitecturePredictor(encoder, model)

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), [1.0, 2.0], []])
    def test_scale(self, scale: Any) -> None:
        with pytest.raises(ValueError, match="'scale' to be a positive number"):
            small_predictor(scale=scale)

    @pytest.mark.parametrize("argument", ["target_names", "units"])
    @pytest.mark.parametrize("value", [[], ["a", "b"], "a", [1]])
    def test_names(self, argument: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"'{argument}' to be one text for each of the 1"):
            small_predictor(**{argument: value})
