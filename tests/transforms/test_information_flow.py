from __future__ import annotations

import copy
import itertools
import random
import time
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from narformer_pyg.transforms import InformationFlowAugmentation, augment

# Sorted by target, then by source, as our datasets store it.
NASBENCH201_EDGES = torch.tensor([[0, 0, 1, 0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 6, 7, 7, 7]])


def nasbench201(seed: int) -> Data:
    rng = random.Random(seed)
    op = torch.tensor([0, *(rng.randint(1, 5) for _ in range(6)), 6])
    return Data(
        op=op,
        position=torch.arange(8),
        edge_index=NASBENCH201_EDGES,
        y=torch.tensor([[float(seed)]]),
        num_nodes=8,
    )


def random_dag(seed: int, num_nodes: int | None = None, num_ops: int = 2) -> Data:
    rng = random.Random(seed)
    n = rng.randint(1, 7) if num_nodes is None else num_nodes
    density = rng.choice([0.2, 0.5, 0.8])
    edges = [(s, t) for t in range(n) for s in range(t) if rng.random() < density]
    return Data(
        op=torch.tensor([rng.randrange(num_ops) for _ in range(n)]),
        position=torch.arange(n),
        edge_index=torch.tensor(edges, dtype=torch.long).view(-1, 2).t().contiguous(),
        num_nodes=n,
    )


def dense(data: Data) -> Tensor:
    adjacency = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.long)
    adjacency[data.edge_index[0], data.edge_index[1]] = 1
    return adjacency


def valid_by_definition(data: Data) -> list[tuple[Tensor, Tensor]]:
    """All valid pairs (A', ops'), in the order of itertools.permutations."""
    adjacency, n = dense(data), data.num_nodes
    valid = []
    for middle in itertools.permutations(range(1, n - 1)):
        perm = torch.tensor([0, *middle, n - 1] if n > 1 else [0])
        new, op = adjacency[perm][:, perm], data.op[perm]
        upper = not new.tril().any()
        if upper and not (torch.equal(new, adjacency) and torch.equal(op, data.op)):
            valid.append((new, op))
    return valid


def to_networkx(data: Data) -> nx.DiGraph:
    graph = nx.DiGraph()
    outer = {0, data.num_nodes - 1}
    for i, op in enumerate(data.op.tolist()):
        graph.add_node(i, label=(op, i if i in outer else None))
    graph.add_edges_from(data.edge_index.t().tolist())
    return graph


def assert_same_architecture(a: Data, b: Data) -> None:
    assert nx.is_isomorphic(
        to_networkx(a), to_networkx(b), node_match=lambda u, v: u["label"] == v["label"]
    )


def assert_in_order(data: Data) -> None:
    source, target = data.edge_index
    assert bool((source < target).all())
    code = target * data.num_nodes + source
    assert bool((code.diff() > 0).all())


def assert_unchanged(out: Data, data: Data) -> None:
    assert out is not data
    assert out.keys() == data.keys()
    assert torch.equal(out.op, data.op)
    assert torch.equal(out.edge_index, data.edge_index)


def key(data: Data) -> tuple[Any, ...]:
    return tuple(data.op.tolist()), tuple(map(tuple, data.edge_index.t().tolist()))


