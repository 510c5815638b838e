"""With torch-scatter (``pip install torch-scatter --no-build-isolation``) and without it."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric import EdgeIndex

from narformer_pyg.nn import GraphAidedAttentionConv, SoftmaxAttentionConv
from narformer_pyg.nn.models import create_model
from narformer_pyg.nn.readout import segment_mean, segment_sum

pytestmark = pytest.mark.skipif(
    not torch_geometric.typing.WITH_TORCH_SCATTER, reason="needs torch-scatter"
)


def run(module: torch.nn.Module, *args: Tensor) -> tuple[Tensor, ...]:
    module.eval()
    out = module(*args)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    return out, *torch.autograd.grad(out, list(module.parameters()), weight, allow_unused=True)


def edges(num_nodes: int, num_edges: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


def assert_equal_with_and_without(
    monkeypatch: pytest.MonkeyPatch, module: torch.nn.Module, *args: Tensor
) -> None:
    results = []
    for installed in (True, False):
        monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", installed)
        results.append(run(module, *args))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("layer", [GraphAidedAttentionConv, SoftmaxAttentionConv])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_layers_over_messages(
    layer: type[torch.nn.Module], is_sorted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = layer(8, 8)
    module.register_message_forward_hook(lambda module, inputs, output: None)  # not fused
    edge_index = edges(12, 30)
    if is_sorted:
        edge_index = EdgeIndex(edge_index, sparse_size=(12, 12)).sort_by("col")[0]
    assert_equal_with_and_without(monkeypatch, module, torch.randn(12, 8), edge_index)


@pytest.mark.parametrize("model", ["narformer_v2", "gcn", "gat", "gin", "graphsage"])
@pytest.mark.parametrize("readout", ["fusion", "sum", "mean"])
def test_models(model: str, readout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = create_model(model, 8, hidden_channels=16, num_blocks=2, readout=readout)
    x, batch = torch.randn(12, 8), torch.arange(12) // 4
    edge_index = torch.cat([edges(4, 6) + 4 * i for i in range(3)], dim=1)
    assert_equal_with_and_without(monkeypatch, module, x, edge_index, batch)


def test_readouts_equal_torch_scatter() -> None:
    import torch_scatter

    x, batch = torch.randn(20, 6), torch.arange(20) // 5
    ptr = torch.arange(0, 21, 5)
    torch.testing.assert_close(segment_sum(x, batch, 4), torch_scatter.segment_csr(x, ptr))
    mean = torch_scatter.scatter(x, batch, dim=0, reduce="mean")
    torch.testing.assert_close(segment_mean(x, batch, 4), mean)
