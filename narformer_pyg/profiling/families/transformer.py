"""Small vision transformers."""

from __future__ import annotations

import math

import numpy as np

from narformer_pyg.profiling.families.graph_builder import GraphBuilder, Value


def vit(g: GraphBuilder) -> Value:
    """`ViT <https://arxiv.org/abs/2010.11929>`_: pre-norm blocks on the patches of an image."""
    patch = g.pick(16, 16, 32)
    head_dim, heads = g.pick(16, 32, 32, 64), max(1, round(g.channels(192) / 32))
    dim = head_dim * heads
    x = g.conv(g.input, dim, patch, stride=patch, pad=0)
    tokens = math.prod(x.shape[2:])
    x = g.transpose(g.reshape(x, 1, dim, tokens), 0, 2, 1)
    class_token = g.pick(True, False)
    if class_token:
        x = g.concat([g.weight(1, 1, dim), x], axis=1)
    x = g.node("Add", [x, g.weight(*x.shape)], x.shape)
    fused = g.pick(True, False)
    for _ in range(g.between(2, 10)):
        x = g.add(x, _attention(g, g.layer_norm(x), heads, fused))
        hidden = dim * g.pick(1, 2, 3, 4, 4)
        y = g.activation(g.linear_tokens(g.layer_norm(x), hidden), "gelu")
        x = g.add(x, g.linear_tokens(y, dim))
    x = g.layer_norm(x)
    if class_token:
        x = g.node("Gather", [x, g.constant(0, np.int64)], (1, dim), axis=1)
    else:
        x = g.node("ReduceMean", [x], (1, dim), axes=[1], keepdims=0)
    return g.linear(x, g.pick(10, 100, 1000))


def _attention(g: GraphBuilder, x: Value, heads: int, fused: bool) -> Value:
    """Multi-head self-attention, its three projections fused (as in timm) or apart."""
    _, tokens, dim = x.shape
    head_dim = dim // heads
    if fused:
        qkv = g.reshape(g.linear_tokens(x, 3 * dim), 1, tokens, 3, heads, head_dim)
        qkv = g.transpose(qkv, 2, 0, 3, 1, 4)
        q, k, v = (
            g.node("Gather", [qkv, g.constant(i, np.int64)], qkv.shape[1:], axis=0)
            for i in range(3)
        )
        k = g.transpose(k, 0, 1, 3, 2)
    else:
        projected = [
            g.reshape(g.linear_tokens(x, dim), 1, tokens, heads, head_dim) for _ in range(3)
        ]
        q, v = (g.transpose(projected[i], 0, 2, 1, 3) for i in (0, 2))
        k = g.transpose(projected[1], 0, 2, 3, 1)
    q = g.node("Mul", [q, g.constant(head_dim**-0.5, np.float32)], q.shape)
    scores = g.matmul(q, k)  # [1, heads, tokens, tokens]
    out = g.matmul(g.node("Softmax", [scores], scores.shape, axis=-1), v)
    out = g.reshape(g.transpose(out, 0, 2, 1, 3), 1, tokens, dim)
    return g.linear_tokens(out, dim)
