"""A whole block for one small graph, where calls take longer than what they compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from narformer_pyg.nn.kernels.attention import EPSILON, graph_aided_attention
from narformer_pyg.nn.kernels.door import Kernel, is_as_built, is_on
from narformer_pyg.nn.kernels.feed_forward import feed_forward, grouped_feed_forward
from narformer_pyg.nn.kernels.onednn import onednn_linear, packed_linear

# Up to here, the scores of all pairs cost less than the preparations of a sparse product.
_MAX_NODES = 32

# Adjacency and degrees, for each tensor of edges as long as it lives unchanged.
_ADJACENCY: Any = WeakIdKeyDictionary()


def adjacency(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    r"""Returns the number of edges between all nodes :math:`(|V|, |V|)`, and into each."""
    version = None if edge_index.is_inference() else (edge_index._version, num_nodes)
    known = _ADJACENCY.get(edge_index)
    if known is not None and version is not None and known[0] == version:
        return known[1]
    pairs = edge_index[1] * num_nodes + edge_index[0]
    count = torch.bincount(pairs, minlength=num_nodes**2).view(num_nodes, num_nodes).float()
    result = (count, count.sum(1, keepdim=True))
    if version is not None:
        _ADJACENCY[edge_index] = (version, result)
    return result


def _accepts(block: Any, x: Tensor, edge_index: Tensor) -> bool:
    """Whether a small graph meets a block as it was built, in evaluation."""
    if x.size(0) > _MAX_NODES or block.training or torch.is_grad_enabled() or block.ffn is None:
        return False
    conv, ffn = block.conv, block.ffn
    return (
        x.dtype == torch.float32
        and is_as_built(block)
        and is_as_built(conv)
        and graph_aided_attention.accepts(conv, x, edge_index)
        and grouped_feed_forward.accepts(ffn, x)
        and is_on(onednn_linear.name)
    )


def _run(block: Any, x: Tensor, edge_index: Tensor) -> Tensor:
    conv = block.conv
    count, degree = adjacency(edge_index, x.size(0))
    if conv.lin_d is not None:
        x = torch.addmm(conv.lin_d.bias, degree, conv.lin_d.weight.t()).sigmoid_().mul_(x)
    query = packed_linear(conv.lin_qk, x).sigmoid_()
    scale = query.size(1) ** -0.5
    score = torch.addmm(count, query, query.t(), beta=0.0, alpha=scale).mul_(count)
    score.div_(score.sum(1, keepdim=True).add_(EPSILON))
    h = packed_linear(conv.lin_l, torch.mm(score, x))
    if conv.lin_r is not None:
        h.add_(packed_linear(conv.lin_r, x))
    if conv.normalize:
        h.div_(torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp_(min=1e-12))
    if block.attention_norm is not None:
        h = _layer_norm(block.attention_norm, h)
    out = feed_forward(block.ffn, _layer_norm(block.norm, h.relu_()))
    return h.add_(out) if block.layer_scale is None else h.addcmul_(block.layer_scale, out)


def _layer_norm(norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


#: A block of NAR-Former V2 for one graph of up to 32 nodes, in evaluation on the CPU.
small_graph = Kernel("small_graph", _accepts, _run)
