"""Runs on the GPU where there is one, else in Triton's interpreter (see tests/conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from narformer_pyg.nn import GraphAidedAttentionConv, kernels

pytest.importorskip("triton")

from narformer_pyg.nn.kernels import triton_attention
from narformer_pyg.nn.kernels.triton_attention import attention, sort_edges

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def plain(query: Tensor, value: Tensor, edge_index: Tensor) -> Tensor:
    """The definition, with a message on every edge."""
    source, target = edge_index
    score = (query[target] * query[source]).sum(-1) / query.size(1) ** 0.5
    total = score.new_zeros(query.size(0)).index_add(0, target, score) + 1e-6
    messages = (score / total[target]).unsqueeze(-1) * value[source]
    return torch.zeros_like(value).index_add(0, target, messages)


def results(function, query: Tensor, value: Tensor, edges, grad: Tensor) -> list[Tensor]:
    """Output and gradients."""
    query, value = query.clone().requires_grad_(), value.clone().requires_grad_()
    out = function(query, value, edges)
    return [out, *torch.autograd.grad(out, (query, value), grad.to(out.dtype))]


def compare(
    num_nodes: int,
    edge_index: Tensor,
    width: int,
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-6,
) -> None:
    edge_index = edge_index.to(DEVICE)
    query = torch.rand(num_nodes, width).to(DEVICE, dtype)
    value, grad = (torch.randn(num_nodes, width).to(DEVICE, dtype) for _ in range(2))
    edges = sort_edges(edge_index, num_nodes)
    ours = results(attention, query, value, edges, grad)
    reference = results(plain, query.double(), value.double(), edge_index, grad.double())
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == dtype
        scale = max(b.abs().max().item(), 1.0) if b.numel() else 1.0
        torch.testing.assert_close(a.double() / scale, b / scale, rtol=0, atol=tolerance)


def random_edges(num_nodes: int, num_edges: int, symmetric: bool) -> Tensor:
    edge_index = torch.randint(num_nodes, (2, num_edges))
    return torch.cat([edge_index, edge_index.flip(0)], 1) if symmetric else edge_index


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("width", [16, 13, 1, 130])
def test_equals_the_plain_path(width: int, symmetric: bool) -> None:
    """Repeated edges, self-loops and isolated nodes among them."""
    torch.manual_seed(0)
    edge_index = random_edges(7, 30, symmetric)
    assert sort_edges(edge_index, 9).is_symmetric.item() == symmetric
    compare(9, edge_index, width)


@pytest.mark.parametrize("num_nodes", [0, 1, 5])
def test_no_edges(num_nodes: int) -> None:
    compare(num_nodes, torch.empty(2, 0, dtype=torch.long), 8)


@pytest.mark.parametrize("symmetric", [False, True])
def test_long_lists_are_split(monkeypatch: pytest.MonkeyPatch, symmetric: bool) -> None:
    monkeypatch.setattr(triton_attention, "_MIN_SPLIT", 0)
    monkeypatch.setattr(triton_attention, "_CHUNK", 8)
    torch.manual_seed(0)
    edge_index = random_edges(12, 60, symmetric)
    edge_index[1, :37] = 3  # a hub of targets, as long as no multiple of a chunk
    edge_index[0, 30:] = 11  # and one of sources, the last node
    edges = sort_edges(edge_index, 12)
    assert edges.num_slots > 0
    assert edges.node_of.numel() == edges.chunk_of.numel() == 12 + edges.num_slots
    compare(12, edge_index, 7, tolerance=2e-6)


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)])
def test_half_precision(dtype: torch.dtype, eps: float) -> None:
    torch.manual_seed(0)
    compare(9, random_edges(9, 20, True), 16, dtype, eps)


def test_second_derivative_is_refused() -> None:
    query = torch.rand(3, 4, device=DEVICE, requires_grad=True)
    edges = sort_edges(torch.tensor([[0, 1], [1, 2]], device=DEVICE), 3)
    out = attention(query, query, edges).square().sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out, query, create_graph=True)


_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from narformer_pyg.nn.kernels import _triton_programs as programs

LISTS = ("colptr", "source", "rowptr", "target", "node_of", "chunk_of")
ROWS = ("query", "value", "grad", "out", "grad_query", "grad_value")
TYPES = {name: "*i64" for name in LISTS} | {"is_symmetric": "*i32"}
TYPES |= {name: "i32" for name in ("num_nodes", "num_slots")} | {"scale": "fp32", "epsilon": "fp32"}
for rows in ("*fp32", "*bf16"):
    constants = {"F": 24, "BLOCK": 32, "TILE": 4, "CHUNK": 64, "SPLIT": True, "DIVIDE": True}
    for name in ("attend", "combine", "weighted_mean", "gradients"):
        program = getattr(programs, name)
        signature = {
            a: "constexpr" if a in constants else rows if a in ROWS else TYPES.get(a, "*fp32")
            for a in program.arg_names
        }
        chosen = {a: constants[a] for a in program.arg_names if a in constants}
        source = ASTSource(program, signature, constexprs=chosen)
        assert "ptx" in triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32)).asm
"""


@pytest.mark.parametrize("capability", [75, 90])
def test_programs_compile_without_a_gpu(capability: int) -> None:
    pytest.importorskip("triton", "3.4", reason="needs Triton 3.4 for this way to compile")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = _COMPILE.replace("CAPABILITY", str(capability))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("width", [64, 100, 128, 512])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)],
)
def test_on_a_gpu(dtype: torch.dtype, tolerance: float, width: int, symmetric: bool) -> None:
    torch.manual_seed(0)
    compare(1000, random_edges(990, 3000, symmetric), width, dtype, tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hub_on_a_gpu(dtype: torch.dtype) -> None:
    """10^5 neighbors take a few milliseconds, in the same order every time."""
    torch.manual_seed(0)
    num_nodes = 100_001
    spokes = torch.stack([torch.arange(1, num_nodes), torch.zeros(num_nodes - 1).long()])
    edge_index = torch.cat([spokes, spokes.flip(0)], dim=1).cuda()
    query = torch.rand(num_nodes, 64, device="cuda").to(dtype)
    value, grad = (torch.randn(num_nodes, 64, device="cuda").to(dtype) for _ in range(2))
    edges = sort_edges(edge_index, num_nodes)
    first = results(attention, query, value, edges, grad)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    second = results(attention, query, value, edges, grad)
    end.record()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) < 10
    reference = results(plain, query.double(), value.double(), edge_index, grad.double())
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for a, b, c in zip(first, second, reference, strict=True):
        assert torch.equal(a, b)
        scale = max(c.abs().max().item(), 1.0)
        torch.testing.assert_close(a.double() / scale, c / scale, rtol=0, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_layer_on_a_gpu(precision: torch.dtype) -> None:
    """The door opens on CUDA, under autocast too."""
    torch.manual_seed(0)
    conv = GraphAidedAttentionConv(24, 16).cuda()
    x = torch.randn(50, 24, device="cuda")
    edge_index, weight = random_edges(50, 120, True).cuda(), torch.randn(50, 16, device="cuda")
    assert kernels.takes_over(conv, x, edge_index) is not None
    out = []
    for mode in (True, False):
        conv.zero_grad()
        with (
            kernels.enabled(mode),
            torch.autocast("cuda", precision, enabled=precision != torch.float32),
        ):
            y = conv(x, edge_index)
        (y.float() * weight).sum().backward()
        out.append([y.float(), *(p.grad for p in conv.parameters())])
    tolerance = 1e-5 if precision == torch.float32 else 5e-2
    for a, b in zip(*out, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
