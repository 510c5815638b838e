from __future__ import annotations

import shutil
from typing import Any

import dense_reference
import pytest
import torch
from dense_reference import adjacency, attention, attention_weights, gate, randomize
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch_geometric import EdgeIndex
from torch_geometric.explain import AttentionExplainer, Explainer
from torch_geometric.nn import global_add_pool

from narformer_pyg.nn import GraphAidedAttentionConv
from narformer_pyg.testing import assert_all_parameters_receive_gradients

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}


def random_edges(num_nodes: int, num_edges: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(num_nodes, (2, 4 * num_edges), generator=generator)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]].unique(dim=1)
    return edge_index[
        :, torch.randperm(edge_index.size(1), generator=generator)[:num_edges]
    ].contiguous()


def both_directions(edge_index: Tensor) -> Tensor:
    return torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1).contiguous()


NO_EDGES = torch.empty(2, 0, dtype=torch.long)
GRAPHS: dict[str, tuple[int, Tensor]] = {
    "undirected": (9, both_directions(random_edges(9, 14))),
    "directed": (9, random_edges(9, 20)),
    "isolated nodes": (9, 2 + random_edges(5, 8)),
    "single node": (1, NO_EDGES),
    "no edges": (4, NO_EDGES),
    "self-loops": (6, torch.cat([random_edges(6, 8), torch.arange(4).repeat(2, 1)], dim=1)),
    "self-loop alone": (1, torch.zeros(2, 1, dtype=torch.long)),
    "duplicate edges": (6, random_edges(6, 9)[:, [0, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7, 8, 0]]),
}
OPTIONS: list[dict[str, bool]] = [
    {},
    {"degree_gate": False},
    {"normalize": False},
    {"bias": False},
    {"root_weight": False},
    {"degree_gate": False, "normalize": False, "bias": False, "root_weight": False},
]


def create(
    in_channels: int, out_channels: int, dtype: torch.dtype = torch.float32, **kwargs: Any
) -> GraphAidedAttentionConv:
    conv = GraphAidedAttentionConv(in_channels, out_channels, **kwargs).to(dtype)
    randomize(conv)
    return conv


def features(num_nodes: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_nodes, channels, generator=generator, dtype=torch.double).to(dtype)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 0.0)
    torch.testing.assert_close(actual, expected, rtol=10 * tolerance, atol=2 * tolerance * scale)


