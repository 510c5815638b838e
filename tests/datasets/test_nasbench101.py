from __future__ import annotations

import base64
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import same_graph
from nasbench101_writer import evaluation, metrics, record, write_tfrecord
from torch_geometric.data import Data

from narformer_pyg.datasets import NASBench101
from narformer_pyg.datasets.nasbench101 import collated_graphs
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.spaces import NASBench101Cell
from narformer_pyg.spaces.nasbench101 import NUM_CELLS, all_edge_bits

EPOCHS = (4, 12, 36, 108)
PARTS = ("train", "valid", "test")
ONLY108, FULL = "nasbench_only108.tfrecord", "nasbench_full.tfrecord"


def labels_of(cell: NASBench101Cell, epochs: int, run: int) -> tuple[float, ...]:
    """Fractions of train, validation and test accuracy, and seconds, that tell runs apart."""
    base = int(cell.module_hash[:4], 16) / 65536
    accuracies = [0.2 + 0.5 * base + 0.001 * epochs + 0.01 * run + 0.02 * i for i in range(3)]
    return (*accuracies, 100 * base + epochs + run)


def mean_labels(cell: NASBench101Cell, epochs: int, runs: int = 3) -> dict[str, float]:
    mean = np.mean([labels_of(cell, epochs, run) for run in range(runs)], axis=0)
    out = {f"{part}_acc_{epochs}": 100 * mean[i] for i, part in enumerate(PARTS)}
    return {**out, f"train_time_{epochs}": mean[3]}


def records(cells: list[NASBench101Cell], budgets: tuple[int, ...], seed: int = 0) -> list[bytes]:
    """All runs of all cells in a random order, as in the official files."""
    out = [
        record(cell, epochs, *labels_of(cell, epochs, run))
        for cell in cells
        for epochs in budgets
        for run in range(3)
    ]
    return [out[i] for i in np.random.default_rng(seed).permutation(len(out))]


@pytest.fixture(scope="module")
def cells() -> list[NASBench101Cell]:
    """Different cells in the order of a dataset, all that have no or one operation included."""
    rng = np.random.default_rng(0)
    found = {cell.module_hash: cell for cell in (NASBench101Cell.random(rng) for _ in range(50))}
    for text in ("output~0", "maxpool3x3~0+output~1", "conv1x1-bn-relu~0+output~0,1"):
        cell = NASBench101Cell.from_str(text)
        found[cell.module_hash] = cell
    return [found[key] for key in sorted(found)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cells: list[NASBench101Cell]) -> Path:
    root = tmp_path_factory.mktemp("nasbench101")
    write_tfrecord(root / "raw" / ONLY108, records(cells, (108,)))
    write_tfrecord(root / "raw" / FULL, records(cells, EPOCHS, seed=1))
    return root


@pytest.fixture(scope="module")
def dataset(cells: list[NASBench101Cell]) -> NASBench101:
    columns = {
        name: [mean_labels(cell, epochs)[name] for cell in cells]
        for epochs in EPOCHS
        for name in mean_labels(cells[0], epochs)
    }
    return NASBench101.from_arrays(*codes(cells), columns)


def codes(cells: list[NASBench101Cell]) -> list[np.ndarray]:
    return [np.array(column) for column in zip(*(cell.code for cell in cells), strict=True)]


def has_seven_nodes(data: Data) -> bool:
    return data.num_nodes == 7


