from __future__ import annotations

import pytest
import torch

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench101Cell, NASBench101Network
from narformer_pyg.spaces.nasbench101 import unpack_codes, vertex_channels


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def channels(text: str, out_channels: int) -> list[int]:
    cell = NASBench101Cell.from_str(text)
    cells = unpack_codes(*([number] for number in cell.code))
    return vertex_channels(cells.adjacency, cells.vertices, out_channels)[0].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    # Published: see the table of the cells' tests.
    [
        ("output~0", 882570),
        ("maxpool3x3~0+maxpool3x3~0,1+output~2", 1756298),
        ("conv3x3-bn-relu~0+conv3x3-bn-relu~1+output~0,1,2", 5969674),
        (
            "conv3x3-bn-relu~0+conv1x1-bn-relu~1+conv3x3-bn-relu~0+maxpool3x3~0+output~1,2,3,4",
            1893898,
        ),
    ],
)
def test_published_number_of_parameters(text: str, expected: int) -> None:
    assert size(NASBench101Cell.from_str(text).to_module()) == expected


def test_vertex_channels() -> None:
    pool = "maxpool3x3"
    # Shared out over three vertices, the first ones taking what is left over.
    assert channels(f"{pool}~0+{pool}~0+{pool}~0+output~1,2,3", 128) == [0, 43, 43, 42, 0, 0, 0]
    # The input is added to the output, so it takes no share.
    assert channels(f"{pool}~0+{pool}~1+output~0,2", 128) == [0, 128, 128, 0, 0, 0, 0]
    # Vertex 1 feeds a vertex of 43 and one of 42, vertex 4 is not concatenated itself.
    text = f"{pool}~0+{pool}~1+{pool}~0+{pool}~1,3+output~2,3,4"
    assert channels(text, 128) == [0, 43, 43, 43, 42, 0, 0]
    assert channels("output~0", 128) == [0] * 7


@pytest.mark.parametrize(
    "text",
    [
        "output~0",
        "maxpool3x3~0+output~0,1",
        "conv1x1-bn-relu~0+conv3x3-bn-relu~0,1+maxpool3x3~1,2+maxpool3x3~1+output~0,3,4",
    ],
)
def test_forward_and_backward(text: str) -> None:
    torch.manual_seed(0)
    network = NASBench101Cell.from_str(text).to_module(num_classes=7, C=5, N=2)
    out = network(torch.randn(3, 3, 16, 16))
    assert out.shape == (3, 7)
    out.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_module_matches_an_explicit_sum() -> None:
    torch.manual_seed(0)
    text = "conv3x3-bn-relu~0+maxpool3x3~1+conv1x1-bn-relu~0,1+output~0,1,2,3"
    module = NASBench101Cell.from_str(text).to_module(C=7, N=1).eval().stacks[2]
    x = torch.randn(2, 7, 8, 8)
    assert module.width[1:] == [5, 5, 4, 14]  # the second stack: 14 channels of 7
    op, projection = module.operations, module.projections
    one = op["1"](projection["1"](x))
    two = op["2"](one)
    three = op["3"](one[:, :4] + projection["3"](x))
    expected = torch.cat([one, two, three], dim=1) + projection["4"](x)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(two, torch.nn.functional.max_pool2d(one, 3, 1, 1))
    # A convolution is convolution, batch normalisation, ReLU, in this order.
    assert [type(layer).__name__ for layer in op["1"]] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert op["1"][0].kernel_size == (3, 3)
    assert op["3"][0].kernel_size == projection["1"][0].kernel_size == (1, 1)


def test_resolution_is_halved_twice() -> None:
    network = NASBench101Cell.from_str("output~0").to_module(C=2, N=1)
    assert network.stacks(torch.randn(1, 2, 32, 32)).shape == (1, 8, 8, 8)


def test_repr_names_the_cell() -> None:
    network = NASBench101Cell.from_str("maxpool3x3~0+output~1").to_module(C=1, N=1)
    assert "operations=('input', 'maxpool3x3', 'output')" in repr(network)


def test_enough_channels_are_asked_for() -> None:
    cell = NASBench101Cell.from_str("maxpool3x3~0+maxpool3x3~0+output~0,1,2")
    with pytest.raises(ValueError, match=r"'C' to be at least 2.*\(got 1\)"):
        cell.to_module(C=1)
    assert cell.to_module(C=2, N=1)(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


def test_cell_is_checked() -> None:
    with pytest.raises(TypeError, match=r"'operations' to be a sequence of names"):
        NASBench101Network([[0, 1], [0, 0]], "input")
    with pytest.raises(ConversionError, match=r"'matrix' to hold a path"):
        NASBench101Network([[0, 0], [0, 0]], ["input", "output"])