class TestDenseReference:
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "default")
    @pytest.mark.parametrize("graph", GRAPHS)
    def test_outputs_and_gradients(
        self, graph: str, options: dict[str, bool], dtype: torch.dtype
    ) -> None:
        num_nodes, edge_index = GRAPHS[graph]
        conv = create(5, 7, dtype, **options)
        x = features(num_nodes, 5, dtype).requires_grad_()
        x_dense = x.detach().clone().requires_grad_()
        weights = {k: w.detach().clone().requires_grad_() for k, w in conv.named_parameters()}

        out = conv(x, edge_index)
        expected = attention(
            weights, x_dense, adjacency(edge_index, num_nodes, dtype), conv.normalize
        )
        assert isinstance(out, Tensor)
        assert out.dtype == dtype
        assert_near(out, expected, TOLERANCE[dtype])

        direction = features(num_nodes, 7, dtype)
        names = list(weights)
        actual_grads = torch.autograd.grad(
            (out * direction).sum(),
            [x, *(p for _, p in conv.named_parameters())],
            allow_unused=True,
            materialize_grads=True,
        )
        expected_grads = torch.autograd.grad(
            (expected * direction).sum(),
            [x_dense, *weights.values()],
            allow_unused=True,
            materialize_grads=True,
        )
        for name, actual, wanted in zip(["x", *names], actual_grads, expected_grads, strict=True):
            assert actual.isfinite().all(), name
            assert_near(actual, wanted, TOLERANCE[dtype])

    def test_isolated_node_is_root_and_bias(self) -> None:
        conv = create(4, 3, normalize=False, degree_gate=False)
        x = features(3, 4)
        out = conv(x, torch.tensor([[0], [1]]))
        lonely = x[[0, 2]] @ conv.lin_r.weight.t() + conv.lin_l.bias
        torch.testing.assert_close(out[[0, 2]], lonely)
        assert not torch.allclose(out[1], x[1] @ conv.lin_r.weight.t() + conv.lin_l.bias)

    def test_without_sigmoid(self) -> None:
        conv = GraphAidedAttentionConv(8, 8, sigmoid=False).double()
        edges = both_directions(random_edges(7, 12))
        x = features(7, 8, torch.double).abs()
        adj = adjacency(edges, 7, torch.double)
        weights = dict(conv.named_parameters())
        h = gate(weights, x, adj)
        query = conv.lin_qk(h)
        scores = query @ query.t() / 8**0.5 * adj
        alpha = scores / (scores.sum(dim=1, keepdim=True) + 1e-6)
        expected = conv.lin_l(alpha @ h) + conv.lin_r(h)
        expected = expected / expected.norm(dim=1, keepdim=True)
        assert_near(conv(x, edges), expected, 1e-9)
        assert_near(conv(x, edges, return_attention_weights=True)[0], expected, 1e-9)

    def test_unit_length(self) -> None:
        num_nodes, edge_index = GRAPHS["undirected"]
        out = create(5, 7)(features(num_nodes, 5), edge_index)
        torch.testing.assert_close(out.norm(dim=1), torch.ones(num_nodes))

    @pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "default")
    @pytest.mark.parametrize(
        "graph", ["directed", "self-loops", "duplicate edges", "isolated nodes"]
    )
    def test_gradcheck(self, graph: str, options: dict[str, bool]) -> None:
        num_nodes, edge_index = GRAPHS[graph]
        conv = create(3, 2, torch.double, **options)
        names = [name for name, _ in conv.named_parameters()]

        def run(x: Tensor, *weights: Tensor) -> Tensor:
            parameters = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(conv, parameters, (x, edge_index))

        x = features(num_nodes, 3, torch.double)
        if options.get("root_weight") is False or options.get("bias") is False:
            # Where nothing arrives the output may be the zero vector, whose direction has no
            # derivative: such graphs only with all nodes reached.
            edge_index = torch.cat([edge_index, torch.arange(num_nodes).repeat(2, 1)], dim=1)
        inputs = [x, *(p.detach() for _, p in conv.named_parameters())]
        assert torch.autograd.gradcheck(run, [t.clone().requires_grad_() for t in inputs])

    def test_permutation_equivariance(self) -> None:
        num_nodes, edge_index = GRAPHS["directed"]
        conv, x = create(5, 7), features(num_nodes, 5)
        order = torch.tensor([3, 1, 8, 0, 2, 7, 6, 5, 4])
        out = conv(x[order], order.argsort()[edge_index.flip(1)])
        torch.testing.assert_close(out, conv(x, edge_index)[order], rtol=1e-5, atol=1e-6)

    def test_target_to_source(self) -> None:
        num_nodes, edge_index = GRAPHS["directed"]
        conv = create(5, 7)
        reverse = create(5, 7, flow="target_to_source")
        x = features(num_nodes, 5)
        torch.testing.assert_close(reverse(x, edge_index.flip(0)), conv(x, edge_index))

    def test_all_parameters_receive_gradients(self) -> None:
        num_nodes, edge_index = GRAPHS["directed"]
        conv = GraphAidedAttentionConv(5, 7)
        loss = (conv(features(num_nodes, 5), edge_index) * features(num_nodes, 7)).sum()
        assert_all_parameters_receive_gradients(conv, loss)


