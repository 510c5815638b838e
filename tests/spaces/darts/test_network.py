from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype, DARTSNetwork
from narformer_pyg.spaces.darts.graph import OPERATIONS, reorder_nodes

V2 = DARTS_GENOTYPES["DARTS_V2"]
IMAGENET: dict[str, Any] = {"num_classes": 1000, "C": 48, "layers": 14, "stem": "imagenet"}


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def build(genotype: DARTSGenotype = V2, **arguments: Any) -> DARTSNetwork:
    torch.manual_seed(0)
    return genotype.to_module(**{"C": 4, "layers": 3, **arguments})


def uniform(operation: str) -> DARTSGenotype:
    cell = tuple((operation, source) for node in range(2, 6) for source in (0, node - 1))
    return DARTSGenotype(cell, cell)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        # The README of DARTS: "3.349MB params"; 3.349342 in logs of its training.
        ("DARTS_V2", {}, 3_349_342),
        # Counted with the authors' code, https://github.com/chenxin061/pdarts/issues/7.
        ("PDARTS", {}, 3_433_798),
        ("PDARTS", {"auxiliary": True}, 3_910_224),
        ("DARTS_V2", IMAGENET, 4_718_752),  # the README of DARTS: "4.719MB params"
        ("PC_DARTS_cifar", {}, 3_634_678),  # the README of PC-DARTS: 3.6 million
        ("PC_DARTS_image", IMAGENET, 5_342_464),  # table 2 of its paper: 5.3 million
    ],
)
def test_published_number_of_parameters(name: str, arguments: Any, expected: int) -> None:
    with torch.device("meta"):
        assert size(DARTS_GENOTYPES[name].to_module(**arguments)) == expected


@pytest.mark.parametrize("operation", OPERATIONS)
def test_forward_and_backward(operation: str) -> None:
    network = build(uniform(operation), num_classes=7, auxiliary=True, drop_path=0.3)
    logits, auxiliary = network(torch.randn(3, 3, 32, 32), return_auxiliary=True)
    assert logits.shape == auxiliary.shape == (3, 7)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_cells_channels_and_resolutions() -> None:
    network = build(layers=8)
    shapes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    network(torch.randn(1, 3, 32, 16))
    # Cells 8 // 3 and 16 // 3 are reduction cells.
    expected = [(16, 32, 16)] * 2 + [(32, 16, 8)] * 3 + [(64, 8, 4)] * 3
    assert shapes == expected
    names = [[name for name, _ in (V2.reduce if k in (2, 5) else V2.normal)] for k in range(8)]
    for cell, expected_names in zip(network.cells, names, strict=True):
        pools = [isinstance(operation, nn.MaxPool2d) for operation in cell.operations]
        assert pools == [name == "max_pool_3x3" for name in expected_names]
    # What reads the output before a reduction must halve it; nothing else does.
    halves = [hasattr(cell.preprocess[0], "convs") for cell in network.cells]
    assert halves == [False, False, False, True, False, False, True, False]


def explicit(network: DARTSNetwork, x: Tensor) -> Tensor:
    """A second way to the same numbers, for 'layers=3': normal, reduction, reduction."""
    stem = network.stem[0](x)
    outputs = [stem, stem]
    for k, cell in enumerate(network.cells):
        edges = network.normal if k == 0 else network.reduce
        states = [cell.preprocess[0](outputs[-2]), cell.preprocess[1](outputs[-1])]
        for node in range(4):
            (_, a), (_, b) = edges[2 * node : 2 * node + 2]
            first, second = cell.operations[2 * node], cell.operations[2 * node + 1]
            states.append(first(states[a]) + second(states[b]))
        outputs.append(torch.cat(states[2:6], dim=1))
    return network.classifier(outputs[-1].mean(dim=(2, 3)))


def test_network_matches_an_explicit_sum() -> None:
    for name in ("DARTS_V1", "PC_DARTS_image"):
        network = build(DARTS_GENOTYPES[name]).eval()
        x = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(network(x), explicit(network, x))


