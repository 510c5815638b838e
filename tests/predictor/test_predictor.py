from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from narformer_pyg.convert import from_nasbench201
from narformer_pyg.datasets import FakeNAS, NASBench201
from narformer_pyg.errors import CheckpointError, ConversionError
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.testing import assert_batch_invariant
from narformer_pyg.training import mape

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
OTHER = "|none~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


def create(scale: Any = 1.0, seed: int = 0, **kwargs: Any) -> ArchitecturePredictor:
    torch.manual_seed(seed)
    encoder = CellTokenEncoder(7, 8, num_frequencies=4)
    model = create_model("narformer_v2", encoder.out_channels, hidden_channels=16, num_blocks=2)
    return ArchitecturePredictor(encoder, model, scale=scale, **kwargs).eval()


def test_lists_of_neighbors() -> None:
    graphs = list(FakeNAS(5))
    (plain,) = DeviceLoader(graphs, batch_size=5)
    (batch,) = DeviceLoader(graphs, batch_size=5, neighbors=True)
    predictor = create()
    out, expected = predictor(batch), predictor(plain)
    torch.testing.assert_close(out, expected)
    inputs = list(predictor.parameters())
    grads = torch.autograd.grad(out.sum(), inputs)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.sum(), inputs))
    # Those that cannot use them take the edges.
    for kwargs in ({"attention": "softmax"}, {"undirected": False}):
        torch.manual_seed(0)
        encoder = predictor.token_encoder
        model = create_model(
            "narformer_v2", encoder.out_channels, hidden_channels=16, num_blocks=2, **kwargs
        )
        other = ArchitecturePredictor(encoder, model).eval()
        assert torch.equal(other(batch), other(plain))
    assert torch.equal(predictor.freeze()(batch), predictor.freeze()(plain))


class TestPredict:
    def test_progress(self, capsys: pytest.CaptureFixture[str]) -> None:
        predictor = create()
        graphs = list(FakeNAS(5))
        expected = predictor.predict(graphs)
        assert capsys.readouterr().err == ""
        shown = predictor.predict(graphs, batch_size=2, progress=True)
        torch.testing.assert_close(shown, expected)
        assert "5/5" in capsys.readouterr().err

    def test_single(self) -> None:
        predictor = create()
        data = from_nasbench201(ARCH)
        expected = predictor(Batch.from_data_list([data]))[0].detach()
        assert expected.shape == (1,)
        for architecture in (ARCH, NASBench201Cell.from_str(ARCH), data):
            out = predictor.predict(architecture)
            assert out.shape == (1,)
            assert not out.requires_grad
            torch.testing.assert_close(out, expected)
        torch.testing.assert_close(predictor(data)[0].detach(), expected)

    def test_list(self) -> None:
        predictor = create()
        one, other = predictor.predict(ARCH), predictor.predict(OTHER)
        assert not torch.allclose(one, other)
        labelled = from_nasbench201(OTHER)
        labelled.y = torch.tensor([[0.5]])
        out = predictor.predict([ARCH, NASBench201Cell.from_str(OTHER), labelled, ARCH])
        torch.testing.assert_close(out, torch.stack([one, other, other, one]))
        assert "y" in labelled
        assert predictor.predict([ARCH]).shape == (1, 1)
        assert predictor.predict((ARCH, OTHER)).shape == (2, 1)
        assert predictor.predict([]).shape == (0, 1)

    def test_dataset_and_batch(self) -> None:
        predictor, dataset = create(), FakeNAS(9)
        out = predictor.predict(dataset)
        expected = torch.stack([predictor.predict(data) for data in dataset])
        assert out.shape == (9, 1)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(predictor.predict(list(dataset)), expected)
        torch.testing.assert_close(predictor.predict(dataset[3:7]), expected[3:7])
        torch.testing.assert_close(
            predictor.predict(Batch.from_data_list(dataset[:4])), expected[:4]
        )

    def test_batch_size(self) -> None:
        predictor, dataset = create(), FakeNAS(9)
        expected = predictor.predict(dataset)
        for batch_size in (1, 2, 8, 9, 100):
            torch.testing.assert_close(predictor.predict(dataset, batch_size), expected)
        assert_batch_invariant(predictor, list(dataset))

    def test_scale(self) -> None:
        predictor, percent = create(), create(scale=100.0, units=["percent"])
        torch.testing.assert_close(percent.predict(ARCH), 100 * predictor.predict(ARCH))
        data = from_nasbench201(ARCH)
        torch.testing.assert_close(percent.forward_scaled(data), predictor(data))
        assert percent.units == ("percent",)
        assert predictor.target_names == ("target_0",)

    def test_mode_and_device_stay(self) -> None:
        predictor = create()
        for mode in (True, False):
            predictor.train(mode)
            predictor.model.readout.train(not mode)
            out = predictor.predict(ARCH, device="cpu")
            assert predictor.training is mode
            assert predictor.model.training is mode
            assert predictor.model.readout.training is not mode
            assert predictor.device == torch.device("cpu")
            assert torch.equal(out, predictor.predict(ARCH))  # no dropout in either mode
        predictor.train()
        with pytest.raises(ConversionError):
            predictor.predict([ARCH, "|nonsense|"])
        with pytest.raises(ValueError, match=r"'data\.op'"):
            predictor.predict(Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2))
        assert predictor.training

    def test_any_iterable_of_anything(self) -> None:
        predictor = create()
        cell = NASBench201Cell.from_str(ARCH)
        named, bare = cell.to_data(), cell.to_data()
        named.name, named.y = "a cell", torch.ones(1, 1)
        del bare.num_nodes
        expected = predictor.predict(ARCH).expand(4, 1)
        mixed = [ARCH, cell, named, bare]
        torch.testing.assert_close(predictor.predict(mixed), expected)
        torch.testing.assert_close(predictor.predict(item for item in mixed), expected)
        torch.testing.assert_close(predictor.predict(np.array([ARCH] * 4)), expected)
        for nothing in ([], iter([]), NASBench201()[:0]):
            assert predictor.predict(nothing).shape == (0, 1)

    def test_edge_that_leaves_its_graph(self) -> None:
        cell = NASBench201Cell.from_str(ARCH)
        wrong = cell.to_data()
        wrong.edge_index[0, 0] = 12
        with pytest.raises(ValueError, match=r"'edge_index' of graph 1 .*0 to 7 \(got the edge"):
            create().predict([cell, wrong, cell])

    def test_wrong_arguments(self) -> None:
        predictor = create()
        with pytest.raises(ValueError, match=r"'batch_size'.*got 0"):
            predictor.predict(ARCH, batch_size=0)
        with pytest.raises(ValueError, match=r"'device' to be .*got 'foo'"):
            predictor.predict(ARCH, device="foo")
        with pytest.raises(ConversionError, match=r"\(architecture 1\)"):
            predictor.predict([ARCH, "|nonsense|"])

    def test_wrong_architectures(self) -> None:
        predictor = create()
        with pytest.raises(ConversionError, match=r"got int: 3"):
            predictor.predict(3)
        with pytest.raises(ConversionError, match=r"got NoneType"):
            predictor.predict([ARCH, None])


