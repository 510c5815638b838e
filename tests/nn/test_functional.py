from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing

from narformer_pyg.nn import GraphAidedAttentionConv, NARFormerV2Block
from narformer_pyg.nn.functional import (
    EPSILON,
    SortedEdges,
    gate_rows,
    graph_aided_attention,
    is_fusable,
    normalize_rows,
    sort_edges,
)
from narformer_pyg.nn.models.graph_regressor import both_directions

pytestmark = pytest.mark.skipif(
    not is_fusable(torch.ones(1)), reason="this PyTorch has no sparse kernels for the CPU (MKL)"
)


def random_edges(num_nodes: int, num_edges: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


def dense(query: Tensor, value: Tensor, edge_index: Tensor) -> Tensor:
    num_nodes, width = query.shape
    adjacency = query.new_zeros(num_nodes, num_nodes)
    adjacency.index_put_((edge_index[1], edge_index[0]), query.new_ones(()), accumulate=True)
    score = query @ query.t() / width**0.5 * adjacency
    return score / (score.sum(dim=1, keepdim=True) + EPSILON) @ value


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize(("num_nodes", "num_edges"), [(9, 30), (40, 25), (3, 20), (1, 2), (3, 0)])
def test_equals_the_dense_formula(
    num_nodes: int, num_edges: int, dtype: torch.dtype, tolerance: float
) -> None:
    edge_index = random_edges(num_nodes, num_edges)
    torch.manual_seed(1)
    inputs = [
        torch.rand(num_nodes, width, dtype=dtype).requires_grad_() for width in (6, 4)
    ]  # positive, as behind a sigmoid
    out = graph_aided_attention(*inputs, sort_edges(edge_index, num_nodes))
    expected = dense(*inputs, edge_index)
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
    weight = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, weight)
    expected_grads = torch.autograd.grad(expected, inputs, weight)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=10 * tolerance)


def test_gradcheck() -> None:
    edge_index = sort_edges(random_edges(6, 14), 6)
    query = torch.rand(6, 3, dtype=torch.double, requires_grad=True)
    value = torch.randn(6, 2, dtype=torch.double, requires_grad=True)
    attend = partial(graph_aided_attention, edge_index=edge_index)
    gradcheck = torch.autograd.gradcheck
    assert gradcheck(attend, (query, value))
    assert gradcheck(attend, (query.detach(), value))
    assert gradcheck(attend, (query, value.detach()))