def test_operations() -> None:
    normal, reduction = build(uniform("sep_conv_5x5"), layers=3).cells[:2]
    layers = [type(layer).__name__ for block in normal.operations[0] for layer in block]
    assert layers == 2 * ["ReLU", "Conv2d", "Conv2d", "BatchNorm2d"]
    depthwise, pointwise = normal.operations[0][0][1:3]
    assert (depthwise.kernel_size, depthwise.groups, depthwise.bias) == ((5, 5), 4, None)
    assert (pointwise.kernel_size, pointwise.groups) == ((1, 1), 1)
    # Only the first half of an operation on an input of a reduction cell halves the resolution.
    strides = [[block[1].stride for block in operation] for operation in reduction.operations]
    sources = [source for _, source in uniform("sep_conv_5x5").reduce]
    assert strides == [[(2, 2) if s < 2 else (1, 1), (1, 1)] for s in sources]
    dilated = build(uniform("dil_conv_5x5")).cells[0].operations[0]
    assert (dilated[1].dilation, dilated[1].padding) == ((2, 2), (4, 4))
    pool = build(uniform("avg_pool_3x3")).cells[0].operations[0]
    # The zeros around the image are no part of an average.
    torch.testing.assert_close(pool(torch.ones(1, 4, 5, 5)), torch.ones(1, 4, 5, 5))


def test_skip_connections() -> None:
    normal, reduction = build(uniform("skip_connect"), layers=3).cells[:2]
    assert all(isinstance(operation, nn.Identity) for operation in normal.operations)
    kinds = [isinstance(operation, nn.Identity) for operation in reduction.operations]
    assert kinds == [source >= 2 for _, source in uniform("skip_connect").reduce]
    # The two convolutions see the pixels at even and at odd places.
    halve = reduction.operations[0].eval()
    x = torch.rand(1, 8, 4, 4)
    halves = [nn.functional.conv2d(x[:, :, k::2, k::2], halve.convs[k].weight) for k in (0, 1)]
    out = halve.norm(torch.cat(halves, dim=1))
    torch.testing.assert_close(halve(x), out)


def test_drop_path() -> None:
    network = build(uniform("max_pool_3x3"), drop_path=0.25).train()
    cell = network.cells[0]
    seen: list[Tensor] = []
    # With only one operation on, the sum is that operation, dropped or scaled up.
    for operation in cell.operations[1:]:
        operation.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    cell.operations[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    x = torch.rand(4000, 12, 2, 2) + 1
    out = cell(x, x, network.drop_path)[:, :4]
    ratio = (out / seen[0]).flatten(1)  # [4000, 16]
    kept = ratio[:, 0] > 0
    assert 0.71 < kept.float().mean() < 0.79  # 0.75, standard deviation 0.007
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / 0.75))
    assert (ratio[~kept] == 0).all()


def test_drop_path_spares_identities_and_evaluation() -> None:
    x = torch.randn(2, 3, 16, 16)
    # In a normal cell of identities there is nothing to drop.
    network = build(uniform("skip_connect"), layers=3).train()
    inputs = network.stem[0](x)
    cell = network.cells[0]
    assert torch.equal(cell(inputs, inputs, 0.9), cell(inputs, inputs, 0.0))
    network = build(drop_path=0.5).eval()
    expected = network(x)
    network.drop_path = 0.0
    assert torch.equal(network(x), expected)
    network.train()
    torch.testing.assert_close(network(x), network(x))
    network.drop_path = 0.5
    assert not torch.allclose(network(x), network(x))


def test_auxiliary_head() -> None:
    network = build(layers=6, auxiliary=True).eval()
    assert network.auxiliary_after == 4
    x = torch.randn(2, 3, 32, 32)
    seen: list[Tensor] = []
    network.cells[4].register_forward_hook(lambda _m, _i, out: seen.append(out))
    logits, auxiliary = network(x, return_auxiliary=True)
    assert seen[0].shape == (2, 64, 8, 8)
    assert torch.equal(network.auxiliary_head(seen[0]), auxiliary)
    assert torch.equal(network(x), logits)
    # Without the head, the network is the same.
    plain = build(layers=6).eval()
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("auxiliary_head")}
    plain.load_state_dict(state)
    assert torch.equal(plain(x), logits)


def test_auxiliary_head_asks_for_its_size() -> None:
    network = build(auxiliary=True).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    for shape, found in (((1, 3, 64, 64), "16 x 16"), ((1, 3, 16, 32), "4 x 8")):
        with pytest.raises(ValueError, match=rf"32 x 32 pixels or a little more.*got.*{found}"):
            network(torch.zeros(shape), return_auxiliary=True)
    with pytest.raises(ValueError, match=r"'return_auxiliary' to be False.*'auxiliary=True'"):
        build()(torch.zeros(1, 3, 32, 32), return_auxiliary=True)