class TestInterface:
    def test_lazy_size(self) -> None:
        num_nodes, edge_index = GRAPHS["directed"]
        conv, x = GraphAidedAttentionConv(-1, 7), features(num_nodes, 5)
        optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
        before = conv(x, edge_index)
        assert repr(conv) == "GraphAidedAttentionConv(5, 7)"
        before[:, 0].sum().backward()
        optimizer.step()
        assert not torch.equal(conv(x, edge_index), before)
        loaded = GraphAidedAttentionConv(-1, 7)
        loaded.load_state_dict(conv.state_dict())
        torch.testing.assert_close(loaded(x, edge_index), conv(x, edge_index))

    def test_repr(self) -> None:
        assert repr(GraphAidedAttentionConv(8, 32)) == "GraphAidedAttentionConv(8, 32)"

    def test_state_dict_keys(self) -> None:
        shapes = {k: tuple(w.shape) for k, w in GraphAidedAttentionConv(5, 7).state_dict().items()}
        assert shapes == {
            "lin_d.weight": (5, 1),
            "lin_d.bias": (5,),
            "lin_qk.weight": (5, 5),
            "lin_qk.bias": (5,),
            "lin_l.weight": (7, 5),
            "lin_l.bias": (7,),
            "lin_r.weight": (7, 5),
        }
        bare = GraphAidedAttentionConv(5, 7, degree_gate=False, bias=False, root_weight=False)
        assert list(bare.state_dict()) == ["lin_qk.weight", "lin_qk.bias", "lin_l.weight"]

    def test_reset_parameters(self) -> None:
        conv = GraphAidedAttentionConv(5, 7)
        before = {k: w.clone() for k, w in conv.state_dict().items()}
        conv.reset_parameters()
        assert all(not torch.equal(w, before[k]) for k, w in conv.state_dict().items())
        # PyG's Linear: weights and biases in +-1/sqrt(fan in).
        assert all(conv.state_dict()[k].abs().max() <= 5**-0.5 for k in before if "lin_d" not in k)

    def test_attention_weights(self) -> None:
        num_nodes, edge_index = GRAPHS["duplicate edges"]
        conv, x = create(5, 7), features(num_nodes, 5)
        result = conv(x, edge_index, return_attention_weights=True)
        assert isinstance(result, tuple)
        out, (edges, alpha) = result
        torch.testing.assert_close(out, conv(x, edge_index))  # one is fused, one is not
        assert torch.equal(edges, edge_index)
        assert alpha.shape == (edge_index.size(1),)
        assert (alpha > 0).all()
        total = torch.zeros(num_nodes).index_add(0, edge_index[1], alpha)
        reached = torch.zeros(num_nodes, dtype=torch.bool)
        reached[edge_index[1]] = True
        torch.testing.assert_close(total, reached.float(), rtol=0, atol=1e-5)

        adj = adjacency(edge_index, num_nodes)
        weights = dict(conv.named_parameters())
        dense = attention_weights(weights, gate(weights, x, adj), adj)
        multiplicity = adj[edge_index[1], edge_index[0]]
        torch.testing.assert_close(alpha, dense[edge_index[1], edge_index[0]] / multiplicity)

    @pytest.mark.parametrize("graph", ["undirected", "directed", "isolated nodes", "no edges"])
    def test_edge_formats(self, graph: str) -> None:
        num_nodes, edge_index = GRAPHS[graph]
        conv, x = create(5, 7), features(num_nodes, 5)
        expected = conv(x, edge_index)
        size = (num_nodes, num_nodes)
        transposed = adjacency(edge_index, num_nodes)  # [target, source]
        formats = {
            "int32": edge_index.int(),
            "EdgeIndex": EdgeIndex(edge_index, sparse_size=size),
            "sorted EdgeIndex": EdgeIndex(edge_index, sparse_size=size).sort_by("col")[0],
            "CSR": transposed.to_sparse_csr(),
            "COO": transposed.to_sparse_coo(),
        }
        for name, edges in formats.items():
            out = conv(x, edges)
            assert type(out) is Tensor, name
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6, msg=name)

    def test_sparse_attention_weights(self) -> None:
        num_nodes, edge_index = GRAPHS["directed"]
        conv, x = create(5, 7), features(num_nodes, 5)
        _, (plain, alpha) = conv(x, edge_index, return_attention_weights=True)
        csr = adjacency(edge_index, num_nodes).to_sparse_csr()
        _, (edges, sparse_alpha) = conv(x, csr, return_attention_weights=True)
        torch.testing.assert_close(
            torch.sparse_coo_tensor(edges, sparse_alpha).to_dense(),
            torch.sparse_coo_tensor(plain, alpha).to_dense(),
        )

    @pytest.mark.parametrize(
        "backend",
        [
            "aot_eager",
            pytest.param(
                "inductor",
                marks=[
                    pytest.mark.slow,
                    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
                ],
            ),
        ],
    )
    def test_compile(self, backend: str) -> None:
        torch.compiler.reset()
        conv = create(5, 7)
        graphs = 0

        def counting(module: Any, inputs: Any) -> Any:
            nonlocal graphs
            graphs += 1
            return torch._dynamo.lookup_backend(backend)(module, inputs)

        compiled = torch.compile(conv, fullgraph=True, dynamic=True, backend=counting)
        for graph in ("directed", "duplicate edges", "isolated nodes"):
            num_nodes, edge_index = GRAPHS[graph]
            x = features(num_nodes, 5).requires_grad_()
            x_eager = x.detach().clone().requires_grad_()
            out, expected = compiled(x, edge_index), conv(x_eager, edge_index)
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
            out[:, 0].sum().backward()
            expected[:, 0].sum().backward()
            torch.testing.assert_close(x.grad, x_eager.grad, rtol=1e-5, atol=1e-6)
        assert graphs == 1, "other sizes must not compile again"
        torch.compiler.reset()

    def test_export(self) -> None:
        conv = create(5, 7).eval()
        num_nodes, edge_index = GRAPHS["directed"]
        program = torch.export.export(
            conv,
            (features(num_nodes, 5), edge_index),
            dynamic_shapes={
                "x": {0: torch.export.Dim("num_nodes", min=2)},
                "edge_index": {1: torch.export.Dim("num_edges", min=2)},
            },
        )
        for graph in ("directed", "undirected", "duplicate edges"):
            num_nodes, edge_index = GRAPHS[graph]
            x = features(num_nodes, 5)
            out = program.module()(x, edge_index)
            torch.testing.assert_close(out, conv(x, edge_index), rtol=1e-5, atol=1e-6)

    def test_attention_explainer(self) -> None:
        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = create(5, 7)
                self.lin = torch.nn.Linear(7, 1)

            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                return self.lin(global_add_pool(self.conv(x, edge_index).relu(), None))

        model = Model().eval()
        explainer = Explainer(
            model,
            algorithm=AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
        )
        num_nodes, edge_index = GRAPHS["directed"]
        x = features(num_nodes, 5)
        explanation = explainer(x, edge_index)
        _, (_, alpha) = model.conv(x, edge_index, return_attention_weights=True)
        torch.testing.assert_close(explanation.edge_mask, alpha.detach())

    def test_bfloat16_autocast(self) -> None:
        num_nodes, edge_index = GRAPHS["undirected"]
        conv, x = create(16, 24), features(num_nodes, 16)
        expected = conv(x, edge_index)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = conv(x, edge_index)
            loss = out.float().square()[:, 0].sum()
        loss.backward()
        torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.03)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in conv.parameters())


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                self.numel = max(self.numel, value.numel())
        return out