class TestFirst:
    @pytest.mark.parametrize("num_ops", [1, 2, 5])
    def test_equals_brute_force(self, num_ops: int) -> None:
        transform = InformationFlowAugmentation()
        num_augmented = 0
        for seed in range(120):
            data = random_dag(seed, num_ops=num_ops)
            out, valid = transform(data), valid_by_definition(data)
            if not valid:
                assert_unchanged(out, data)
                continue
            num_augmented += 1
            assert torch.equal(dense(out), valid[0][0])
            assert torch.equal(out.op, valid[0][1])
            assert_in_order(out)
        assert num_augmented > 30

    def test_large_graph(self) -> None:
        data = random_dag(3, num_nodes=1500)
        start = time.perf_counter()
        data.edge_index = data.edge_index[:, ::200]
        out = InformationFlowAugmentation()(data)
        assert time.perf_counter() - start < 3
        assert key(out) != key(data)
        assert_in_order(out)
        assert sorted(out.op.tolist()) == sorted(data.op.tolist())

    def test_many_alike_nodes(self) -> None:
        """20! orders come before the first that differs, all of nodes that are alike."""
        edges = [(0, 1), (0, 2), (1, 23), (2, 23)]
        edges += [edge for i in range(3, 23) for edge in ((2, i), (i, 23))]
        edge_index = torch.tensor(sorted(edges, key=lambda edge: edge[::-1])).t()
        data = Data(op=torch.tensor([0, 1, 2, *[3] * 20, 4]), edge_index=edge_index, num_nodes=24)
        out = InformationFlowAugmentation(max_tries=30)(data)
        assert out.op.tolist() == [0, 2, 1, *[3] * 20, 4]
        assert_same_architecture(out, data)
        assert_in_order(out)

    def test_max_tries(self) -> None:
        data = nasbench201(0)  # the first order is always the given one
        assert_unchanged(InformationFlowAugmentation(max_tries=1)(data), data)
        assert key(InformationFlowAugmentation(max_tries=64)(data)) != key(data)

    @pytest.mark.parametrize("mode", ["first", "random"])
    @pytest.mark.parametrize("num_nodes", [1, 2, 3, 6])
    def test_chain_is_copied(self, num_nodes: int, mode: Any) -> None:
        nodes = torch.arange(num_nodes)
        data = Data(op=nodes, edge_index=torch.stack([nodes[:-1], nodes[1:]]), num_nodes=num_nodes)
        assert_unchanged(InformationFlowAugmentation(mode)(data), data)

    @pytest.mark.parametrize("mode", ["first", "random"])
    def test_parallel_alike_nodes_are_copied(self, mode: Any) -> None:
        edge_index = torch.tensor([[0] * 8 + list(range(1, 9)), [*range(1, 9)] + [9] * 8])
        data = Data(op=torch.tensor([0, *[1] * 8, 2]), edge_index=edge_index, num_nodes=10)
        assert_unchanged(InformationFlowAugmentation(mode)(data), data)
        data.op[3] = 5
        assert key(InformationFlowAugmentation(mode)(data)) != key(data)


class TestRandom:
    def test_valid_and_varied(self) -> None:
        transform = InformationFlowAugmentation("random", seed=0)
        for seed in range(10):
            data = nasbench201(seed)
            pairs = valid_by_definition(data)
            expected = {(tuple(op.tolist()), str(a.tolist())) for a, op in pairs}
            found = set()
            for _ in range(300):
                out = transform(data)
                assert_in_order(out)
                found.add((tuple(out.op.tolist()), str(dense(out).tolist())))
            assert found <= expected
            assert len(found) > 0.7 * len(expected)

    def test_finds_what_random_tries_miss(self) -> None:
        """With one random try, which may give the graph itself, the first valid one steps in."""
        data = Data(
            op=torch.tensor([0, 1, 2, 3]),
            edge_index=torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]]),
            num_nodes=4,
        )
        transform = InformationFlowAugmentation("random", max_tries=2, seed=0)
        for _ in range(30):
            assert transform(data).op.tolist() == [0, 2, 1, 3]

    def test_seed(self) -> None:
        data = nasbench201(1)

        def keys(transform: InformationFlowAugmentation) -> list[Any]:
            return [key(transform(data)) for _ in range(10)]

        first = keys(InformationFlowAugmentation("random", seed=1))
        assert keys(InformationFlowAugmentation("random", seed=1)) == first
        assert keys(InformationFlowAugmentation("random", seed=2)) != first
        assert len(set(first)) > 1
        torch.manual_seed(7)
        drawn = keys(InformationFlowAugmentation("random"))
        torch.manual_seed(7)
        assert keys(InformationFlowAugmentation("random")) == drawn


