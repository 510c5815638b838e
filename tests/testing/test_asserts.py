from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from narformer_pyg.testing import (
    assert_all_parameters_receive_gradients,
    assert_batch_invariant,
    assert_permutation_invariant,
)

GRAPHS = [Data(x=torch.full((n, 1), float(n))) for n in (1, 2, 3, 5)]


def node_means(batch: Batch) -> Tensor:
    return torch.stack([batch.x[batch.batch == i].mean(0) for i in range(batch.num_graphs)])


class TestBatchInvariant:
    def test_good(self) -> None:
        assert_batch_invariant(node_means, GRAPHS)

    def test_depends_on_the_others(self) -> None:
        with pytest.raises(AssertionError, match="in the batch of all graphs differ"):
            assert_batch_invariant(lambda batch: node_means(batch) - batch.x.mean(), GRAPHS)

    def test_depends_on_the_order(self) -> None:
        def run(batch: Batch) -> Tensor:
            out = node_means(batch)
            return out if len(out) == 1 else out.sort(dim=0).values

        with pytest.raises(AssertionError, match="in the batch in reverse order differ"):
            assert_batch_invariant(run, GRAPHS)

    def test_depends_on_the_size(self) -> None:
        with pytest.raises(AssertionError, match="first half"):
            assert_batch_invariant(lambda b: node_means(b) + (b.num_graphs == 2), GRAPHS)

    def test_tolerance(self) -> None:
        def run(batch: Batch) -> Tensor:
            return node_means(batch) + 1e-3 * (batch.num_graphs > 1)

        assert_batch_invariant(run, GRAPHS, atol=1e-2)
        with pytest.raises(AssertionError):
            assert_batch_invariant(run, GRAPHS, atol=1e-5)

    def test_single_graph(self) -> None:
        with pytest.raises(ValueError, match=r"at least two graphs \(got 1\)"):
            assert_batch_invariant(node_means, GRAPHS[:1])


class TestPermutationInvariant:
    x = torch.arange(1.0, 7.0).view(6, 1)
    edge_index = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])

    def test_good(self) -> None:
        def run(x: Tensor, edge_index: Tensor) -> Tensor:
            source, target = edge_index
            return (x[source] * x[target].square()).sum()

        assert_permutation_invariant(run, self.x, self.edge_index)

    def test_batch(self) -> None:
        def run(x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
            return torch.stack([x[batch == i].sum() for i in range(2)])

        batch = torch.tensor([0, 0, 1, 1, 1, 1])
        assert_permutation_invariant(run, self.x, self.edge_index, batch)

    def test_bad(self) -> None:
        for run in (
            lambda x, edge_index: x[0],
            lambda x, edge_index: x[edge_index[0, 0]],
            lambda x, edge_index: (x[:, 0] * torch.arange(6)).sum(),
        ):
            with pytest.raises(AssertionError, match="renumbered nodes"):
                assert_permutation_invariant(run, self.x, self.edge_index)


class TestGradients:
    def test_good(self) -> None:
        lin = torch.nn.Linear(2, 3)
        lin.bias.requires_grad_(False)
        loss = lin(torch.ones(1, 2)).sum()
        assert_all_parameters_receive_gradients(lin, loss)
        assert lin.weight.grad is None
        loss.backward()  # the graph is still there

    def test_bad(self) -> None:
        module = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1) for name in ("a", "b", "c")})
        x = torch.ones(1, 2)
        loss = module["a"](x).sum() + 0 * module["b"](x).sum()
        with pytest.raises(AssertionError, match=r"b.weight \(all zero\).*c.bias \(not part of"):
            assert_all_parameters_receive_gradients(module, loss)
        loss = (module["a"](x) / 0 + module["b"](x) + module["c"](x)).sum()
        with pytest.raises(AssertionError, match=r"gradient: a.weight \(not finite\), a.bias"):
            assert_all_parameters_receive_gradients(module, loss)

    def test_nothing_to_check(self) -> None:
        with pytest.raises(AssertionError, match="no parameters"):
            assert_all_parameters_receive_gradients(torch.nn.ReLU(), torch.ones(()))