def test_memory_grows_with_edges() -> None:
    num_nodes, num_edges = 200_000, 400_000  # a dense matrix would take 160 GB
    edge_index = torch.randint(num_nodes, (2, num_edges))
    conv, x = create(8, 8), features(num_nodes, 8).requires_grad_()
    with LargestTensor() as largest:
        conv(x, edge_index).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert num_edges <= largest.numel <= num_edges * 8


class TestWrongInputs:
    @pytest.mark.parametrize(
        ("edge_index", "message"),
        [
            (torch.zeros(2, 3), r"node numbers of type torch.long \(got torch.float32\)"),
            (torch.zeros(2, 3, dtype=torch.bool), r"type torch.long \(got torch.bool\)"),
            (torch.zeros(3, 2, dtype=torch.long), r"shape \[2, num_edges\].*got \[3, 2\]"),
            (torch.zeros(6, dtype=torch.long), r"shape \[2, num_edges\].*got \[6\]"),
            (torch.zeros(2, 3, 1, dtype=torch.long), r"shape \[2, num_edges\].*got \[2, 3, 1\]"),
            (torch.tensor([[0, 1], [1, 4]]), r"nodes from 0 to 3.*got node 4"),
            (torch.tensor([[0, 9], [1, 2]]), r"nodes from 0 to 3.*got node 9"),
            (torch.tensor([[0, 1], [-1, 2]]), r"nodes from 0 to 3.*got node -1"),
            (torch.eye(5).to_sparse_csr(), r"shape \[4, 4\].*got \[5, 5\]"),
        ],
    )
    def test_edge_index(self, edge_index: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=f"'edge_index'.*{message}"):
            GraphAidedAttentionConv(5, 7)(features(4, 5), edge_index)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (torch.randn(4, 6), r"shape \[num_nodes, 5\].*got \[4, 6\]"),
            (torch.randn(4), r"shape \[num_nodes, 5\].*got \[4\]"),
            (torch.randn(1, 4, 5), r"shape \[num_nodes, 5\].*got \[1, 4, 5\]"),
            (torch.ones(4, 5, dtype=torch.long), r"floating point.*got torch.int64"),
        ],
    )
    def test_x(self, x: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=f"'x'.*{message}"):
            GraphAidedAttentionConv(5, 7)(x, NO_EDGES)

    @pytest.mark.parametrize("value", [0, -2, 2.0, True, None, "5"])
    @pytest.mark.parametrize("name", ["in_channels", "out_channels"])
    def test_channels(self, name: str, value: Any) -> None:
        arguments = {"in_channels": 5, "out_channels": 7, name: value}
        with pytest.raises(
            ValueError, match=rf"'{name}' to be a positive integer \(got {value!r}\)"
        ):
            GraphAidedAttentionConv(**arguments)


def test_reference_adjacency() -> None:
    adj = dense_reference.adjacency(torch.tensor([[0, 0, 1], [2, 2, 0]]), 3)
    assert adj.tolist() == [[0, 1, 0], [0, 0, 0], [2, 0, 0]]