def test_is_not_differentiated_twice() -> None:
    edge_index = sort_edges(random_edges(5, 9), 5)
    query, value = torch.rand(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    out = graph_aided_attention(query, value, edge_index)
    (grad,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    edge_index = sort_edges(random_edges(8, 20), 8)
    query, value = torch.rand(8, 4).to(dtype), torch.randn(8, 4).to(dtype)
    out = graph_aided_attention(query, value, edge_index)
    assert out.dtype == dtype
    expected = graph_aided_attention(query.float(), value.float(), edge_index)
    assert torch.equal(out, expected.to(dtype))


def test_sorted_edges_are_used_as_they_are() -> None:
    edge_index = random_edges(8, 20)
    once = sort_edges(edge_index, 8)
    assert once.is_sorted_by_col
    assert bool((once.as_tensor()[1].diff() >= 0).all())
    assert sort_edges(once, 8) is once
    unsorted = EdgeIndex(edge_index, sparse_size=(8, 8))
    assert torch.equal(sort_edges(unsorted, 8).as_tensor(), once.as_tensor())
    # Pointers of another number of nodes would not fit.
    assert sort_edges(once, 9).sparse_size() == (9, 9)


class TestSortedEdges:
    def test_is_accepted_like_edges(self) -> None:
        torch.manual_seed(0)
        edge_index, x = random_edges(12, 30), torch.randn(12, 8, requires_grad=True)
        shared = SortedEdges(edge_index, 12)
        for conv in (
            GraphAidedAttentionConv(8, 8),
            GraphAidedAttentionConv(8, 8, flow="target_to_source"),
        ):
            out, expected = conv(x, shared), conv(x, edge_index)
            torch.testing.assert_close(out, expected)
            weight = torch.randn_like(out)
            inputs = [x, *conv.parameters()]
            grads = torch.autograd.grad(out, inputs, weight)
            torch.testing.assert_close(grads, torch.autograd.grad(expected, inputs, weight))
            _, (_, alpha) = conv(x, shared, return_attention_weights=True)
            assert alpha.shape == (30,)

    def test_from_neighbors(self) -> None:
        torch.manual_seed(0)
        # Nodes 0 - 1, twice 1 - 2, a loop at 3; node 4 alone.
        edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 1, 3]])
        shared = SortedEdges.from_neighbors(
            torch.tensor([1, 0, 2, 2, 1, 1, 3, 3]),
            torch.tensor([0, 1, 4, 6, 8, 8]),
            torch.tensor([1, 0, 4, 5, 2, 3, 7, 6]),
        )
        conv, x = GraphAidedAttentionConv(8, 8), torch.randn(5, 8, requires_grad=True)
        both = both_directions(edge_index)
        out, expected = conv(x, shared), conv(x, both)
        torch.testing.assert_close(out, expected)
        weight = torch.randn_like(out)
        inputs = [x, *conv.parameters()]
        grads = torch.autograd.grad(out, inputs, weight)
        torch.testing.assert_close(grads, torch.autograd.grad(expected, inputs, weight))
        assert shared.edge_index.validate().is_sorted_by_col
        assert sorted(shared.edge_index.t().tolist()) == sorted(both.t().tolist())

    def test_edges_of_another_graph(self) -> None:
        conv = GraphAidedAttentionConv(8, 8)
        with pytest.raises(ValueError, match="name nodes from 0 to 4"):
            conv(torch.randn(5, 8), SortedEdges(random_edges(12, 30), 12))

    def test_inference_then_training(self) -> None:
        conv, x = GraphAidedAttentionConv(8, 8), torch.randn(12, 8)
        shared = SortedEdges(random_edges(12, 30), 12)
        with torch.inference_mode():
            expected = conv(x, shared)
        out = conv(x, shared)
        torch.testing.assert_close(out, expected.clone())
        out.sum().backward()
        assert conv.lin_d.weight.grad is not None

    @pytest.mark.parametrize(("num_nodes", "num_edges"), [(12, 30), (2, 30), (4, 0), (0, 0)])
    def test_degrees(self, num_nodes: int, num_edges: int) -> None:
        edge_index = random_edges(max(num_nodes, 1), num_edges)
        table, place = SortedEdges(edge_index, num_nodes).degrees(torch.double)
        degrees = table if place is None else table[place]
        expected = torch.bincount(edge_index[1], minlength=num_nodes)
        assert table.dtype == torch.double
        assert degrees.flatten().tolist() == expected.tolist()
        assert (place is None) is (num_nodes in (0, 2))  # a table would be as long


def test_gate_rows() -> None:
    torch.manual_seed(0)
    gates, x = torch.rand(3, 4, dtype=torch.double), torch.randn(6, 4, dtype=torch.double)
    place = torch.tensor([2, 0, 0, 2, 2, 0])  # the second gate has no row
    assert torch.equal(gate_rows(gates, place, x), gates[place] * x)
    inputs = (gates.requires_grad_(), x.requires_grad_())
    assert torch.autograd.gradcheck(lambda gates, x: gate_rows(gates, place, x), inputs)
    out = gate_rows(gates.detach(), place, x)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], gates[place])


def test_normalize_rows() -> None:
    x = torch.randn(7, 5, dtype=torch.double)
    x[2] = 0.0
    x[3] *= 1e-14  # below the smallest divisor
    x.requires_grad_()
    out, expected = normalize_rows(x), torch.nn.functional.normalize(x, dim=-1)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(x)
    (grad,) = torch.autograd.grad(out, x, weight)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, x, weight)[0])
    assert torch.autograd.gradcheck(normalize_rows, x[4:].detach().requires_grad_())