class TestAverageOfEquivalents:
    def test_mean(self) -> None:
        plain, averaging = create(), create(average_equivalents=True)
        indices = [5, 99, 5, 15000]
        out = averaging.predict([NASBench201Cell.from_index(i) for i in indices])
        for i, prediction in zip(indices, out, strict=True):
            members = [NASBench201Cell.from_index(j) for j in equivalent_indices(i).tolist()]
            torch.testing.assert_close(prediction, plain.predict(members).mean(dim=0))
        single = averaging.predict(NASBench201Cell.from_index(99))
        torch.testing.assert_close(single, out[1])
        assert not torch.allclose(single, plain.predict(NASBench201Cell.from_index(99)))

    def test_equivalent_cells_are_predicted_alike(self) -> None:
        predictor = create(average_equivalents=True)
        out = predictor.predict(NASBench201())
        assert out.shape == (15625, 1)
        assert len(set(out.flatten().tolist())) <= 5044
        torch.testing.assert_close(out[[7]], predictor.predict(NASBench201()[7:8]))

    def test_other_graphs(self) -> None:
        with pytest.raises(ValueError, match="to be cells of NAS-Bench-201"):
            create(average_equivalents=True).predict(list(FakeNAS(2)))

    def test_encoder(self) -> None:
        encoder = OperatorTokenEncoder()
        model = create_model(
            "narformer_v2", encoder.out_channels, static_channels=encoder.static_channels
        )
        with pytest.raises(ValueError, match="'average_equivalents' to be set for cells"):
            ArchitecturePredictor(encoder, model, average_equivalents=True)

    def test_save_and_load(self, tmp_path: Path) -> None:
        for value in (True, False):
            create(average_equivalents=value).save_pretrained(tmp_path)
            assert ArchitecturePredictor.from_pretrained(tmp_path).average_equivalents is value

    def test_files_from_before(self, tmp_path: Path) -> None:
        path = create().save_pretrained(tmp_path)
        content = torch.load(path, weights_only=True)
        del content["config"]["average_equivalents"]
        torch.save(content, path)
        assert ArchitecturePredictor.from_pretrained(tmp_path).average_equivalents is False