@pytest.mark.parametrize("mode", ["first", "random"])
class TestBothModes:
    def test_attributes_go_along(self, mode: Any) -> None:
        data = random_dag(4, num_nodes=9, num_ops=5)
        n, e = data.num_nodes, data.num_edges
        assert n != e
        data.attr = torch.arange(n, dtype=torch.float64).view(-1, 1).repeat(1, 3)
        data.names = [f"node {i}" for i in range(n)]
        data.edge_names = tuple(f"edge {i}" for i in range(e))
        data.edge_attr = torch.stack(
            [data.attr[data.edge_index[0], 0], data.attr[data.edge_index[1], 0]], dim=1
        )
        data.static = torch.randn(1, 4)
        data.name = "cell"
        before = {k: copy.deepcopy(v) for k, v in data.to_dict().items()}
        out = InformationFlowAugmentation(mode, seed=3)(data)

        order = out.attr[:, 0].long()
        assert order.tolist() != list(range(n))
        assert order[0] == 0
        assert order[-1] == n - 1
        assert torch.equal(out.op, data.op[order])
        assert out.attr.dtype == torch.float64
        assert out.names == [f"node {i}" for i in order.tolist()]
        assert torch.equal(out.edge_attr, out.attr[out.edge_index.t(), 0])
        kept = [int(name.split()[1]) for name in out.edge_names]
        assert torch.equal(data.edge_attr[kept], out.edge_attr)
        assert torch.equal(out.position, torch.arange(n))
        assert torch.equal(out.static, data.static)
        assert out.name == "cell"
        assert out.num_nodes == n
        for name, value in before.items():  # the input is as it was
            same = torch.equal(data[name], value) if torch.is_tensor(value) else data[name] == value
            assert same, name

    def test_attributes_tell_nodes_and_edges_apart(self, mode: Any) -> None:
        edge_index = torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]])
        data = Data(op=torch.tensor([0, 1, 1, 2]), edge_index=edge_index, num_nodes=4)
        transform = InformationFlowAugmentation(mode, seed=0)
        assert_unchanged(transform(data), data)
        data.attr = torch.tensor([[0.0], [1.0], [2.0], [0.0]])
        assert transform(data).attr.flatten().tolist() == [0, 2, 1, 0]
        del data.attr
        data.edge_attr = torch.tensor([5, 6, 7, 7])  # as many edges as nodes: the name decides
        out = transform(data)
        assert out.op.tolist() == [0, 1, 1, 2]
        assert out.edge_attr.tolist() == [6, 5, 7, 7]

    def test_parallel_edges(self, mode: Any) -> None:
        edge_index = torch.tensor([[0, 0, 0, 1, 2], [1, 1, 2, 3, 3]])
        data = Data(op=torch.tensor([0, 1, 1, 2]), edge_index=edge_index, num_nodes=4)
        out = InformationFlowAugmentation(mode, seed=0)(data)
        assert out.edge_index.tolist() == [[0, 0, 0, 1, 2], [1, 2, 2, 3, 3]]
        data.edge_attr = torch.tensor([1, 2, 3, 4, 4])
        out = InformationFlowAugmentation(mode, seed=0)(data)
        assert out.edge_attr.tolist() == [3, 1, 2, 4, 4]

    def test_number_of_nodes_is_not_guessed_from_edges(self, mode: Any) -> None:
        data = Data(op=torch.tensor([0, 1, 2, 3]), edge_index=torch.tensor([[0], [1]]))
        out = InformationFlowAugmentation(mode, seed=0)(data)
        assert out.op.tolist() == [0, 2, 1, 3]
        assert out.edge_index.tolist() == [[0], [2]]


