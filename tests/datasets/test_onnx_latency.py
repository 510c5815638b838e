from __future__ import annotations

import csv
import logging
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from graphs import same_graph
from latency_models import FAMILIES, small_model, write_csv, write_models, write_nnlqp
from torch_geometric.data import Data

from narformer_pyg import convert
from narformer_pyg.convert import from_onnx
from narformer_pyg.datasets import ONNXLatency, _onnx_conversion, onnx_latency
from narformer_pyg.datasets._model_folder import open_models
from narformer_pyg.datasets.split import draw_in_groups
from narformer_pyg.profiling.families import FAMILIES as GENERATORS

Lines = list[dict[str, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lines]:
    folder = tmp_path_factory.mktemp("models")
    return folder, write_models(folder)


@pytest.fixture
def labels(shared: tuple[Path, Lines], tmp_path: Path) -> Path:
    return write_csv(tmp_path / "labels.csv", shared[1])


def load(models: Path, labels: Path | None, root: Path | None = None, **kwargs: Any) -> ONNXLatency:
    kwargs = {"num_workers": 0, "progress": False, **kwargs}
    return ONNXLatency(root, models, labels, **kwargs)


def test_graphs_are_those_of_the_converter(shared: tuple[Path, Lines], labels: Path) -> None:
    folder, lines = shared
    dataset = load(folder, labels)
    assert len(dataset) == len(lines)
    assert dataset.failures == {}
    assert dataset.files == [line["file"] for line in lines]
    assert dataset.families == [line["family"] for line in lines]
    expected = torch.tensor([float(line["latency_ms"]) for line in lines])
    assert torch.equal(dataset.labels(), expected)
    for i in (0, 5, 11):
        graph = from_onnx(folder / lines[i]["file"])
        graph.y = expected[i].view(1, 1)
        assert same_graph(dataset[i], graph)
    assert dataset.targets["latency_ms"].unit == "ms"
    subset = dataset[[7, 2]]
    assert subset.files == [lines[7]["file"], lines[2]["file"]]
    assert torch.equal(subset.copy().labels(), expected[[7, 2]])
    assert subset.copy().files == dataset.copy([7, 2]).files == subset.files
    with pytest.raises(ValueError, match=r"'name' to be 'latency_ms' \(got 'accuracy'\)"):
        dataset.labels("accuracy")


def test_processes_convert_as_one_does(shared: tuple[Path, Lines], labels: Path) -> None:
    here, there = load(shared[0], labels), load(shared[0], labels, num_workers=1)
    assert all(same_graph(a, b) for a, b in zip(here, there, strict=True))


class TestArchive:
    def test_holds_what_the_folder_holds(
        self, shared: tuple[Path, Lines], labels: Path, tmp_path: Path
    ) -> None:
        archive = tmp_path / "models.tar.xz"
        with tarfile.open(archive, "w:xz") as file:
            file.add(shared[0], ".")
        expected, dataset = load(shared[0], labels), load(archive, labels, tmp_path / "root")
        assert all(same_graph(a, b) for a, b in zip(expected, dataset, strict=True))
        assert dataset.files == expected.files
        # The cache does not unpack it, another archive has a place of its own.
        with tarfile.open(archive, "w:xz") as file:
            file.add(shared[0] / "plain_0.onnx", "plain_0.onnx")
        with pytest.raises(
            FileNotFoundError, match=r"without 11 of 12, 'residual_1\.onnx' of line"
        ):
            load(archive, labels, tmp_path / "root")

    @pytest.mark.filterwarnings("ignore:.*filter.*:DeprecationWarning")
    def test_old_python(
        self, shared: tuple[Path, Lines], labels: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        archive = tmp_path / "models.tar"
        with tarfile.open(archive, "w") as file:
            file.add(shared[0], "networks")
        with open_models(archive) as models:
            names = {path.name for path in (models / "networks").iterdir()}
        assert names == {path.name for path in shared[0].iterdir()}
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        for name, member in (("outside", tarfile.TarInfo("../escaped.csv")), ("link", link)):
            with tarfile.open(tmp_path / f"{name}.tar", "w") as file:
                file.addfile(member)
            with (
                pytest.raises(ValueError, match=f"{name}.tar.*cannot be unpacked"),
                open_models(tmp_path / f"{name}.tar"),
            ):
                pass

    def test_errors(self, labels: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"'models' to be a folder or .*none.tar"):
            load(tmp_path / "none.tar", labels)
        with pytest.raises(ValueError, match=r"'models' to be a folder or .*cannot be unpacked"):
            load(labels, labels)
        outside = tmp_path / "outside.tar"
        with tarfile.open(outside, "w") as file:
            file.add(labels, "../escaped.csv")
        with pytest.raises(ValueError, match=r"outside.tar.*cannot be unpacked"):
            load(outside, labels)
        with pytest.raises(ValueError, match="'models' to be the folder of the models in 'labels'"):
            ONNXLatency(labels=labels)


def test_measured_set_of_the_package() -> None:
    folder = Path(onnx_latency.__file__).parent / "data" / "onnx_latency"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5_000_000
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) >= 1500
    families = Counter(line["family"] for line in lines)
    assert set(families) == set(GENERATORS)
    assert min(families.values()) >= 100
    for key in ("provider", "threads", "onnxruntime", "processor", "passes", "unit"):
        assert all(line[key] for line in lines)
    # One model of each family becomes a graph.
    with open_models(folder / "networks.tar.xz") as models:
        assert len(list(models.iterdir())) == len(lines)
        for line in {line["family"]: line for line in lines}.values():
            graph = from_onnx(models / line["file"])
            assert graph.num_nodes > 10
            assert float(graph.static[0, 1]) > 0  # FLOPs


class TestCache:
    def test_processes_once(
        self, shared: tuple[Path, Lines], labels: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        first = load(shared[0], labels, tmp_path / "root")
        assert not [p for p in (tmp_path / "root").rglob(".*")]  # no temporary files stay
        calls: list[int] = []
        convert = onnx_latency.convert_models

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return convert(*args, **kwargs)

        monkeypatch.setattr(onnx_latency, "convert_models", counted)
        again = load(shared[0], labels, tmp_path / "root")
        assert calls == []
        assert again.files == first.files
        assert all(same_graph(a, b) for a, b in zip(first, again, strict=True))
        load(shared[0], labels, tmp_path / "root", force_reload=True)
        assert len(calls) == 1
        # Whatever the graphs depend on has a place of its own.
        nnlqp = load(shared[0], labels, tmp_path / "root", vocabulary="nnlqp")
        assert nnlqp[0].vocabulary == "nnlqp"
        assert load(shared[0], labels, tmp_path / "root", counting="nnlqp")[0].counting == "nnlqp"
        changed = [{**line, "latency_ms": "7.0"} for line in shared[1]]
        write_csv(labels, changed)
        assert load(shared[0], labels, tmp_path / "root").labels().unique().tolist() == [7.0]
        assert len(calls) == 4
        assert len(list((tmp_path / "root").rglob("data.pt"))) == 4

    def test_nothing_is_written_without_root(
        self, shared: tuple[Path, Lines], labels: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        load(shared[0], labels)
        assert sorted(tmp_path.rglob("*")) == before

    def test_damaged(self, shared: tuple[Path, Lines], labels: Path, tmp_path: Path) -> None:
        load(shared[0], labels, tmp_path / "root")
        (path,) = (tmp_path / "root").rglob("data.pt")
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"'root' \(got .*'force_reload=True'"):
            load(shared[0], labels, tmp_path / "root")
        assert len(load(shared[0], labels, tmp_path / "root", force_reload=True)) == 12

    def test_filter(self, shared: tuple[Path, Lines], labels: Path) -> None:
        dataset = load(shared[0], labels, pre_filter=lambda data: float(data.y) > 0.9)
        expected = [x["file"] for x in shared[1] if float(x["latency_ms"]) > 0.9]
        assert dataset.files == expected
        with pytest.raises(ValueError, match="'pre_filter' to keep at least one"):
            load(shared[0], labels, pre_filter=lambda data: False)


def die_or_convert(path: str, **kwargs: Any) -> Data:
    """Ends the process as a crash does, where the name of the model says so."""
    if "residual" in path:
        os._exit(9)
    return from_onnx(path, **kwargs)


class TestFailures:
    def test_bad_files_are_left_out(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        lines = write_models(tmp_path / "models", 6)
        (tmp_path / "models" / lines[1]["file"]).write_bytes(b"no model")
        dynamic = small_model("plain", 4, 8, batch="N")
        onnx.save(dynamic, tmp_path / "models" / lines[4]["file"])
        labels = write_csv(tmp_path / "labels.csv", lines)
        with caplog.at_level(logging.WARNING):
            dataset = load(tmp_path / "models", labels, tmp_path / "root")
        assert list(dataset.failures) == [lines[1]["file"], lines[4]["file"]]
        assert "to be an ONNX model" in dataset.failures[lines[1]["file"]]
        assert "'x'" in dataset.failures[lines[4]["file"]]
        assert lines[1]["file"] in caplog.text
        assert dataset.files == [lines[i]["file"] for i in (0, 2, 3, 5)]
        kept = [float(lines[i]["latency_ms"]) for i in (0, 2, 3, 5)]
        assert dataset.labels().tolist() == pytest.approx(kept)
        assert torch.cat([data.y for data in dataset]).flatten().tolist() == pytest.approx(kept)
        assert load(tmp_path / "models", labels, tmp_path / "root").failures == dataset.failures
        # The shape that was measured says what the file leaves open.
        for line in lines:
            line["input_shapes"] = "x:5x3x8x8" if line is lines[4] else ""
        dataset = load(tmp_path / "models", write_csv(labels, lines))
        assert list(dataset.failures) == [lines[1]["file"]]
        assert float(dataset[3].static[0, 0]) == 5

    def test_none_converts(self, tmp_path: Path) -> None:
        lines = write_models(tmp_path / "models", 2)
        for line in lines:
            (tmp_path / "models" / line["file"]).write_bytes(b"")
        with pytest.raises(ValueError, match=r"'models' to hold a model .*got 2 that cannot"):
            load(tmp_path / "models", write_csv(tmp_path / "labels.csv", lines))

    def test_a_process_dies(
        self, shared: tuple[Path, Lines], labels: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A forked process has the patched function; a spawned one would import the module anew.
        fork = _onnx_conversion.multiprocessing.get_context("fork")
        monkeypatch.setattr(_onnx_conversion.multiprocessing, "get_context", lambda _: fork)
        monkeypatch.setattr(convert, "from_onnx", die_or_convert)
        dataset = load(shared[0], labels, num_workers=2)
        died = [line["file"] for line in shared[1] if line["family"] == "residual"]
        assert list(dataset.failures) == died
        assert all("died" in reason for reason in dataset.failures.values())
        assert len(dataset) == 12 - len(died) == 8


class TestNNLQP:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_nnlqp(tmp_path, write_models(tmp_path / "onnx"))
        return tmp_path

    def test_reads_its_layout(self, folder: Path, shared: tuple[Path, Lines]) -> None:
        dataset = load(folder, None, platform=23, vocabulary="nnlqp", counting="nnlqp")
        expected = [2 * float(line["latency_ms"]) for line in shared[1]]
        assert dataset.labels().tolist() == pytest.approx(expected, abs=1e-5)
        assert dataset.files[0] == "onnx/plain_0.onnx"
        assert Counter(dataset.families) == dict.fromkeys(FAMILIES, 4)
        split = dataset.stage_split()
        assert split.test.tolist() == [3, 7, 11]
        assert sorted(split.train.tolist()) == [i for i in range(12) if i % 4 != 3]
        assert dataset.stage_split(val_share=0.4).test.tolist() == [3, 7, 11]

    def test_batch_size_of_the_table(self, folder: Path) -> None:
        text = (folder / "gt.txt").read_text("utf-8").splitlines()
        items = text[0].split()
        (folder / "gt.txt").write_text(" ".join([*items[:2], "8", *items[3:6]]) + "\n", "utf-8")
        dataset = load(folder, None)
        assert float(dataset[0].static[0, 0]) == 8
        with pytest.raises(ValueError, match="'stage'"):
            dataset.stage_split()

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("1 onnx/plain_0.onnx 1 2.0 plain", r"line 1 of gt.txt to be 'id file .*got 5 values"),
            ("1 onnx/plain_0.onnx 1 slow plain 2 train", r"'latency_ms' in line 1 .*'slow'"),
            ("1 onnx/plain_0.onnx 0 1.0 plain 2 train", r"'batch' in line 1 .*positive \(got 0\)"),
            ("", r"'labels' to hold at least one latency"),
        ],
    )
    def test_wrong_lines(self, folder: Path, line: str, expected: str) -> None:
        (folder / "gt.txt").write_text(line, "utf-8")
        with pytest.raises(ValueError, match=expected):
            load(folder, None)

    def test_platforms(self, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"'platform' to say which of '2', '23'"):
            load(folder, None)
        with pytest.raises(ValueError, match=r"'platform' to be among '2', '23'.*\(got '7'\)"):
            load(folder, None, platform="7")


class TestSplits:
    def test_in_domain(self, shared: tuple[Path, Lines], labels: Path) -> None:
        dataset = load(shared[0], labels)
        split = dataset.in_domain_split(test_share=0.25, val_share=0.25, seed=3)
        parts = [split.train.tolist(), split.val.tolist(), split.test.tolist()]
        assert sorted(i for part in parts for i in part) == list(range(12))
        for part, each in zip(parts, (2, 1, 1), strict=True):
            assert Counter(dataset[part].families) == dict.fromkeys(FAMILIES, each)
        assert split.test.tolist() == dataset.in_domain_split(0.25, seed=3).test.tolist()
        tests = {tuple(dataset.in_domain_split(0.25, seed=s).test.tolist()) for s in range(8)}
        assert len(tests) > 4
        # Families of the same size are not drawn alike.
        rounds = [tuple(i // 3 for i in sorted(test, key=lambda i: i % 3)) for test in tests]
        assert any(len(set(r)) > 1 for r in rounds)

    def test_leave_family_out(self, shared: tuple[Path, Lines], labels: Path) -> None:
        dataset = load(shared[0], labels)
        split = dataset.leave_family_out("pooled", val_share=0.25)
        assert set(dataset[split.test].families) == {"pooled"}
        assert split.test.numel() == 4
        assert Counter(dataset[split.train].families) == {"plain": 3, "residual": 3}
        assert Counter(dataset[split.val].families) == {"plain": 1, "residual": 1}
        with pytest.raises(ValueError, match=r"'family' .*\(got 'vgg', and the families 'plain'"):
            dataset.leave_family_out("vgg")
        with pytest.raises(ValueError, match="'family' to be one of several"):
            dataset[[0, 3]].leave_family_out("plain")

    def test_small_groups(self) -> None:
        groups = {"one": torch.tensor([0]), "two": torch.tensor([1, 2])}
        split = draw_in_groups(groups, 0.1, 0.3, 0)
        assert 0 in split.train
        assert (split.train.numel(), split.val.numel(), split.test.numel()) == (2, 0, 1)

    @pytest.mark.parametrize(
        ("shares", "expected"),
        [((1.0, 0.0), "'test_share'"), ((0.1, -0.1), "'val_share'"), ((0.5, 0.5), "leave graphs")],
    )
    def test_wrong_shares(self, shares: tuple[float, float], expected: str) -> None:
        with pytest.raises(ValueError, match=expected):
            draw_in_groups({"a": torch.arange(9)}, *shares, 0)


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"latency_ms": "0"}, r"'latency_ms' in line 2 of labels.csv to be positive .*got 0\)"),
            ({"latency_ms": "nan"}, r"line 2 of labels.csv .*\(got nan\)"),
            ({"latency_ms": "1e-60"}, r"line 2 of labels.csv .*\(got 1e-60\)"),
            ({"latency_ms": "fast"}, r"line 2 of labels.csv to be a number \(got 'fast'\)"),
            ({"file": ""}, r"'file' in line 2 of labels.csv"),
            ({"file": "../plain_0.onnx"}, r"'file' in line 2 .*'models' \(got '\.\./plain_0"),
            ({"file": "/tmp/plain_0.onnx"}, r"'file' in line 2 .*'models' \(got '/tmp"),
            ({"input_shapes": "x=3"}, r"'input_shapes' in line 2 .*\(got 'x=3'\)"),
        ],
    )
    def test_wrong_values(
        self, shared: tuple[Path, Lines], tmp_path: Path, change: dict[str, str], expected: str
    ) -> None:
        lines = [{**shared[1][0], **change}]
        with pytest.raises(ValueError, match=expected):
            load(shared[0], write_csv(tmp_path / "labels.csv", lines))

    def test_missing_columns(self, shared: tuple[Path, Lines], tmp_path: Path) -> None:
        labels = write_csv(tmp_path / "labels.csv", [{"file": "a.onnx", "time": "1"}])
        with pytest.raises(ValueError, match=r"columns file, latency_ms .*without latency_ms, but"):
            load(shared[0], labels)

    def test_unknown_files(self, shared: tuple[Path, Lines], tmp_path: Path) -> None:
        lines = [shared[1][0], {**shared[1][1], "file": "none.onnx"}]
        labels = write_csv(tmp_path / "labels.csv", lines)
        with pytest.raises(FileNotFoundError, match=r"without 1 of 2, 'none.onnx' of line 3"):
            load(shared[0], labels)

    def test_twice(self, shared: tuple[Path, Lines], tmp_path: Path) -> None:
        first = shared[1][0]
        labels = write_csv(tmp_path / "labels.csv", [first, {**first, "file": "./plain_0.onnx"}])
        with pytest.raises(ValueError, match=r"'plain_0.onnx' in line 2 .* in line 3"):
            load(shared[0], labels)

    def test_no_labels(self, shared: tuple[Path, Lines], tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"gt.txt.*narformer profile"):
            load(shared[0], None)

    @pytest.mark.parametrize("name", ["vocabulary", "counting"])
    def test_unknown_convention(self, shared: tuple[Path, Lines], labels: Path, name: str) -> None:
        with pytest.raises(ValueError, match=rf"'{name}' to be among .*\(got 'other'\)"):
            load(shared[0], labels, **{name: "other"})