class TestOfficialFile:
    def test_targets(self, root: Path) -> None:
        assert list(NASBench101.targets) == [
            name
            for epochs in EPOCHS
            for name in (*(f"{part}_acc_{epochs}" for part in PARTS), f"train_time_{epochs}")
        ]
        for name, target in NASBench101.targets.items():
            assert target.name == name
            assert (target.kind, target.unit) in {("accuracy", "percent"), ("time", "s")}
            assert target.higher_is_better == ("_acc_" in name)

    def test_labels_are_means_of_the_last_evaluations(
        self, root: Path, cells: list[NASBench101Cell]
    ) -> None:
        dataset = NASBench101(root, target="all")
        assert dataset.target_names == tuple(NASBench101.targets)
        assert len(dataset) == len(cells)
        assert dataset.num_node_types == 5
        for i, cell in enumerate(cells):
            assert dataset.cell(i) == cell
            expected = {k: v for epochs in EPOCHS for k, v in mean_labels(cell, epochs).items()}
            assert dataset[i].y.shape == (1, 16)
            assert dict(zip(dataset.target_names, dataset[i].y[0].tolist(), strict=True)) == (
                pytest.approx(expected, rel=1e-6)
            )

    def test_both_files_have_the_same_order(self, root: Path, cells: list[NASBench101Cell]) -> None:
        small = NASBench101(root, file=root / "raw" / ONLY108)
        large = NASBench101(root, file=root / "raw" / FULL)
        assert small.target_names == large.target_names == ("valid_acc_108",)
        assert torch.equal(small.y, large.y)
        assert torch.equal(small.get_split(20, seed=1).train, large.get_split(20, seed=1).train)
        assert set(large.targets) > set(small.targets)
        assert len(small.targets) == 4

    def test_which_file(self, root: Path) -> None:
        assert len(NASBench101(root).targets) == 4
        assert len(NASBench101(root, target=["test_acc_108", "test_acc_4"]).targets) == 16
        assert NASBench101(root, target="test_acc_36")[3].y.shape == (1, 1)

    def test_file_is_read_once(
        self, tmp_path: Path, cells: list[NASBench101Cell], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "raw" / ONLY108
        write_tfrecord(file, records(cells[:10], (108,)))
        first = NASBench101(str(tmp_path))
        assert os.listdir(tmp_path / "processed") == ["nasbench_only108.pt"]
        file.unlink()
        again = NASBench101(tmp_path, target=["test_acc_108", "valid_acc_108"])
        assert torch.equal(again.y[:, 1:], first.y)
        assert [again.cell(i) for i in range(10)] == [first.cell(i) for i in range(10)]
        with pytest.raises(FileNotFoundError, match=r"(?s)named by 'file'.*googleapis\.com"):
            NASBench101(tmp_path, force_reload=True)

    def test_force_reload(self, tmp_path: Path, cells: list[NASBench101Cell]) -> None:
        file = tmp_path / "elsewhere.tfrecord"
        write_tfrecord(file, [record(cell, 108, *labels_of(cell, 108, 0)) for cell in cells[:4]])
        size, first = file.stat().st_size, NASBench101(tmp_path, file=file)
        write_tfrecord(file, [record(cell, 108, *labels_of(cell, 108, 1)) for cell in cells[:4]])
        assert file.stat().st_size == size  # so that it passes for the same file
        assert torch.equal(NASBench101(tmp_path, file=file).y, first.y)
        assert not torch.equal(NASBench101(tmp_path, file=file, force_reload=True).y, first.y)

    def test_another_file_of_the_same_name(
        self, tmp_path: Path, cells: list[NASBench101Cell]
    ) -> None:
        file = tmp_path / "elsewhere.tfrecord"
        write_tfrecord(file, records(cells[:4], (108,)))
        assert len(NASBench101(tmp_path, file=file)) == 4
        write_tfrecord(file, records(cells[:6], (108,)))
        assert len(NASBench101(tmp_path, file=file)) == 6
        file.write_bytes(b"damaged")
        with pytest.raises(ValueError, match="elsewhere"):
            NASBench101(tmp_path, file=file)

    def test_missing_measurements(self, tmp_path: Path, cells: list[NASBench101Cell]) -> None:
        first, second = cells[:2]
        write_tfrecord(
            tmp_path / "raw" / FULL,
            [
                record(first, 108, *labels_of(first, 108, 0)),
                record(second, 12, *labels_of(second, 12, 0)),
                record(first, 108, *labels_of(first, 108, 1)),
            ],
        )
        dataset = NASBench101(tmp_path, target=["valid_acc_108", "valid_acc_12"])
        assert list(dataset.targets)[0::4] == ["train_acc_12", "train_acc_108"]
        nan = float("nan")
        expected = [
            [mean_labels(first, 108, runs=2)["valid_acc_108"], nan],
            [nan, mean_labels(second, 12, runs=1)["valid_acc_12"]],
        ]
        want = torch.tensor(expected, dtype=torch.float32)
        torch.testing.assert_close(dataset.y, want, equal_nan=True)
        assert NASBench101(tmp_path, target="valid_acc_12").get_split(1).all.tolist() == [1]

    def test_a_file_without_the_target(self, root: Path) -> None:
        with pytest.raises(ValueError, match=r"'target'.*only108.*valid_acc_108.*\(got 'test_acc_"):
            NASBench101(root, target="test_acc_12", file=root / "raw" / ONLY108)
        with pytest.raises(ValueError, match=r"'name'.*\(got 'test_acc_12'\)"):
            NASBench101(root, file=root / "raw" / ONLY108).labels("test_acc_12")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"(?s)raw.*nasbench_only108.*1\.95 GB"):
            NASBench101(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"got '.*nasbench_full.tfrecord', which"):
            NASBench101(tmp_path, target="valid_acc_4")
        with pytest.raises(FileNotFoundError, match=r"got 'nothing.tfrecord'"):
            NASBench101(tmp_path, file="nothing.tfrecord")

    def test_transforms_and_filter(self, root: Path) -> None:
        full = NASBench101(root)
        calls = []

        def count(data: Data) -> Data:
            calls.append(data)
            return data

        dataset = NASBench101(root, pre_filter=has_seven_nodes, pre_transform=count)
        assert len(dataset) == len(calls) == sum(data.num_nodes == 7 for data in full)
        assert 0 < len(dataset) < len(full)
        for i in range(len(dataset)):
            assert dataset[i].num_nodes == dataset.cell(i).num_vertices == 7
            j = [full.cell(k) for k in range(len(full))].index(dataset.cell(i))
            assert same_graph(dataset[i], full[j])
            assert dataset.labels("test_acc_108")[i] == full.labels("test_acc_108")[j]
        with pytest.raises(ValueError, match=r"'pre_filter' to keep at least one graph"):
            NASBench101(root, pre_filter=lambda data: False)
        marked = NASBench101(root, transform=lambda data: data.update({"mark": 1}))
        assert marked[0].mark == 1


class TestDamagedFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "raw" / ONLY108

    def check(self, root: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            NASBench101(root)
        assert not (root / "processed").exists()

    def test_truncated(self, tmp_path: Path, file: Path, cells: list[NASBench101Cell]) -> None:
        starts = write_tfrecord(file, records(cells[:5], (108,)))
        content = file.read_bytes()
        file.write_bytes(content[: starts[9] + 100])
        self.check(tmp_path, rf"record 9 of '.*{ONLY108}'.*at byte {starts[9]}: the file ends")
        file.write_bytes(b"")
        self.check(tmp_path, r"to hold at least one record \(got none\)")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda r: r[:4], "ValueError"),
            (lambda r: [r[0], 50, *r[2:]], "ValueError"),
            (lambda r: [[r[0]], *r[1:]], "TypeError"),
            (lambda r: [*r[:2], r[2][:-1], *r[3:]], "an adjacency of"),
            (lambda r: [*r[:2], "0" * 9, *r[3:]], "'matrix' to hold a path"),
            (lambda r: [*r[:2], "011000000", *r[3:]], "on no path"),
            (lambda r: [*r[:3], "input,avgpool,output", r[4]], "an unknown operation among"),
            (lambda r: [*r[:3], "input,output", r[4]], "operations 'input,output' of 3"),
            (lambda r: [*r[:4], "not base64!"], "Error"),
            (lambda r: [*r[:4], base64.b64encode(b"\xff\xff").decode()], "DecodeError"),
            (lambda r: [*r[:4], base64.b64encode(metrics([], 5, 1.0)).decode()], "IndexError"),
        ],
    )
    def test_foreign_content(
        self, tmp_path: Path, file: Path, change: Callable[[list], object], message: str
    ) -> None:
        cell = NASBench101Cell.from_str("maxpool3x3~0+output~0,1")
        good = record(cell, 108, *labels_of(cell, 108, 0))
        other = NASBench101Cell.from_str("output~0")
        first = record(other, 108, *labels_of(other, 108, 0))
        bad = json.dumps(change(json.loads(good))).encode()
        write_tfrecord(file, [first, bad, good])
        self.check(tmp_path, rf"record 1 of '.*', counted from 0: its content.*{message}")

    def test_not_json(self, tmp_path: Path, file: Path) -> None:
        write_tfrecord(file, [b"\x00\xff\xfe"])
        self.check(tmp_path, r"record 0 of .*NAS-Bench-101 \((Unicode|JSON)DecodeError")

    def test_decoy_fields_are_skipped(self, tmp_path: Path, file: Path) -> None:
        cell = NASBench101Cell.from_str("output~0")
        content = json.loads(record(cell, 108, 0.5, 0.6, 0.7, 8.0))
        message = metrics([evaluation(108.0, 9.0, 0.25, 0.5, 0.75, "x" * 300)], 2**31 - 1, 10.0)
        content[4] = base64.b64encode(message).decode()
        write_tfrecord(file, [json.dumps(content).encode()])
        assert NASBench101(tmp_path, target="all").y.tolist() == [[25.0, 50.0, 75.0, 9.0]]

    @pytest.mark.parametrize("damage", ["truncated", "text", "foreign"])
    def test_damaged_cache(
        self, tmp_path: Path, file: Path, cells: list[NASBench101Cell], damage: str
    ) -> None:
        write_tfrecord(file, records(cells[:5], (108,)))
        NASBench101(tmp_path)
        cache = tmp_path / "processed" / "nasbench_only108.pt"
        content = cache.read_bytes()
        if damage == "truncated":
            cache.write_bytes(content[: len(content) // 2])
        elif damage == "text":
            cache.write_text("not labels")
        else:
            torch.save({"x": torch.arange(3)}, cache)
        with pytest.raises(ValueError, match=r"Cannot read the processed.*'force_reload=True'"):
            NASBench101(tmp_path)
        assert len(NASBench101(tmp_path, force_reload=True)) == 5
        assert len(NASBench101(tmp_path)) == 5


class TestGraphs:
    def test_graphs_are_those_of_the_cells(
        self, dataset: NASBench101, cells: list[NASBench101Cell]
    ) -> None:
        for i, cell in enumerate(cells):
            expected = cell.to_data()
            expected.y = torch.stack([dataset.labels(name)[i] for name in dataset.targets])[None]
            assert same_graph(dataset[i], expected)
            assert dataset[i].validate()

    def test_storage_is_what_collating_graph_by_graph_gives(
        self, cells: list[NASBench101Cell]
    ) -> None:
        data, slices = collated_graphs(*codes(cells))
        graphs = [cell.to_data() for cell in cells]
        expected, expected_slices = NASBench101.collate(graphs)
        assert same_graph(data, expected)
        assert data._store._num_nodes == expected._store._num_nodes
        assert sorted(slices) == sorted(expected_slices)
        assert all(torch.equal(slices[key], expected_slices[key]) for key in slices)


class TestFromArrays:
    def test_without_labels(self, cells: list[NASBench101Cell]) -> None:
        dataset = NASBench101.from_arrays(*codes(cells))
        assert dataset.target_names == ()
        assert dataset.targets == {}
        assert "y" not in dataset[0]
        assert [dataset.cell(i) for i in range(len(dataset))] == cells
        assert dataset.get_split(10, 5).all.numel() == len(cells)
        with pytest.raises(ValueError, match=r"labels of the arrays, which are none"):
            NASBench101.from_arrays(*codes(cells), target="valid_acc_108")

    def test_labels_are_selected(self, cells: list[NASBench101Cell]) -> None:
        values = np.arange(float(len(cells)))
        values[3] = np.nan
        labels = {"valid_acc_108": values, "test_acc_108": values + 100}
        dataset = NASBench101.from_arrays(*codes(cells), labels, target="valid_acc_108")
        assert dataset.y.shape == (len(cells), 1)
        assert dataset.labels("test_acc_108")[4] == 104
        assert 3 not in dataset.get_split(10).all.tolist()
        both = NASBench101.from_arrays(*codes(cells), labels)
        assert both[7].y.tolist() == [[7.0, 107.0]]

    def test_rejects(self, cells: list[NASBench101Cell]) -> None:
        vertices, edge_bits, op_code = codes(cells)
        with pytest.raises(ValueError, match=r"'labels' to be among train_acc_4.*\(got 'acc'\)"):
            NASBench101.from_arrays(vertices, edge_bits, op_code, {"acc": vertices})
        with pytest.raises(ValueError, match=r"one value of 'valid_acc_4'.*got shape \[2\]"):
            NASBench101.from_arrays(vertices, edge_bits, op_code, {"valid_acc_4": [1, 2]})
        edge_bits[2] = 1 << 20
        with pytest.raises(ValueError, match=r"'edge_bits'.*\(got 1048576 in row 2\)"):
            NASBench101.from_arrays(vertices, edge_bits, op_code)

    def test_subsets_stay_aligned(self, dataset: NASBench101, cells: list[NASBench101Cell]) -> None:
        name = "test_acc_36"
        for subset in (dataset[[7, 3, 9]], dataset.copy([7, 3, 9]), dataset[[1, 7, 3]].copy()[1:]):
            ids = [7, 3, 9][: len(subset)]
            assert [subset.cell(k) for k in range(len(subset))] == [cells[i] for i in ids]
            assert torch.equal(subset.labels(name), dataset.labels(name)[ids])
            assert same_graph(subset[1], dataset[3])
        for i in (-1, len(dataset)):
            with pytest.raises(ValueError, match=r"'i' to be"):
                dataset.cell(i)


def test_as_many_cells_as_the_space_has() -> None:
    graphs, ends = all_edge_bits()
    drawn = np.linspace(0, int(ends[-1]) - 1, NUM_CELLS).astype(np.int64)
    row = np.searchsorted(ends, drawn, side="right")
    vertices, edge_bits = np.array(graphs)[row].T
    arrays = [vertices, edge_bits, drawn - np.concatenate([[0], ends])[row]]
    tracemalloc.start()
    start = time.process_time()
    dataset = NASBench101.from_arrays(*arrays)
    assert time.process_time() - start < 20
    assert tracemalloc.get_traced_memory()[1] < 2**29  # NumPy's arrays, which the tensors share
    tracemalloc.stop()
    assert len(dataset) == NUM_CELLS
    # Papers' training sets, of 0.02, 0.04, 0.1 and 1 percent.
    for size in (100, 172, 424, 4236):
        assert dataset.get_split(size, 200).train.numel() == size
    for i in (0, 1, 77777, NUM_CELLS - 1):
        assert same_graph(dataset[i], dataset.cell(i).to_data())
    num_nodes = sum(batch.num_nodes for batch in DeviceLoader(dataset, 8192))
    assert num_nodes == int(vertices.sum())