class TestAugment:
    @pytest.mark.parametrize("mode", ["first", "random"])
    def test_blocks(self, mode: Any) -> None:
        graphs = [nasbench201(i) for i in range(12)]
        copies = augment(graphs, num_copies=5, mode=mode)
        assert len(copies) == 60
        for i, data in enumerate(graphs):
            block = copies[i::12]
            assert [int(out.y) for out in block] == [i] * 5
            assert len({key(data), *map(key, block)}) == 6
            for out in block:
                assert_same_architecture(out, data)
                assert_in_order(out)
        if mode == "first":
            transform = InformationFlowAugmentation()
            assert [key(out) for out in copies[:12]] == [key(transform(data)) for data in graphs]

    @pytest.mark.parametrize("mode", ["first", "random"])
    def test_repeats_when_there_are_too_few(self, mode: Any) -> None:
        edge_index = torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]])
        two = Data(op=torch.tensor([0, 1, 2, 3]), edge_index=edge_index, num_nodes=4)
        alike = Data(op=torch.tensor([0, 1, 1, 3]), edge_index=edge_index, num_nodes=4)
        out = augment([two, alike], num_copies=3, mode=mode)
        assert [data.op.tolist() for data in out] == [[0, 2, 1, 3], [0, 1, 1, 3]] * 3
        assert len({id(data) for data in out}) == 6

    def test_seed(self) -> None:
        graphs = [nasbench201(i) for i in range(5)]

        def keys(**kwargs: Any) -> list[Any]:
            return [key(data) for data in augment(graphs, mode="random", **kwargs)]

        assert keys() == keys(seed=0) == keys(seed=0)
        assert keys(seed=1) != keys(seed=0)

    def test_speed(self) -> None:
        graphs = [nasbench201(i) for i in range(781)]
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            assert len(augment(graphs, num_copies=8, mode="random")) == 8 * 781
            best = min(best, time.perf_counter() - start)
            if best < 2:
                break
        assert best < 2


class TestInterface:
    def test_compose_and_repr(self) -> None:
        transform = InformationFlowAugmentation("random", max_tries=8, seed=2)
        expected = "InformationFlowAugmentation(mode='random', max_tries=8, seed=2)"
        assert repr(transform) == expected
        data = nasbench201(0)
        assert key(Compose([InformationFlowAugmentation()])(data)) != key(data)

    @pytest.mark.parametrize("edge", [(2, 1), (2, 2), (0, 4), (-1, 2)])
    def test_wrong_edge(self, edge: tuple[int, int]) -> None:
        edge_index = torch.tensor([[0, edge[0]], [1, edge[1]]])
        data = Data(op=torch.zeros(4).long(), edge_index=edge_index, num_nodes=4)
        pattern = rf"'edge_index' to lead.*edge {edge[0]} -> {edge[1]}\)"
        with pytest.raises(ValueError, match=pattern):
            InformationFlowAugmentation()(data)
        with pytest.raises(ValueError, match=pattern):
            augment([data])

    def test_wrong_graph(self) -> None:
        with pytest.raises(ValueError, match=r"'edge_index' of shape.*\(got None\)"):
            InformationFlowAugmentation()(Data(op=torch.zeros(4)))
        data = nasbench201(0)
        data.root_index = torch.tensor([2])
        with pytest.raises(ValueError, match=r"hold node ids.*\(got 'root_index'\)"):
            InformationFlowAugmentation()(data)

    @pytest.mark.parametrize("value", [0, -1, True, 2.0, None])
    def test_counts(self, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"'max_tries' to be a pos.*\(got {value!r}\)"):
            InformationFlowAugmentation(max_tries=value)
        with pytest.raises(ValueError, match=rf"'max_tries' to be a pos.*\(got {value!r}\)"):
            augment([], max_tries=value)
        with pytest.raises(ValueError, match=rf"'num_copies' to be a pos.*\(got {value!r}\)"):
            augment([], num_copies=value)

    def test_mode_and_seed(self) -> None:
        for call in (InformationFlowAugmentation, lambda **kwargs: augment([], **kwargs)):
            with pytest.raises(ValueError, match=r"'mode' to be 'first' or.*\(got 'last'\)"):
                call(mode="last")
            with pytest.raises(ValueError, match=r"'seed' to be an integer \(got 1.5\)"):
                call(mode="random", seed=1.5)
        with pytest.raises(ValueError, match=r"'seed' to be an integer \(got None\)"):
            augment([], mode="random", seed=None)  # type: ignore[arg-type]
