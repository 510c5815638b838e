from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded_products import RecordedProducts
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from narformer_pyg.nn import linear as linear_module
from narformer_pyg.nn.linear import linear
from narformer_pyg.nn.products import is_exact


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the rows of each map that does not call its module."""
    rows: list[int] = []
    multiply = linear_module._multiply

    def counted(x: Tensor, *args: Any) -> Tensor:
        rows.append(x.size(0))
        return multiply(x, *args)

    monkeypatch.setattr(linear_module, "_multiply", counted)
    return rows


def create(kind: Any = torch.nn.Linear, bias: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    lin: torch.nn.Module = kind(5, 7, bias=bias)
    return lin


@pytest.mark.parametrize("kind", [torch.nn.Linear, PyGLinear])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_equals_the_module(
    kind: Any, bias: bool, adds: bool, grad: bool, products: list[int]
) -> None:
    lin = create(kind, bias)
    x, add_to, weight = (torch.randn(9, size, requires_grad=True) for size in (5, 7, 7))
    before = add_to.detach().clone()
    inputs = [x, *lin.parameters(), *([add_to] if adds else [])]
    with torch.set_grad_enabled(grad):
        out = linear(x, lin, add_to if adds else None)
        expected = lin(x) + add_to if adds else lin(x)
    assert out.requires_grad == grad
    assert torch.equal(add_to.detach(), before)
    torch.testing.assert_close(out, expected)
    if grad:
        # Not contiguous, as gradients of sums are not.
        grads = torch.autograd.grad(out, inputs, weight.t().contiguous().t())
        torch.testing.assert_close(grads, torch.autograd.grad(expected, inputs, weight))
    assert products == [9]


def test_rows_that_are_not_contiguous(products: list[int]) -> None:
    lin = create()
    x = torch.randn(5, 9).t()
    torch.testing.assert_close(linear(x, lin), lin(x))
    assert products == [9]


def test_what_needs_no_gradient_gets_none(products: list[int]) -> None:
    lin = create()
    lin.weight.requires_grad_(False)
    x = torch.randn(9, 5)
    linear(x, lin).sum().backward()
    assert x.grad is None
    assert lin.weight.grad is None
    torch.testing.assert_close(lin.bias.grad, torch.full((7,), 9.0))
    assert products == [9]


def test_second_derivative() -> None:
    lin = create()
    x = torch.randn(9, 5, requires_grad=True)

    def penalty(out: Tensor) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [x, lin.weight, lin.bias])

    torch.testing.assert_close(penalty(linear(x, lin)), penalty(lin(x)))


def test_other_cases_call_the_module(products: list[int]) -> None:
    lin = create()
    x = torch.randn(9, 5)
    expected = lin(x)

    calls = []
    hook = lin.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    assert torch.equal(linear(x, lin), expected)
    assert calls == [x.shape]
    hook.remove()

    class Other(torch.nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1.0

    assert torch.equal(linear(x, create(Other)), expected + 1.0)
    assert linear(torch.empty(0, 5), lin).shape == (0, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, lin).dtype == torch.bfloat16
        assert linear(x, lin, torch.zeros(9, 7)).dtype == torch.float32
    jacobian = torch.func.jacrev(lambda rows: linear(rows, lin))(x)
    torch.testing.assert_close(jacobian[0, :, 0], lin.weight)
    add_to = torch.randn(9, 7, dtype=torch.double)
    torch.testing.assert_close(linear(x, lin, add_to), add_to + expected)
    assert torch.equal(linear(x.double(), lin.double()), lin(x.double()))
    assert products == []


@pytest.mark.skipif(not is_exact(), reason="needs exact products of oneDNN")
@pytest.mark.parametrize("adds", [True, False])
def test_large_maps(adds: bool) -> None:
    """Of a size for which oneDNN multiplies."""
    torch.manual_seed(0)
    lin = torch.nn.Linear(384, 256)
    x, add_to, weight = torch.randn(64, 384), torch.randn(64, 256), torch.randn(64, 256)
    inputs = [x.requires_grad_(), *lin.parameters(), *([add_to.requires_grad_()] if adds else [])]
    with RecordedProducts() as recorded:
        out = linear(x, lin, add_to if adds else None)
    assert recorded.settings == ["bf16"]
    expected = lin(x) + add_to if adds else lin(x)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    with RecordedProducts() as recorded:
        grads = torch.autograd.grad(out, inputs, weight)
    assert recorded.settings == ["bf16", "bf16"]
    expected_grads = torch.autograd.grad(expected, inputs, weight)
    torch.testing.assert_close(grads, expected_grads, atol=1e-4, rtol=1e-5)
