from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, Dataset, HeteroData, InMemoryDataset
from torch_geometric.loader import DataLoader

from narformer_pyg.loader import DeviceLoader, PairedBatchSampler

NUM_GRAPHS = 11


class InMemory(InMemoryDataset):
    def __init__(self, graphs: list[Data], transform: Callable[[Data], Data] | None = None) -> None:
        super().__init__(transform=transform)
        self._data, self.slices = self.collate(graphs)


def cell(i: int, num_nodes: int = 5, num_edges: int = 6, **kwargs: Any) -> Data:
    generator = torch.Generator().manual_seed(i)
    high = max(num_nodes, 1)
    return Data(
        op=torch.randint(7, (num_nodes,), generator=generator),
        position=torch.arange(num_nodes),
        edge_index=torch.randint(high, (2, num_edges), generator=generator),
        y=torch.randn(1, 2, generator=generator),
        num_nodes=num_nodes,
        **kwargs,
    )


def equal_sizes(i: int) -> Data:
    return cell(i)


def ragged(i: int) -> Data:
    return cell(i, num_nodes=1 + (3 * i) % 7, num_edges=(5 * i) % 9)


def many_attributes(i: int) -> Data:
    n, e = 2 + i % 4, i % 3
    return cell(
        i,
        num_nodes=n,
        num_edges=e,
        edge_attr=torch.randn(e, 3, dtype=torch.float64),
        edge_mask=torch.rand(e) < 0.5,
        attr=torch.randn(n, 2, 3),
        half=torch.randn(n).half(),
        static=torch.full((1, 4), float(i)),
        scalar=torch.tensor(float(i), dtype=torch.float64),
        truth=torch.tensor(i % 2 == 0),
        count=i,
        weight=0.5 * i,
        flag=i % 3 == 0,
        name=f"cell {i}",
        array=np.arange(i),
        nested=[i, f"{i}"],
        tree_index=torch.randint(n, (4, 2 + i % 2), dtype=torch.int32),
        root_index=i % n,
        face=torch.randint(n, (3, 2)),
    )


def sizes_only(i: int) -> Data:
    return Data(num_nodes=i)


def edges(num_nodes: int, num_edges: int) -> Tensor:
    return torch.randint(num_nodes, (2, num_edges))


KINDS: dict[str, Callable[[int], Data]] = {
    "equal sizes": equal_sizes,
    "ragged": ragged,
    "single node": lambda i: cell(i, num_nodes=1, num_edges=0),
    "no edges": lambda i: cell(i, num_nodes=1 + i % 3, num_edges=0),
    "equal nodes, ragged edges": lambda i: cell(i, num_edges=i % 4),
    "ragged nodes, equal edges": lambda i: cell(i, num_nodes=2 + i % 4),
    "many attributes": many_attributes,
    "nodes from x": lambda i: Data(x=torch.randn(1 + i % 4, 3), edge_index=edges(1 + i % 4, i % 5)),
    "nodes from a name": lambda i: Data(
        node_code=torch.randn(1 + i % 4, 3), edge_index=edges(1 + i % 4, i % 5)
    ),
    "nodes from edges": lambda i: Data(op=torch.randn(4), edge_index=edges(1 + i % 4, i % 5)),
    "labels only": lambda i: Data(y=torch.randn(1, 3), op=torch.arange(i % 4)),
}


def make(kind: Callable[[int], Data], num_graphs: int = NUM_GRAPHS) -> list[Data]:
    torch.manual_seed(0)
    return [kind(i) for i in range(num_graphs)]


def assert_same_value(out: Any, expected: Any, where: str) -> None:
    assert type(out) is type(expected), where
    if isinstance(expected, Tensor):
        assert out.dtype == expected.dtype, where
        assert out.shape == expected.shape, where
        assert torch.equal(out, expected), where
    elif isinstance(expected, np.ndarray):
        assert np.array_equal(out, expected), where
    elif isinstance(expected, list):
        assert len(out) == len(expected), where
        for a, b in zip(out, expected, strict=True):
            assert_same_value(a, b, where)
    else:
        assert out == expected, where


def assert_same_data(out: Data, expected: Data) -> None:
    assert set(out.keys()) == set(expected.keys())
    for key in expected.keys():  # noqa: SIM118 (iterating Data gives pairs)
        assert_same_value(out[key], expected[key], key)