class TestCalibration:
    def graphs(self, num_targets: int = 1) -> NASBench201:
        names = ["cifar10_test_acc", "cifar100_test_acc"][:num_targets]
        return NASBench201(target=names)[:100]

    @pytest.mark.parametrize("average_equivalents", [False, True])
    def test_values_change_and_order_does_not(self, average_equivalents: bool) -> None:
        predictor = create(100.0, average_equivalents=average_equivalents)
        graphs = self.graphs()
        before = predictor.predict(graphs)[:, 0]
        predictor.calibrate(graphs)
        after = predictor.predict(graphs)[:, 0]
        labels = graphs.labels("cifar10_test_acc")
        assert mape(after, labels) < mape(before, labels)
        assert torch.equal(before.argsort(stable=True), after.argsort(stable=True))
        torch.testing.assert_close(predictor.predict(graphs[3]), after[[3]])
        again = predictor.calibration
        predictor.calibrate(graphs)  # from the predictions before the first one
        assert predictor.calibration == again

    def test_save_and_load(self, tmp_path: Path) -> None:
        predictor = create(100.0)
        predictor.calibrate(self.graphs())
        predictor.save_pretrained(tmp_path)
        loaded = ArchitecturePredictor.from_pretrained(tmp_path)
        assert loaded.calibration == predictor.calibration != [None]
        torch.testing.assert_close(loaded.predict(ARCH), predictor.predict(ARCH))

    @pytest.mark.parametrize("label", [None, [[0.0]], [[float("nan")]], [[1.0, 2.0]]])
    def test_without_good_labels(self, label: Any) -> None:
        predictor = create(100.0)
        predictor.calibrate(self.graphs())
        before = predictor.calibration
        graphs = [data.clone() for data in self.graphs()]
        if label is None:
            del graphs[3].y
        else:
            graphs[3].y = torch.tensor(label)
        with pytest.raises(ValueError, match=r"labels 'y' of shape \[1, 1\] \(got .* in graph 3"):
            predictor.calibrate(graphs)
        with pytest.raises(ValueError, match="at least one graph"):
            predictor.calibrate(iter([]))
        assert predictor.calibration is before

    def test_several_targets(self) -> None:
        encoder = CellTokenEncoder(7, 8, num_frequencies=4)
        model = create_model("gcn", encoder.out_channels, hidden_channels=16, out_channels=2)
        predictor = ArchitecturePredictor(encoder, model, scale=100.0).eval()
        predictor.calibrate(self.graphs(2))
        one, other = predictor.calibration
        assert one is not None
        assert one != other
        out, graphs = predictor.predict(self.graphs(2)), self.graphs(2)
        for i, name in enumerate(graphs.target_names):
            assert abs(out[:, i].median() - graphs.labels(name).median()) < 5.0


class TestArguments:
    def test_foreign_encoder_is_not_saved(self, tmp_path: Path) -> None:
        class Other(CellTokenEncoder):
            pass

        predictor = ArchitecturePredictor(Other(), create_model("gcn", 128, hidden_channels=8))
        with pytest.raises(ValueError, match=r"'token_encoder' to be among .*\(got Other\)"):
            predictor.save_pretrained(tmp_path)
        assert list(tmp_path.iterdir()) == []

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
            create(scale=scale)

    @pytest.mark.parametrize("argument", ["target_names", "units"])
    @pytest.mark.parametrize("value", [[], ["a", "b"], "a"])
    def test_names(self, argument: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"'{argument}' to have one entry for each of the 1"):
            create(**{argument: value})