class TestLayer:
    def run(self, conv: torch.nn.Module, fused: bool, monkeypatch: pytest.MonkeyPatch) -> Tensor:
        edge_index = random_edges(12, 30)
        x = torch.randn(12, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
        calls = []
        original = GraphAidedAttentionConv.message_and_aggregate

        def spy(self: GraphAidedAttentionConv, *args: Tensor, **kwargs: Tensor) -> Tensor:
            calls.append(1)
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(GraphAidedAttentionConv, "message_and_aggregate", spy)
            out = conv(x, edge_index)
        assert bool(calls) is fused
        return out

    def test_is_fused_and_equals_the_way_over_messages(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.manual_seed(0)
        conv = GraphAidedAttentionConv(8, 8)
        out = self.run(conv, True, monkeypatch)
        handle = conv.register_message_forward_hook(lambda module, inputs, output: None)
        torch.testing.assert_close(self.run(conv, False, monkeypatch), out)
        handle.remove()
        self.run(conv, True, monkeypatch)

    def test_hooks_around_the_fused_way_are_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        conv = GraphAidedAttentionConv(8, 8)
        out = self.run(conv, True, monkeypatch)
        seen = []
        conv.register_propagate_forward_hook(lambda module, inputs, output: seen.append(1))
        conv.register_message_and_aggregate_forward_hook(
            lambda module, inputs, output: seen.append(2)
        )
        torch.testing.assert_close(self.run(conv, True, monkeypatch), out)
        assert seen == [2, 1]

    def test_subclass_with_messages_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Doubled(GraphAidedAttentionConv):
            def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
                return 2 * super().message(x_j, alpha)

        torch.manual_seed(0)
        own = Doubled(8, 8, root_weight=False, bias=False, normalize=False)
        plain = GraphAidedAttentionConv(8, 8, root_weight=False, bias=False, normalize=False)
        plain.load_state_dict(own.state_dict())
        out = self.run(own, False, monkeypatch)
        torch.testing.assert_close(out, 2 * self.run(plain, True, monkeypatch))

    @pytest.mark.parametrize("kwargs", [{"aggr": "max"}, {"flow": "target_to_source"}])
    def test_other_ways_to_aggregate(self, kwargs: dict, monkeypatch: pytest.MonkeyPatch) -> None:
        conv = GraphAidedAttentionConv(8, 8, **kwargs)
        assert isinstance(conv, MessagePassing)
        self.run(conv, False, monkeypatch)

    def test_half_precision_parameters(self) -> None:
        block = NARFormerV2Block(16, 16).bfloat16()
        block(torch.randn(12, 16).bfloat16(), random_edges(12, 30)).float().sum().backward()
        assert all(
            p.grad is not None and p.grad.dtype == torch.bfloat16 for p in block.parameters()
        )

    @pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
    def test_hooks_of_parts(self, dropout: float) -> None:
        block = NARFormerV2Block(16, 16, dropout=dropout)
        seen: list[Tensor] = []
        copies: list[Tensor] = []
        called = set()

        def keep(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
            seen.append(output)
            copies.append(output.detach().clone())
            called.add(module)

        parts = [block.conv.lin_l, block.conv.lin_r, block.norm, block.ffn.norm_1, block.ffn.norm_2]
        for part in parts:
            part.register_forward_hook(keep)
            part.register_full_backward_hook(lambda module, grad_input, grad_output: None)
        block(torch.randn(12, 16, requires_grad=True), random_edges(12, 30)).sum().backward()
        assert called == set(parts)
        if dropout == 0.0:
            assert all(torch.equal(a, b) for a, b in zip(seen, copies, strict=True))

    def test_inference_then_training_with_the_same_edges(self) -> None:
        conv = GraphAidedAttentionConv(8, 8)
        edges = EdgeIndex(random_edges(12, 30), sparse_size=(12, 12)).sort_by("col")[0]
        x = torch.randn(12, 8)
        with torch.inference_mode():
            expected = conv(x, edges)
        x.requires_grad_()
        out = conv(x, edges)
        torch.testing.assert_close(out, expected.clone())
        out.sum().backward()
        assert x.grad is not None

    def test_function_transforms(self) -> None:
        block = NARFormerV2Block(8, 8, dropout=0.0)
        x, edge_index = torch.randn(6, 8), random_edges(6, 12)
        parameters = dict(block.named_parameters())

        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(block, parameters, (x, edge_index)).square().sum()

        grads = torch.func.grad(loss)(parameters)
        loss(parameters).backward()
        for name, parameter in block.named_parameters():
            torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-6)

    def test_autocast(self) -> None:
        torch.manual_seed(0)
        block = NARFormerV2Block(16, 16).eval()
        x, edge_index = torch.randn(12, 16), random_edges(12, 30)
        expected = block(x, edge_index)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = block(x, edge_index)
        out.float().sum().backward()
        torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.02)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