def assert_same_batch(out: Batch, expected: Batch) -> None:
    assert type(out) is type(expected)
    assert_same_data(out, expected)
    assert out.num_graphs == len(out) == expected.num_graphs
    assert out.num_nodes == expected.num_nodes
    assert set(out._slice_dict) == set(expected._slice_dict)
    for key, slices in expected._slice_dict.items():
        assert_same_value(out._slice_dict[key], slices, key)
        assert_same_value(out._inc_dict[key], expected._inc_dict[key], key)
    for a, b in zip(out.to_data_list(), expected.to_data_list(), strict=True):
        assert type(a) is type(b)
        assert_same_data(a, b)
    assert_same_data(out[len(out) - 1], expected[len(out) - 1])


def assert_same_batches(loader: DeviceLoader, expected: DataLoader) -> None:
    assert len(loader) == len(expected)
    for a, b in zip(loader, expected, strict=True):
        assert_same_batch(a, b)


@pytest.mark.filterwarnings("ignore:Unable to accurately infer")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
class TestBatchesEqualPyG:
    @pytest.mark.parametrize("batch_size", [1, 4, NUM_GRAPHS])
    def test_list(self, kind: Callable[[int], Data], batch_size: int) -> None:
        graphs = make(kind)
        assert_same_batches(DeviceLoader(graphs, batch_size), DataLoader(graphs, batch_size))

    @pytest.mark.parametrize("drop_last", [False, True])
    def test_in_memory_dataset(self, kind: Callable[[int], Data], drop_last: bool) -> None:
        dataset = InMemory(make(kind))
        loader = DeviceLoader(dataset, 4, drop_last=drop_last)
        expected = DataLoader(dataset, 4, drop_last=drop_last)
        for _ in range(2):
            assert_same_batches(loader, expected)

    def test_subset(self, kind: Callable[[int], Data]) -> None:
        dataset = InMemory(make(kind))
        for index in ([7, 2, 9, 2, 10], torch.tensor([3]), slice(4, None)):
            assert_same_batches(DeviceLoader(dataset[index], 2), DataLoader(dataset[index], 2))

    def test_one_graph(self, kind: Callable[[int], Data]) -> None:
        graphs = make(kind, 1)
        assert_same_batches(DeviceLoader(graphs), DataLoader(graphs))
        assert_same_batches(DeviceLoader(InMemory(graphs)), DataLoader(InMemory(graphs)))

    def test_collate(self, kind: Callable[[int], Data]) -> None:
        graphs = make(kind)
        index = [5, 0, 5, 5, 10, 3, 1]
        expected = Batch.from_data_list([graphs[i] for i in index])
        loader = DeviceLoader(graphs, 2)
        for indices in (index, torch.tensor(index), torch.tensor(index, dtype=torch.int32)):
            assert_same_batch(loader.collate(indices), expected)


class TestBatch:
    def test_number_of_nodes_alone(self) -> None:
        graphs = make(sizes_only)
        assert_same_batches(DeviceLoader(graphs, 4), DataLoader(graphs, 4))

    def test_writing_to_a_batch_changes_nothing_else(self) -> None:
        for kind in (equal_sizes, ragged):
            graphs = make(kind)
            loader = DeviceLoader(InMemory(graphs), 4)
            for batch in loader:
                for key in ("op", "position", "edge_index", "y", "batch", "ptr"):
                    batch[key].fill_(99)
                batch.new = torch.ones(1)
            assert_same_batches(loader, DataLoader(graphs, 4))

    def test_get_override_is_used(self) -> None:
        class Doubled(InMemory):
            def get(self, idx: int) -> Data:
                data = super().get(idx)
                data.y = 2 * data.y
                return data

        dataset = Doubled(make(ragged))[3:]
        assert_same_batches(DeviceLoader(dataset, 4), DataLoader(dataset, 4))

    def test_more_batch_sizes_than_are_remembered(self) -> None:
        graphs = make(equal_sizes)
        loader = DeviceLoader(graphs)
        for size in [*range(1, NUM_GRAPHS + 1), 2]:
            assert_same_batch(
                loader.collate(list(range(size))), Batch.from_data_list(graphs[:size])
            )
        assert all(len(layout._cuts) <= 8 for layout in loader._graphs._layouts)

    @pytest.mark.parametrize("kind", [equal_sizes, ragged])
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_cuda(self, kind: Callable[[int], Data]) -> None:
        graphs = make(kind)
        loader = DeviceLoader(InMemory(graphs), 4, device="cuda")
        for out, expected in zip(loader, DataLoader(graphs, 4), strict=True):
            assert all(value.is_cuda for _, value in out if isinstance(value, Tensor))
            assert_same_batch(out.cpu(), expected)
        assert next(iter(loader.to("cpu"))).op.device.type == "cpu"

    def test_device(self) -> None:
        loader = DeviceLoader(make(equal_sizes), 4)
        assert loader.device == torch.device("cpu")
        assert loader.to("meta") is loader
        assert loader.device == torch.device("meta")
        assert next(iter(loader)).edge_index.device == torch.device("meta")
        assert DeviceLoader(make(equal_sizes), device="meta").device == torch.device("meta")

    def test_repr(self) -> None:
        assert repr(DeviceLoader(make(ragged))) == "DeviceLoader(11, device=cpu)"


