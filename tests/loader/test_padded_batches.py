from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from narformer_pyg.datasets import NASBench201
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.loader.padded_batches import PaddedBatches, _rung
from narformer_pyg.nn.models import NARFormerV2

NAMES = ["x", "static", "y"]


def graphs(sizes: list[int], edges_per_node: int = 2) -> list[Data]:
    torch.manual_seed(0)
    return [
        Data(
            x=torch.randn(n, 8),
            edge_index=torch.randint(n, (2, edges_per_node * n - n // 2)),
            static=torch.rand(1, 4),
            y=torch.rand(1, 2),
        )
        for n in sizes
    ]


@pytest.mark.parametrize("readout", ["sum", "fusion"])
@pytest.mark.parametrize("sizes", [[3, 9, 5, 1, 14, 2, 7], [6] * 7], ids=["varied", "equal"])
def test_padding_changes_no_prediction_and_no_gradient(sizes: list[int], readout: str) -> None:
    loader = DeviceLoader(graphs(sizes))
    batches = PaddedBatches(loader, NAMES)
    assert batches.pads == (sizes[0] != sizes[1])
    model = (
        NARFormerV2(
            8, 16, num_blocks=2, out_channels=2, num_groups=2, static_channels=4, readout=readout
        )
        .eval()
        .double()
    )
    for index in torch.tensor([[0, 1, 2], [6, 6, 4], [3, 3, 3]]):
        shape = batches.shape_of(index)
        results = []
        for batch in (batches.cut(index, shape), loader.collate(index)):
            x, static = batch.x.double(), batch.static.double()
            out = model(x, batch.edge_index, batch.batch, static, batch.num_graphs)[:3]
            gradients = torch.autograd.grad((out / batch.y).square().sum(), model.parameters())
            results.append([out, batch.y, *gradients])
        assert shape.nodes == batches.cut(index, shape).num_nodes
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_equal_sizes_are_the_batches_of_the_loader() -> None:
    loader = DeviceLoader(NASBench201())
    index = torch.tensor([5, 9, 5])
    batches = PaddedBatches(loader, ["op", "position", "y"])
    batch, expected = batches.cut(index, batches.shape_of(index)), loader.collate(index)
    assert batch.num_graphs == 3
    for name in ("op", "position", "y", "edge_index", "batch"):
        assert torch.equal(batch[name], expected[name]), name


def test_edges_of_varied_number_on_equal_nodes() -> None:
    items = graphs([4, 4, 4])
    items[1].edge_index = items[1].edge_index[:, :2]
    loader = DeviceLoader(items)
    batches = PaddedBatches(loader, NAMES)
    index = torch.tensor([1, 0])
    batch, expected = batches.cut(index, batches.shape_of(index)), loader.collate(index)
    num_edges = expected.num_edges
    assert batch.num_nodes == 12
    assert torch.equal(batch.edge_index[:, :num_edges], expected.edge_index)
    assert (batch.edge_index[:, num_edges:] >= 8).all()


def test_few_shapes_and_one_for_a_giant() -> None:
    torch.manual_seed(0)
    sizes = torch.randint(60, 200, (300,)).tolist()
    batches = PaddedBatches(DeviceLoader(graphs([*sizes, 5000])), NAMES)
    order = torch.randperm(300)
    shapes = {batches.shape_of(index) for index in order.split(16)[:-1]}
    assert len(shapes) <= 5
    giant = batches.shape_of(torch.cat([order[:15], torch.tensor([300])]))
    assert 5000 < giant.nodes < 1.3 * (5000 + 16 * 200)
    assert giant not in shapes


def test_no_edges_at_all() -> None:
    items = [Data(x=torch.randn(n, 8), edge_index=torch.empty(2, 0).long()) for n in (2, 3)]
    batches = PaddedBatches(DeviceLoader(items), ["x"])
    index = torch.tensor([0, 1])
    assert batches.cut(index, batches.shape_of(index)).edge_index.shape == (2, 0)


def test_rungs() -> None:
    factors = torch.linspace(0.01, 40, 5000).tolist()
    assert all(factor <= _rung(factor) <= 1.25 * factor for factor in factors)
    assert len({_rung(factor) for factor in factors if 0.5 < factor <= 2}) == 8


def test_refuses_what_it_cannot_pad() -> None:
    items = graphs([3, 4])
    with pytest.raises(ValueError, match=r"got none of z"):
        PaddedBatches(DeviceLoader(items), ["x", "z"])
    for i, item in enumerate(items):
        item.steps = torch.arange(i + 1)
    with pytest.raises(ValueError, match=r"'steps'"):
        PaddedBatches(DeviceLoader(items), ["x", "steps"])