def test_copies_of_a_folder_share_a_cache(
    shared: tuple[Path, Lines], labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(shared[0], labels, tmp_path / "root")
    shutil.copytree(shared[0], tmp_path / "moved")
    monkeypatch.delattr(onnx_latency, "convert_models")
    assert len(load(tmp_path / "moved", labels, tmp_path / "root")) == 12


class TestWhatChangedMeanwhile:
    def test_model_of_the_same_size(self, labels: Path, tmp_path: Path) -> None:
        folder = tmp_path / "models"
        write_models(folder)
        before = load(folder, labels, tmp_path / "root")
        proto = onnx.load(folder / "plain_0.onnx")
        size = (folder / "plain_0.onnx").stat().st_size
        pads = next(a for a in proto.graph.node[0].attribute if a.name == "pads")
        pads.ints[:] = [0] * 4
        onnx.save(proto, folder / "plain_0.onnx")
        assert (folder / "plain_0.onnx").stat().st_size == size
        again = load(folder, labels, tmp_path / "root")
        assert same_graph(again[0], load(folder, labels)[0])
        assert not same_graph(again[0], before[0])

    def test_model_that_failed(
        self, labels: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "models"
        num = len(write_models(folder))
        # A model whose weights are in a file of its own, which is missing.
        proto = onnx.load(folder / "plain_0.onnx")
        weight = proto.graph.initializer[0]
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="w.bin")
        (folder / "plain_0.onnx").write_bytes(proto.SerializeToString())
        for _ in range(2):  # the second time, from the cache
            caplog.clear()
            dataset = load(folder, labels, tmp_path / "root")
            assert len(dataset) == num - 1
            assert list(dataset.failures) == ["plain_0.onnx"]
            assert "Left out plain_0.onnx" in caplog.text
        (folder / "w.bin").write_bytes(bytes(4 * int(np.prod(weight.dims))))
        dataset = load(folder, labels, tmp_path / "root")
        assert dataset.failures == {}
        assert len(dataset) == num


def test_file_with_several_batch_sizes_is_in_one_set(tmp_path: Path) -> None:
    lines = []
    for i in range(6):
        onnx.save(small_model("plain", 4 + i, 8, "n"), tmp_path / f"plain_{i}.onnx")
        lines += [
            {"file": f"plain_{i}.onnx", "latency_ms": f"{batch}.5",
             "input_shapes": f"x:{batch}x3x8x8"}
            for batch in (1, 2, 4)
        ]  # fmt: skip
    dataset = load(tmp_path, write_csv(tmp_path / "labels.csv", lines))
    assert len(dataset) == 18
    split = dataset.in_domain_split(0.3, 0.2, seed=1)
    parts = [{dataset.files[i] for i in part} for part in (split.train, split.val, split.test)]
    assert all(parts)
    assert sum(map(len, parts)) == 6
    assert sum(p.numel() for p in (split.train, split.val, split.test)) == 18


def test_labels_that_are_no_text(shared: tuple[Path, Lines], tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("file,latency_ms".encode("utf-16"))
    with pytest.raises(ValueError, match="'labels' to be a text file in UTF-8"):
        load(shared[0], tmp_path / "labels.csv")
