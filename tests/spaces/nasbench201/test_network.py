from __future__ import annotations

import pytest
import torch

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench201Cell, NASBench201Network
from narformer_pyg.spaces.nasbench201 import OPERATIONS


def num_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def uniform_cell(operation: str) -> NASBench201Cell:
    return NASBench201Cell((operation,) * 6)


def make_cell(operations: str) -> NASBench201Cell:
    return NASBench201Cell(tuple(operations.split()))


@pytest.mark.parametrize(
    ("operation", "expected"),
    # The benchmark reports 0.073306 M for cells without convolutions and at most 1.531546 M.
    [("none", 73306), ("skip_connect", 73306), ("avg_pool_3x3", 73306), ("nor_conv_3x3", 1531546)],
)
def test_num_parameters(operation: str, expected: int) -> None:
    assert num_parameters(uniform_cell(operation).to_module()) == expected


@pytest.mark.parametrize("operation", OPERATIONS)
def test_forward_and_backward(operation: str) -> None:
    torch.manual_seed(0)
    network = uniform_cell(operation).to_module(num_classes=7, C=4, N=1)
    out = network(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, 7)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None for p in network.classifier.parameters())
    # Only 'none' cuts the network: then the logits do not depend on the image.
    assert torch.equal(out[0], out[1]) == (operation == "none")


def test_cell_matches_an_explicit_sum() -> None:
    torch.manual_seed(0)
    cell = make_cell(
        "nor_conv_1x1 nor_conv_3x3 avg_pool_3x3 skip_connect nor_conv_1x1 nor_conv_3x3"
    )
    module = cell.to_module(C=4, N=1).eval().stages[0]
    x = torch.randn(2, 4, 8, 8)
    op = module.operations
    one = op[0](x)
    two = op[1](x) + op[2](one)
    torch.testing.assert_close(module(x), op[3](x) + op[4](one) + op[5](two))
    assert torch.equal(op[3](x), x)
    # The zeros around the image are no part of an average.
    torch.testing.assert_close(op[2](torch.ones(1, 4, 5, 5)), torch.ones(1, 4, 5, 5))
    # A convolution is ReLU, convolution, batch normalisation, in this order.
    assert [type(layer).__name__ for layer in op[0]] == ["ReLU", "Conv2d", "BatchNorm2d"]
    assert op[0][1].kernel_size == (1, 1)
    assert op[1][1].kernel_size == (3, 3)


def test_repr_names_the_cell() -> None:
    cell = NASBench201Cell.from_index(0)
    assert f"operations={cell.operations}" in repr(cell.to_module(C=1, N=1))


def test_operations_are_checked() -> None:
    with pytest.raises(TypeError, match=r"'operations' to be a tuple of six names \(got 'none'\)"):
        NASBench201Network("none")
    with pytest.raises(ConversionError, match=r"'operations' to be among .* \(got 'conv'\)"):
        NASBench201Network(["conv"] * 6)
