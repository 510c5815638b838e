"""NAR-Former V2 with dense matrices, from its formulas and the weight names of the release."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from narformer_pyg.nn import FusionReadout, GroupedFeedForward
from narformer_pyg.nn.models import NARFormerV2

Weights = Mapping[str, Tensor]


def adjacency(edge_index: Tensor, num_nodes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A[i, j] is the number of edges from j to i."""
    out = torch.zeros(num_nodes, num_nodes, dtype=dtype)
    for source, target in edge_index.t().tolist():
        out[target, source] += 1
    return out


def part(weights: Weights, prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: w for key, w in weights.items() if key.startswith(prefix)}


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    out = x @ weights[f"{name}.weight"].t()
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention_weights(weights: Weights, h: Tensor, adj: Tensor) -> Tensor:
    query = torch.sigmoid(linear(weights, "lin_qk", h))
    scores = query @ query.t() / math.sqrt(h.size(1)) * adj
    return scores / (scores.sum(dim=1, keepdim=True) + 1e-6)


def gate(weights: Weights, x: Tensor, adj: Tensor) -> Tensor:
    if "lin_d.weight" not in weights:
        return x
    return torch.sigmoid(linear(weights, "lin_d", adj.sum(dim=1, keepdim=True))) * x


def attention(weights: Weights, x: Tensor, adj: Tensor, normalize: bool = True) -> Tensor:
    h = gate(weights, x, adj)
    z = linear(weights, "lin_l", attention_weights(weights, h, adj) @ h)
    if "lin_r.weight" in weights:
        z = z + linear(weights, "lin_r", h)
    return z / z.norm(dim=1, keepdim=True).clamp(min=1e-12) if normalize else z


def grouped_linear(weights: Weights, name: str, x: Tensor) -> list[Tensor]:
    w, b = weights[f"{name}.weights"], weights[f"{name}.bias"]
    groups = torch.split(x, x.size(1) // len(w), dim=1)
    return [groups[g] @ w[g] + b[g] for g in range(len(w))]


def grouped_feed_forward(weights: Weights, x: Tensor) -> Tensor:
    for name in ("net.0", "net.3"):
        groups = grouped_linear(weights, name, x)
        x = torch.cat([layer_norm(weights, f"{name}.normalization_fn", g) for g in groups], dim=1)
        if name == "net.0":
            x = x.clamp(min=0)
    return x


def block(weights: Weights, i: int, x: Tensor, adj: Tensor) -> Tensor:
    h = attention(part(weights, f"gnn_layers.{i}."), x, adj).clamp(min=0)
    ffn = part(weights, f"FFN_layers.{i}.")
    out = grouped_feed_forward(part(ffn, "fn."), layer_norm(ffn, "norm", h))
    return h + weights[f"layer_scale.{i}"] * out


def model(weights: Weights, x: Tensor, edge_index: Tensor, static: Tensor | None = None) -> Tensor:
    """The prediction [T] of one graph, whose edges are used in both directions."""
    adj = adjacency(edge_index, len(x), x.dtype)
    adj = adj + adj.t()
    means = []
    for i in range(sum(key.startswith("layer_scale.") for key in weights)):
        x = block(weights, i, x, adj)
        means.append(x.mean(dim=0))
    if "fusion_mlp.0.weight" in weights:
        hidden = linear(weights, "fusion_mlp.0", torch.cat(means)).clamp(min=0)
        share = torch.sigmoid(linear(weights, "fusion_mlp.2", hidden))
        z = torch.stack([share[b] * m for b, m in enumerate(means)]).sum(dim=0)
    else:
        z = x.sum(dim=0)
    if static is not None:
        z = torch.cat([z, linear(weights, "norm_sf_linear", static).clamp(min=0)])
    for name in ("fc_1", "fc_2"):
        z = linear(weights, name, z).clamp(min=0)
    out = linear(weights, "predictor", z)
    return -torch.log(torch.sigmoid(out))


def ffn_weights(ffn: GroupedFeedForward) -> dict[str, Tensor]:
    out = {}
    for name, lin, norm in (
        ("net.0", ffn.lin_1, ffn.norm_1),
        ("net.3", ffn.lin_2, ffn.norm_2),
    ):
        out[f"{name}.weights"] = lin.weights
        out[f"{name}.bias"] = lin.bias
        out[f"{name}.normalization_fn.weight"] = norm.weight
        out[f"{name}.normalization_fn.bias"] = norm.bias
    return out


def released_weights(narformer: NARFormerV2) -> dict[str, Tensor]:
    """The weights of a model under the names of the authors' release."""
    out: dict[str, Tensor] = {}

    def add(prefix: str, module: nn.Module) -> None:
        out.update({f"{prefix}.{name}": w for name, w in module.named_parameters()})

    for i, layer in enumerate(narformer.blocks):
        add(f"gnn_layers.{i}", layer.conv)
        add(f"FFN_layers.{i}.norm", layer.norm)
        out.update({f"FFN_layers.{i}.fn.{k}": w for k, w in ffn_weights(layer.ffn).items()})
        out[f"layer_scale.{i}"] = layer.layer_scale
    if isinstance(narformer.readout, FusionReadout):
        add("fusion_mlp.0", narformer.readout.lin_1)
        add("fusion_mlp.2", narformer.readout.lin_2)
    if narformer.lin_static is not None:
        add("norm_sf_linear", narformer.lin_static)
    add("fc_1", narformer.head.lin_1)
    add("fc_2", narformer.head.lin_2)
    add("predictor", narformer.head.lin_3)
    return {name: w.detach().clone() for name, w in out.items()}


def randomize(module: nn.Module, seed: int = 0, scale: float = 0.5) -> nn.Module:
    """Draws all parameters, so that none is at a value that hides it (zero, one or 1e-4)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.double))
    return module