def order_of(batches: Iterator[Batch] | DeviceLoader) -> list[list[int]]:
    return [batch.id.tolist() for batch in batches]


@pytest.fixture
def numbered() -> list[Data]:
    return [cell(i, id=i) for i in range(23)]


class TestOrder:
    def test_shuffle_draws_every_epoch(self, numbered: list[Data]) -> None:
        loader = DeviceLoader(numbered, 5, True, seed=1)
        epochs = [order_of(loader) for _ in range(3)]
        assert [len(batch) for batch in epochs[0]] == [5, 5, 5, 5, 3]
        for epoch in epochs:
            assert sorted(chain(*epoch)) == list(range(23))
        assert epochs[0] != epochs[1] != epochs[2]
        again = DeviceLoader(numbered, 5, shuffle=True, seed=1)
        assert [order_of(again) for _ in range(3)] == epochs
        assert order_of(DeviceLoader(numbered, 5, shuffle=True, seed=2)) != epochs[0]

    def test_global_seed(self, numbered: list[Data]) -> None:
        orders = []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            orders.append(order_of(DeviceLoader(numbered, 23, shuffle=True)))
        assert orders[0] == orders[1] != orders[2]

    def test_batch_sampler(self, numbered: list[Data]) -> None:
        loader = DeviceLoader(numbered, batch_sampler=[[3, 1], (4,), torch.tensor([0, 0])])
        assert len(loader) == 3
        assert order_of(loader) == order_of(loader) == [[3, 1], [4], [0, 0]]

    def test_batch_sampler_out_of_range(self, numbered: list[Data]) -> None:
        with pytest.raises(IndexError, match=r"'indices'.*0 to 22 \(got 23\)"):
            list(DeviceLoader(numbered, batch_sampler=[[0, 23]]))

    @pytest.mark.parametrize("num_done", range(6))
    @pytest.mark.parametrize("sampler", [False, True])
    def test_resume(self, numbered: list[Data], num_done: int, sampler: bool) -> None:
        def loader(seed: int) -> DeviceLoader:
            if sampler:
                pairs = PairedBatchSampler(5, 1, num_copies=3, seed=seed)
                return DeviceLoader(numbered, batch_sampler=pairs)
            return DeviceLoader(numbered, 5, shuffle=True, seed=seed)

        first = loader(1)
        order_of(first)
        epoch = iter(first)
        for _ in range(num_done):  # all five: the iterator is not exhausted, as in a trainer
            next(epoch)
        state = first.state_dict()
        rest = order_of(epoch)
        expected = ([rest] if num_done < 5 else []) + [order_of(first) for _ in range(2)]

        second = loader(2)
        second.load_state_dict(state)
        assert_states_equal(second.state_dict(), state)
        assert [order_of(second) for _ in expected] == expected

    def test_resume_of_a_fixed_order(self, numbered: list[Data]) -> None:
        batches = [[3, 1], [4], [0, 0]]
        for num_done, expected in ((0, batches), (2, batches[2:]), (3, batches)):
            first = DeviceLoader(numbered, batch_sampler=batches)
            epoch = iter(first)
            for _ in range(num_done):
                next(epoch)
            second = DeviceLoader(numbered, batch_sampler=batches)
            second.load_state_dict(first.state_dict())
            assert second.state_dict() == first.state_dict()
            assert order_of(second) == expected
            assert order_of(second) == batches

    def test_abandoned_epoch_is_not_resumed(self, numbered: list[Data]) -> None:
        loader = DeviceLoader(numbered, 5)
        next(iter(loader))
        assert len(order_of(loader)) == 5


