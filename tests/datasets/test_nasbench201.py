from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from graphs import same_graph
from scipy.stats import kendalltau
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from narformer_pyg.datasets import NASBench201
from narformer_pyg.spaces import NASBench201Cell

NUM_CELLS = 15625
PIXEL = "latency_pixel3"


@pytest.fixture(scope="module")
def dataset() -> NASBench201:
    return NASBench201(target="all")


class Mark(BaseTransform):
    """Adds an attribute and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def forward(self, data: Data) -> Data:
        self.calls += 1
        data.mark = torch.tensor([data.op[1].item()])
        return data


def starts_with_none(data: Data) -> bool:
    return int(data.op[1]) == 5


def test_targets() -> None:
    assert len(NASBench201.targets) == 20
    units = {"accuracy": "percent", "loss": "nats", "time": "s", "latency": "ms"}
    for name, target in NASBench201.targets.items():
        assert target.name == name
        assert target.unit == units[target.kind]
        assert target.higher_is_better == name.endswith("_acc")
        assert target.description


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("cifar10valid_valid_acc", 91.61),
        ("cifar10_test_acc", 94.37),
        ("cifar100_test_acc", 73.51),
        ("imagenet16_test_acc", 47.31),
    ],
)
def test_best_accuracies(dataset: NASBench201, name: str, best: float) -> None:
    assert dataset.labels(name).max().item() == pytest.approx(best, abs=0.005)


def test_estimated_accuracy(dataset: NASBench201) -> None:
    train, valid, test, estimate = (
        dataset.labels(name)
        for name in (
            "cifar10valid_train_acc",
            "cifar10valid_valid_acc",
            "cifar10_test_acc",
            "cifar10_estimated_acc",
        )
    )
    torch.testing.assert_close(train - estimate, (train - valid) * 0.5**0.5)
    assert kendalltau(estimate, test).statistic == pytest.approx(0.906, abs=0.0005)
    # On average it is right to a percent, where the validation accuracy is off by four.
    assert abs((estimate - test).mean()) < 1.0 < 3.0 < abs((valid - test).mean())


def test_missing_latencies_are_cells_without_a_path(dataset: NASBench201) -> None:
    missing = dataset.labels(PIXEL).isnan().nonzero().flatten().tolist()
    assert len(missing) == 202
    for i in missing:
        a, b, c, d, e, f = (name != "none" for name in dataset.cell(i).operations)
        connected = d or (a and e) or ((b or (a and c)) and f)
        assert not connected
    # They are cells that learn nothing.
    assert dataset.labels("cifar10_test_acc")[missing].max() < 10.01


def test_graphs_are_those_of_the_cells(dataset: NASBench201) -> None:
    assert len(dataset) == NUM_CELLS
    assert dataset.num_node_types == 7
    for i in [0, 1, 2, 777, 9999, NUM_CELLS - 1]:
        data = dataset[i]
        expected = dataset.cell(i).to_data()
        expected.y = torch.stack([dataset.labels(name)[i] for name in dataset.targets])[None]
        assert torch.equal(data.y.isnan(), expected.y.isnan())
        data.y, expected.y = data.y.nan_to_num(), expected.y.nan_to_num()
        assert same_graph(data, expected)
        assert not any("index" in key for key in data.keys() if key != "edge_index")  # noqa: SIM118
        assert data.validate()


def test_storage_is_what_collating_graph_by_graph_gives() -> None:
    dataset = NASBench201()
    labels = dataset.labels("cifar10valid_valid_acc")
    graphs = []
    for i in range(NUM_CELLS):
        graph = NASBench201Cell.from_index(i).to_data()
        graph.y = labels[i].view(1, 1)
        graphs.append(graph)
    data, slices = NASBench201.collate(graphs)
    assert same_graph(dataset._data, data)
    assert dataset._data._store._num_nodes == data._store._num_nodes
    assert sorted(slices) == sorted(dataset.slices)
    assert all(torch.equal(slices[key], dataset.slices[key]) for key in slices)


def test_target_selection() -> None:
    one = NASBench201(target="cifar100_test_acc")
    assert one.target_names == ("cifar100_test_acc",)
    assert torch.equal(one.y, one.labels("cifar100_test_acc")[:, None])
    two = NASBench201(target=["latency_1080ti_1", "cifar10_test_acc"])
    assert two[5].y.shape == (1, 2)
    assert two[5].y[0, 0] == two.labels("latency_1080ti_1")[5]
    assert two[5].y[0, 1] == two.labels("cifar10_test_acc")[5]
    assert NASBench201().target_names == ("cifar10valid_valid_acc",)


def test_labels_cannot_be_damaged() -> None:
    dataset = NASBench201()
    dataset.labels("cifar10_test_acc").zero_()
    dataset._data.y.zero_()
    assert dataset.labels("cifar10_test_acc").max() > 90
    assert NASBench201().y.max() > 90


def test_bad_targets() -> None:
    with pytest.raises(ValueError, match=r"'target'.*cifar10_estimated_acc \(got 'accuracy'\)"):
        NASBench201(target="accuracy")
    with pytest.raises(ValueError, match=r"'target' to name at least one target \(got \[\]\)"):
        NASBench201(target=[])
    with pytest.raises(ValueError, match=r"each target once"):
        NASBench201(target=["cifar10_test_acc", "cifar10_test_acc"])
    with pytest.raises(TypeError, match=r"a name or a sequence of names \(got 3\)"):
        NASBench201(target=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'name'.*cifar10_test_acc.*\(got 'c10_test_acc'\)"):
        NASBench201().labels("c10_test_acc")


def test_cell_is_checked(dataset: NASBench201) -> None:
    with pytest.raises(ValueError, match=r"'i' to be between 0 and 15624 \(got 15625\)"):
        dataset.cell(NUM_CELLS)
    for value in (-1, 1.5, True, "0"):
        with pytest.raises(ValueError, match=r"'i' to be an integer"):
            dataset.cell(value)  # type: ignore[arg-type]


def test_nothing_is_written_without_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    NASBench201()
    assert list(tmp_path.iterdir()) == []


def test_transform_and_pre_transform() -> None:
    transform = Mark()
    dataset = NASBench201(transform=transform)
    assert transform.calls == 0
    assert dataset[4].mark.tolist() == [dataset._data.op[4 * 8 + 1]]
    assert transform.calls == 1
    pre_transform = Mark()
    dataset = NASBench201(pre_transform=pre_transform)
    assert pre_transform.calls == NUM_CELLS
    assert dataset[4].mark.tolist() == [dataset[4].op[1]]
    assert pre_transform.calls == NUM_CELLS


def test_pre_filter() -> None:
    dataset = NASBench201(pre_filter=starts_with_none)
    assert len(dataset) == NUM_CELLS // 5
    full = NASBench201()
    for k in (0, 100, len(dataset) - 1):
        cell = dataset.cell(k)
        assert cell.operations[0] == "none"
        assert same_graph(dataset[k], full[cell.index])
        assert dataset.labels("cifar10_test_acc")[k] == full.labels("cifar10_test_acc")[cell.index]
    assert dataset.get_split(10).all.numel() == NUM_CELLS // 5
    with pytest.raises(ValueError, match=r"'pre_filter' to keep at least one graph \(got none"):
        NASBench201(pre_filter=lambda data: False)


def test_root_keeps_the_processed_graphs(tmp_path: Path) -> None:
    first = Mark()
    dataset = NASBench201(tmp_path, pre_transform=first, pre_filter=starts_with_none)
    assert first.calls == NUM_CELLS // 5
    second = Mark()
    again = NASBench201(str(tmp_path), pre_transform=second, pre_filter=starts_with_none)
    assert second.calls == 0
    assert len(again) == len(dataset)
    assert same_graph(again[17], dataset[17])
    assert again.cell(17) == dataset.cell(17)
    assert again[17].num_nodes == 8
    third = Mark()
    NASBench201(tmp_path, pre_transform=third, pre_filter=starts_with_none, force_reload=True)
    assert third.calls == NUM_CELLS // 5
    assert not [name for name in os.listdir(again.processed_dir) if name.startswith(".")]


def test_root_is_keyed_by_target(tmp_path: Path) -> None:
    names = ["cifar10_test_acc", "latency_1080ti_1"]
    for target in (names[0], names[1], names, names[::-1]):
        dataset = NASBench201(tmp_path, target=target)
        expected = [dataset.labels(name)[3] for name in dataset.target_names]
        assert dataset[3].y.tolist() == [[value.item() for value in expected]]
    assert len(list((tmp_path / "processed").iterdir())) == 4


def test_another_pre_transform_warns(tmp_path: Path) -> None:
    NASBench201(tmp_path)
    with pytest.warns(UserWarning, match="force_reload=True"):
        NASBench201(tmp_path, pre_transform=Mark())


@pytest.mark.parametrize("damage", ["truncated", "text", "foreign"])
def test_damaged_root(tmp_path: Path, damage: str) -> None:
    file = Path(NASBench201(tmp_path).processed_paths[0])
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        file.write_text("not a dataset")
    else:
        torch.save([1, 2, 3], file)
    with pytest.raises(ValueError, match=r"Cannot read the processed file.*force_reload=True"):
        NASBench201(tmp_path)
    assert NASBench201(tmp_path, force_reload=True)[0].y.item() == pytest.approx(81.982666)
    assert len(NASBench201(tmp_path)) == NUM_CELLS


def test_get_split() -> None:
    dataset = NASBench201()
    split = dataset.get_split(781, val_size=200, seed=3)
    assert repr(split) == "Split(train=781, val=200, test=14644, seed=3)"
    assert torch.equal(split.all, torch.arange(NUM_CELLS))
    assert torch.equal(split.test, split.test.sort().values)
    # Neither the size of the validation set nor that of the training set moves the draw.
    assert torch.equal(dataset.get_split(781, seed=3).train, split.train)
    assert torch.equal(dataset.get_split(156, seed=3).train, split.train[:156])
    assert not torch.equal(dataset.get_split(781, seed=4).train, split.train)
    # Uniform: the mean of 781 of 15,625 positions is 7,812 with a standard deviation of 161.
    assert abs(split.train.float().mean() - 7812) < 600
    assert len(dataset[split.train]) == 781


def test_missing_labels() -> None:
    # One that is missing among several stays in the graphs, as NaN, for the losses to leave out.
    dataset = NASBench201(target=["cifar10_test_acc", PIXEL])
    split = dataset.get_split(15000, val_size=423, seed=0)
    assert split.all.numel() == NUM_CELLS
    assert dataset.y.isnan().sum(dim=0).tolist() == [0, 202]
    assert dataset[split.train]._data.y.shape == (NUM_CELLS, 2)
    # A graph without any label is in no set.
    dataset = NASBench201(target=PIXEL)
    split = dataset.get_split(15000, val_size=423, seed=0)
    assert split.test.numel() == 0
    assert dataset.y[split.all].isfinite().all()
    with pytest.raises(ValueError, match=r"'train_size' to be between 1 and 15423.*\(got 15424\)"):
        dataset.get_split(15424)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_size": 0}, r"'train_size' to be a positive integer \(got 0\)"),
        ({"train_size": 0.05}, r"'train_size' to be a positive integer \(got 0.05\)"),
        ({"train_size": 10, "val_size": True}, r"'val_size' to be an integer >= 0 \(got True\)"),
        ({"train_size": 10, "seed": "10"}, r"'seed' to be an integer \(got '10'\)"),
        ({"train_size": 20000}, r"'train_size' to be between 1 and 15625.*\(got 20000\)"),
        ({"train_size": 10, "val_size": -1}, r"'val_size' to be an integer >= 0 \(got -1\)"),
        ({"train_size": 15000, "val_size": 626}, r"between 0 and 625.*\(got 626\)"),
        ({"train_size": 10, "seed": -1}, r"'seed' to be between 0 .*\(got -1\)"),
    ],
)
def test_get_split_rejects(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NASBench201().get_split(**arguments)