class TouchWhenLoaded:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class TestSaveAndLoad:
    @pytest.mark.parametrize("as_file", [True, False])
    def test_round_trip(self, as_file: bool, tmp_path: Path) -> None:
        predictor = create(93.7, target_names=["cifar10_test_acc"], units=["percent"])
        folder = tmp_path / "new" / "folder"
        file = predictor.save_pretrained(str(folder))
        assert file == folder / "predictor.pt"
        assert list(folder.iterdir()) == [file]
        loaded = ArchitecturePredictor.from_pretrained(file if as_file else str(folder))
        assert loaded.target_names == predictor.target_names
        assert loaded.units == predictor.units
        assert not loaded.training
        state = loaded.state_dict()
        assert state.keys() == predictor.state_dict().keys()
        assert all(torch.equal(w, state[k]) for k, w in predictor.state_dict().items())
        dataset = FakeNAS(5)
        assert torch.equal(loaded.predict(dataset), predictor.predict(dataset))

    def test_other_arguments_survive(self, tmp_path: Path) -> None:
        encoder = CellTokenEncoder(9, 10, num_frequencies=2)
        model = create_model(
            "narformer_v2", 8, hidden_channels=8, num_groups=2, normalize=False, undirected=False
        )
        predictor = ArchitecturePredictor(encoder, model).eval()
        loaded = ArchitecturePredictor.from_pretrained(predictor.save_pretrained(tmp_path))
        assert loaded.token_encoder.config == encoder.config
        assert loaded.model.config == model.config
        assert torch.equal(loaded.predict(ARCH), predictor.predict(ARCH))

    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        marker = tmp_path / "executed"
        for name, content in (
            ("bare", TouchWhenLoaded(marker)),
            (
                "inside",
                {
                    "format": "narformer_pyg.ArchitecturePredictor",
                    "config": TouchWhenLoaded(marker),
                },
            ),
        ):
            torch.save(content, tmp_path / name)
            (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
            for file in (tmp_path / name, tmp_path / f"{name}.pkl"):
                with pytest.raises(CheckpointError, match="Cannot read 'path'"):
                    ArchitecturePredictor.from_pretrained(file)
        assert not marker.exists()
        torch.load(tmp_path / "bare", weights_only=False)
        assert marker.exists()  # it would have been

    def test_damaged_files(self, tmp_path: Path) -> None:
        file = create().save_pretrained(tmp_path)
        content = file.read_bytes()
        damaged = [content[: len(content) * k // 9] for k in range(9)] + [content[:-1]]
        damaged += [b"some text\n", b"\x80\x02", b"PK\x03\x04", os.urandom(300)]
        for content in damaged:
            file.write_bytes(content)
            with pytest.raises(CheckpointError, match="Cannot read 'path'"):
                ArchitecturePredictor.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [torch.nn.Linear(2, 2).state_dict(), {"format": "other"}, [1, 2], torch.ones(3), {}],
    )
    def test_foreign_files(self, content: Any, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "foreign.pt")
        with pytest.raises(CheckpointError, match=r"written by 'Arch.*foreign.pt"):
            ArchitecturePredictor.from_pretrained(tmp_path / "foreign.pt")

    def test_missing_file(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.pt"):
            with pytest.raises(FileNotFoundError, match=r"'predictor\.pt'"):
                ArchitecturePredictor.from_pretrained(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"format_version": 2},
                r"format version 1 or lower \(got 2 .*written by .*pip install",
            ),
            ({"format_version": None}, r"no valid format version \(None\)"),
            ({"format_version": "1"}, r"no valid format version \('1'\)"),
            ({"config": {}}, r"Cannot rebuild the predictor.*KeyError"),
            ({"config": None}, r"Cannot rebuild the predictor.*TypeError"),
            ({"state_dict": {}}, r"Cannot rebuild the predictor.*Missing key"),
            ({"state_dict": None}, r"Cannot rebuild the predictor"),
        ],
    )
    def test_changed_files(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        file = create().save_pretrained(tmp_path)
        content = torch.load(file, weights_only=True)
        torch.save({**content, **change}, file)
        with pytest.raises(CheckpointError, match=f"(?s){message}"):
            ArchitecturePredictor.from_pretrained(file)

    @pytest.mark.parametrize(
        ("part", "key", "value"),
        [
            ("model", "name", "unknown"),
            ("model", "hidden_channels", 24),
            ("model", "surplus", 1),
            ("token_encoder", "name", "unknown"),
            ("token_encoder", "num_frequencies", 5),
        ],
    )
    def test_changed_config(self, part: str, key: str, value: Any, tmp_path: Path) -> None:
        file = create().save_pretrained(tmp_path)
        content = torch.load(file, weights_only=True)
        content["config"][part][key] = value
        torch.save(content, file)
        with pytest.raises(CheckpointError, match="Cannot rebuild the predictor"):
            ArchitecturePredictor.from_pretrained(file)

    def test_interrupted_save(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old, new = create(seed=0), create(seed=1)
        file = old.save_pretrained(tmp_path)
        before, save = file.read_bytes(), torch.save

        def fail_halfway(content: Any, path: Any) -> None:
            save(content, path)
            complete = Path(path).read_bytes()
            Path(path).write_bytes(complete[: len(complete) // 2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", fail_halfway)
        with pytest.raises(OSError, match="No space left"):
            new.save_pretrained(tmp_path)
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == [file]
        assert file.read_bytes() == before
        assert not torch.equal(new.predict(ARCH), old.predict(ARCH))
        new.save_pretrained(tmp_path)
        loaded = ArchitecturePredictor.from_pretrained(tmp_path)
        assert torch.equal(loaded.predict(ARCH), new.predict(ARCH))

    def test_folder_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("text")
        with pytest.raises(OSError, match="taken"):
            create().save_pretrained(tmp_path / "taken")
        assert (tmp_path / "taken").read_text() == "text"