def assert_states_equal(out: dict[str, Any], expected: dict[str, Any]) -> None:
    assert torch.equal(out["generator"], expected["generator"])
    assert out["num_batches"] == expected["num_batches"]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"batch_size": 0}, r"'batch_size' to be a positive integer \(got 0\)"),
            ({"batch_size": True}, r"'batch_size' to be a positive integer \(got True\)"),
            ({"batch_size": None}, r"'batch_size' to be a positive integer \(got None\)"),
            ({"batch_size": 12, "drop_last": True}, r"11, when 'drop_last'.*\(got 12\)"),
            ({"seed": 1.5}, r"'seed' to be an integer \(got 1.5\)"),
            ({"batch_sampler": [[0]], "shuffle": True}, r"\(got shuffle\)"),
            ({"batch_sampler": [[0]], "drop_last": True, "seed": 0}, r"\(got drop_last, seed\)"),
            ({"batch_sampler": 3}, "'batch_sampler' to be an iterable that can be"),
            ({"batch_sampler": iter([[0]])}, "'batch_sampler' to be an iterable that can be"),
        ],
    )
    def test_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            DeviceLoader(make(ragged), **arguments)

    def test_empty(self) -> None:
        for empty in ([], InMemory(make(ragged))[[]]):
            with pytest.raises(ValueError, match=r"'dataset' to hold at least one graph \(got 0\)"):
                DeviceLoader(empty)

    def test_wrong_dataset(self) -> None:
        class OnDisk(Dataset):
            def len(self) -> int:
                return 1

            def get(self, idx: int) -> Data:
                return cell(idx)

        with pytest.raises(TypeError, match=r"got OnDisk\); pass list\(dataset\)"):
            DeviceLoader(OnDisk())
        for graph in (torch.ones(3), HeteroData(), Batch.from_data_list(make(ragged))):
            with pytest.raises(TypeError, match=r"to be Data objects \(got "):
                DeviceLoader([graph])
        hetero = HeteroData()
        hetero["a"].x = torch.ones(2, 1)
        with pytest.raises(TypeError, match=r"to be Data objects \(got HeteroData"):
            DeviceLoader(InMemory([hetero, hetero]))

    def test_different_attributes(self) -> None:
        graphs = make(ragged)
        graphs[4].extra = 1
        with pytest.raises(ValueError, match=r"\['edge_index'.*'extra'.*in graph 4\)"):
            DeviceLoader(graphs)

    def test_transform(self) -> None:
        def double(data: Data) -> Data:
            return data

        dataset = InMemory(make(ragged), transform=double)
        with pytest.raises(ValueError, match=r"no transform.*double.*'pre_transform'.*DataLoader"):
            DeviceLoader(dataset)

    @pytest.mark.parametrize(
        "value",
        [
            torch.eye(3).to_sparse(),
            {"a": torch.ones(2)},
            [torch.ones(2), torch.ones(3)],
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        ],
        ids=["sparse", "dict", "tensors", "nested"],
    )
    def test_attribute(self, value: Any) -> None:
        graphs = make(ragged, 3)
        for graph in graphs:
            graph.odd = value
        with pytest.raises(ValueError, match=r"attribute 'odd' to be a dense.*PyG's DataLoader"):
            DeviceLoader(graphs)

    def test_edge_index_with_metadata(self) -> None:
        graphs = make(ragged, 3)
        for graph in graphs:
            graph.edge_index = EdgeIndex(graph.edge_index, sparse_size=(graph.num_nodes,) * 2)
        with pytest.raises(ValueError, match=r"attribute 'edge_index'.*\(got EdgeIndex\)"):
            DeviceLoader(graphs)

    def test_own_rules_of_batching(self) -> None:
        class Bipartite(Data):
            def __inc__(self, *args: Any, **kwargs: Any) -> Any:
                return super().__inc__(*args, **kwargs)

        with pytest.raises(ValueError, match=r"\(got Bipartite, which has its own '__inc__'\)"):
            DeviceLoader([Bipartite(op=torch.ones(2))])
        for name, value in (("node_batch", torch.arange(2)), ("mask_index", torch.ones(2) > 0)):
            with pytest.raises(ValueError, match=f"'{name}' to have another name"):
                DeviceLoader([Data(op=torch.ones(2), **{name: value})])

    def test_indices(self) -> None:
        loader = DeviceLoader(make(ragged))
        for indices, value in (([0, 11], 11), ([2, -1], -1), ([-5, 40], -5)):
            with pytest.raises(IndexError, match=rf"'indices'.* 0 to 10 \(got {value}\)"):
                loader.collate(indices)
        for empty in ([], [[1, 2]], 3):
            with pytest.raises(ValueError, match="'indices' to be a vector of at least one"):
                loader.collate(empty)  # type: ignore[arg-type]
        for wrong in ([1.0], [True, False], torch.ones(2, dtype=torch.complex64)):
            with pytest.raises(ValueError, match="'indices' to hold integers"):
                loader.collate(wrong)

    def test_state(self) -> None:
        loader = DeviceLoader(make(ragged), 4)
        with pytest.raises(ValueError, match=r"'generator' and 'num_batches' \(got \['a'\]\)"):
            loader.load_state_dict({"a": 1})
        state = {**loader.state_dict(), "num_batches": 3}
        with pytest.raises(ValueError, match=r"less than the 3 batches.*\(got 3\)"):
            loader.load_state_dict(state)
        fixed = DeviceLoader(make(ragged), batch_sampler=[[0]])
        with pytest.raises(ValueError, match="'num_batches' only"):
            fixed.load_state_dict(state)