def test_imagenet() -> None:
    network = build(stem="imagenet", num_classes=5, layers=6, auxiliary=True).eval()
    x = torch.randn(1, 3, 224, 224)
    shapes = []
    for module in (*network.stem, *network.cells):
        module.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    logits, auxiliary = network(x, return_auxiliary=True)
    assert logits.shape == auxiliary.shape == (1, 5)
    assert shapes[:3] == [(4, 56, 56), (4, 28, 28), (16, 28, 28)]
    assert shapes[-1] == (64, 7, 7)
    with pytest.raises(ValueError, match=r"H and W divisible by 32"):
        network(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ValueError, match=r"224 x 224 pixels"):
        network(torch.zeros(1, 3, 64, 64), return_auxiliary=True)


def reorder(genotype: DARTSGenotype, order: tuple[int, ...], swap: bool) -> DARTSGenotype:
    """The same cells with their nodes in another order."""

    def cell(edges: Any) -> Any:
        pairs = reorder_nodes(edges, order)
        return tuple(edge for pair in pairs for edge in (pair[::-1] if swap else pair))

    return DARTSGenotype(cell(genotype.normal), cell(genotype.reduce))


def carry_over(
    source: DARTSNetwork, target: DARTSNetwork, order: tuple[int, ...], swap: bool
) -> None:
    """Copies weights to a network whose cells have their nodes in another order."""

    def concatenated(weight: Tensor) -> Tensor:
        """Reorders weights that read a cell's output, whose channels are those of its nodes."""
        return torch.cat([weight.chunk(4, dim=1)[node - 2] for node in order], dim=1)

    state = source.state_dict()
    for k, (old, new) in enumerate(zip(source.cells, target.cells, strict=True)):
        for place, node in enumerate(order):
            for j in range(2):
                operation = old.operations[2 * (node - 2) + (1 - j if swap else j)]
                new.operations[2 * place + j].load_state_dict(operation.state_dict())
        for j, (before, after) in enumerate(zip(old.preprocess, new.preprocess, strict=True)):
            weights = before.state_dict()
            if k - 2 + j >= 0:  # the stem's output has no nodes
                convs = {name for name, weight in weights.items() if weight.dim() == 4}
                weights = {n: concatenated(w) if n in convs else w for n, w in weights.items()}
            after.load_state_dict(weights)
    target.stem.load_state_dict(source.stem.state_dict())
    head = {"weight": concatenated(state["classifier.weight"]), "bias": state["classifier.bias"]}
    target.classifier.load_state_dict(head)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("order", [(2, 3, 4, 5), (3, 2, 4, 5), (2, 4, 3, 5), (5, 4, 3, 2)])
def test_isomorphic_genotypes_are_the_same_function(order: tuple[int, ...], swap: bool) -> None:
    # Node 5 reads node 2, or, for the order that forbids it, all nodes read inputs only.
    late = [0, 1, 0, 1, 0, 1, 0, 1] if order == (5, 4, 3, 2) else [0, 1, 0, 1, 1, 0, 0, 2]
    normal = tuple(zip(("sep_conv_3x3", *OPERATIONS), late, strict=True))
    reduce = tuple(zip((*OPERATIONS, "dil_conv_3x3"), late, strict=True))
    genotype = DARTSGenotype(normal, reduce)
    other = reorder(genotype, order, swap)
    assert (other == genotype) == (order == (2, 3, 4, 5) and not swap)
    assert other.canonical() == genotype.canonical()
    first, second = build(genotype, layers=6), build(other, layers=6)
    x = torch.randn(8, 3, 16, 16)
    first(x)  # gives the normalisations something to carry over
    first.eval(), second.eval()
    if other != genotype:
        assert not torch.allclose(first(x), second(x), atol=1e-4)
    carry_over(first, second, order, swap)
    torch.testing.assert_close(first(x), second(x), rtol=1e-4, atol=1e-5)


def test_repr_names_the_genotype() -> None:
    assert f"reduce={V2.reduce}, drop_path=0.2" in repr(build(drop_path=0.2))


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), True, "0.2", None])
def test_drop_path_is_checked(value: Any) -> None:
    with pytest.raises(ValueError, match=r"'drop_path' to be a number in \[0, 1\) \(got"):
        V2.to_module(drop_path=value)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match=r"'reduce' to be a sequence of 8 pairs .* \(got 'V2'\)"):
        DARTSNetwork(V2.normal, "V2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'stem' to be 'cifar' or 'imagenet' \(got 'mnist'\)"):
        V2.to_module(stem="mnist")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'C' to be even with 'stem' 'imagenet' \(got 5\)"):
        V2.to_module(C=5, stem="imagenet")


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_shallow_networks(layers: int) -> None:
    assert build(layers=layers, C=3)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