def test_speed() -> None:
    """Batches of 128 small cells come at least ten times as fast as from PyG's loader."""
    dataset = InMemory([cell(i, num_nodes=8, num_edges=10) for i in range(1280)])
    loaders = [DeviceLoader(dataset, 128, shuffle=True), DataLoader(dataset, 128, shuffle=True)]
    best = [float("inf"), float("inf")]
    for _ in range(6):  # interleaved, and the best of each: noise only ever slows down
        for i, loader in enumerate(loaders):
            start = time.perf_counter()
            for _ in loader:
                pass
            best[i] = min(best[i], time.perf_counter() - start)
    assert best[1] / best[0] >= 10


def test_arguments_of_the_loader_of_pyg() -> None:
    graphs = [Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]])) for _ in range(3)]
    loader = DeviceLoader(graphs, 2, False, num_workers=2, pin_memory=True)
    assert [batch.num_graphs for batch in loader] == [2, 1]
    with pytest.raises(TypeError, match=r"no other arguments .*\(got \['follow_batch'\]\)"):
        DeviceLoader(graphs, 2, follow_batch=["x"])


def test_edge_that_leaves_its_graph() -> None:
    def graph(num_nodes: int, last: int) -> Data:
        return Data(x=torch.ones(num_nodes, 1), edge_index=torch.tensor([[0, 0], [0, last]]))

    for last in (2, -1):
        graphs = [graph(4, 3), graph(2, last), graph(4, 3)]
        with pytest.raises(ValueError, match=rf"of graph 1 .* 0 to 1 \(got the edge \[0, {last}\]"):
            DeviceLoader(graphs, 2)
    assert DeviceLoader([graph(4, 3), graph(2, 1)], 2).collate([0, 1]).edge_index.max() == 5


class TestStream:
    def test_equals_batches_of_a_dataset_on_the_device(self) -> None:
        graphs = [ragged(i) for i in range(NUM_GRAPHS)]
        streamed = DeviceLoader(graphs, 4, shuffle=True, seed=1, device="cpu", stream=True)
        plain = DeviceLoader(graphs, 4, shuffle=True, seed=1, device="cpu")
        for a, b in zip(streamed, plain, strict=True):
            keys = a.keys()
            assert keys == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in keys if key != "num_nodes")

    def test_only_batches_are_sent(self) -> None:
        loader = DeviceLoader([ragged(i) for i in range(NUM_GRAPHS)], 4, device="meta", stream=True)
        assert loader.device.type == "meta"
        for batch in (*loader, loader.collate([1, 3])):
            tensors = [value for value in batch.to_dict().values() if isinstance(value, Tensor)]
            assert {tensor.device.type for tensor in tensors} == {"meta"}
        batch = next(iter(loader.to("cpu")))
        assert torch.equal(batch.op[: ragged(0).num_nodes], ragged(0).op)
