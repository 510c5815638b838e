"""The Triton programs of graph-aided attention. Importing this module needs Triton."""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _work(node_of, chunk_of, num_nodes, SPLIT: tl.constexpr):
    """Returns node, chunk and slot of this program; the node is -1 where there is no work.

    Each node has a program. With SPLIT, nodes of many edges are left to the programs behind those,
    one for each chunk of their edges, with a slot of memory each.
    """
    program = tl.program_id(0).to(tl.int64)
    node, chunk, slot = program, tl.zeros_like(program), tl.zeros_like(program) - 1
    if SPLIT:
        node, chunk = tl.load(node_of + program), tl.load(chunk_of + program)
        slot = tl.where(program < num_nodes, slot, program - num_nodes)
    return node, chunk, slot


@triton.jit
def _edges(pointers, node, chunk, CHUNK: tl.constexpr):
    """Returns the first edge of a chunk and the end."""
    first = tl.load(pointers + node) + chunk * CHUNK
    return first, tl.minimum(tl.load(pointers + node + 1), first + CHUNK)


@triton.jit
def _row(matrix, node, columns, SIZE: tl.constexpr):
    return tl.load(matrix + node * SIZE + columns, mask=columns < SIZE, other=0.0).to(tl.float32)


@triton.jit
def _rows(matrix, nodes, exists, columns, SIZE: tl.constexpr):
    mask = exists[:, None] & (columns < SIZE)[None, :]
    values = tl.load(matrix + nodes[:, None] * SIZE + columns[None, :], mask=mask, other=0.0)
    return values.to(tl.float32)


@triton.jit
def attend(
    query, value, colptr, source, node_of, chunk_of, out, total, part, part_total,
    num_nodes, scale, epsilon,
    F: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """Sums s_ij v_j and s_ij over the edges of a node, and divides."""
    node, chunk, slot = _work(node_of, chunk_of, num_nodes, SPLIT)
    if node >= 0:
        columns = tl.arange(0, BLOCK)
        edge, end = _edges(colptr, node, chunk, CHUNK)
        q = _row(query, node, columns, F) * scale
        summed = tl.zeros([BLOCK], tl.float32)
        scores = tl.zeros([TILE], tl.float32)
        while edge < end:
            places = edge + tl.arange(0, TILE)
            exists = places < end
            j = tl.load(source + places, mask=exists, other=0)
            s = tl.sum(_rows(query, j, exists, columns, F) * q[None, :], axis=1)
            summed += tl.sum(_rows(value, j, exists, columns, F) * s[:, None], axis=0)
            scores += s
            edge += TILE
        score = tl.sum(scores, axis=0)
        if slot < 0:
            result = summed / (score + epsilon)
            tl.store(out + node * F + columns, result, mask=columns < F)
            tl.store(total + node, score + epsilon)
        else:
            tl.store(part + slot * F + columns, summed, mask=columns < F)
            tl.store(part_total + slot, score)


@triton.jit
def combine(
    part, part_total, out, total, node_of, chunk_of, num_nodes, num_slots, epsilon,
    F: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """Sums the chunks of a node; the program of its first chunk does so."""
    slot = tl.program_id(0).to(tl.int64)
    node = tl.load(node_of + num_nodes + slot)
    if (node >= 0) & (tl.load(chunk_of + num_nodes + slot) == 0):
        columns = tl.arange(0, BLOCK)
        summed = tl.zeros([BLOCK], tl.float32)
        scores = tl.zeros([TILE], tl.float32)
        first = slot
        more = node >= 0
        while more:
            slots = first + tl.arange(0, TILE)
            owner = tl.load(node_of + num_nodes + slots, mask=slots < num_slots, other=-1)
            exists = owner == node
            summed += tl.sum(_rows(part, slots, exists, columns, F), axis=0)
            if DIVIDE:
                scores += tl.load(part_total + slots, mask=exists, other=0.0)
            more = tl.sum(exists.to(tl.int32), axis=0) == TILE
            first += TILE
        if DIVIDE:
            score = tl.sum(scores, axis=0) + epsilon
            summed = summed / score
            tl.store(total + node, score)
        tl.store(out + node * F + columns, summed, mask=columns < F)


@triton.jit
def weighted_mean(grad, out, mean, F: tl.constexpr, BLOCK: tl.constexpr):
    """Multiplies a gradient by the output: the mean over edges of what it says of each value."""
    node = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    product = _row(grad, node, columns, F) * _row(out, node, columns, F)
    tl.store(mean + node, tl.sum(product, axis=0))


@triton.jit
def _walk(
    query, value, grad, total, mean, neighbors, edge, end,
    q, v, g, own_total, own_mean, grad_q, grad_v, columns,
    F: tl.constexpr, TILE: tl.constexpr, TARGET: tl.constexpr, SOURCE: tl.constexpr,
):  # fmt: skip
    """Adds the gradients that edges bring to a node as their target, as their source or as both.

    The queries of the node come multiplied by the scale of scores.
    """
    while edge < end:
        places = edge + tl.arange(0, TILE)
        exists = places < end
        j = tl.load(neighbors + places, mask=exists, other=0)
        q_j = _rows(query, j, exists, columns, F)
        d = tl.zeros([TILE], tl.float32)
        if TARGET:
            v_j = _rows(value, j, exists, columns, F)
            d += (tl.sum(v_j * g[None, :], axis=1) - own_mean) / own_total
        if SOURCE:
            g_j = _rows(grad, j, exists, columns, F)
            t_j = tl.load(total + j, mask=exists, other=1.0)
            m_j = tl.load(mean + j, mask=exists, other=0.0)
            d += (tl.sum(g_j * v[None, :], axis=1) - m_j) / t_j
            alpha = tl.sum(q_j * q[None, :], axis=1) / t_j
            grad_v += tl.sum(g_j * alpha[:, None], axis=0)
        # Rows of missing edges are zero, whatever d is there.
        grad_q += tl.sum(q_j * d[:, None], axis=0)
        edge += TILE
    return grad_q, grad_v


@triton.jit
def gradients(
    query, value, grad, total, mean, colptr, source, rowptr, target, is_symmetric,
    node_of, chunk_of, grad_query, grad_value, part_query, part_value, num_nodes, scale,
    F: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """Computes the gradients of query and value of a node, which is target and source of edges."""
    node, chunk, slot = _work(node_of, chunk_of, num_nodes, SPLIT)
    if node >= 0:
        columns = tl.arange(0, BLOCK)
        q = _row(query, node, columns, F) * scale
        v, g = _row(value, node, columns, F), _row(grad, node, columns, F)
        t, m = tl.load(total + node), tl.load(mean + node)
        grad_q = tl.zeros([BLOCK], tl.float32)
        grad_v = tl.zeros([BLOCK], tl.float32)
        edge, end = _edges(colptr, node, chunk, CHUNK)
        if tl.load(is_symmetric) != 0:  # both roles in one walk
            grad_q, grad_v = _walk(
                query, value, grad, total, mean, source, edge, end, q, v, g, t, m, grad_q, grad_v,
                columns, F, TILE, True, True,
            )  # fmt: skip
        else:
            grad_q, grad_v = _walk(
                query, value, grad, total, mean, source, edge, end, q, v, g, t, m, grad_q, grad_v,
                columns, F, TILE, True, False,
            )  # fmt: skip
            edge, end = _edges(rowptr, node, chunk, CHUNK)
            grad_q, grad_v = _walk(
                query, value, grad, total, mean, target, edge, end, q, v, g, t, m, grad_q, grad_v,
                columns, F, TILE, False, True,
            )  # fmt: skip
        if slot < 0:
            grad_q *= scale
            tl.store(grad_query + node * F + columns, grad_q, mask=columns < F)
            tl.store(grad_value + node * F + columns, grad_v, mask=columns < F)
        else:
            tl.store(part_query + slot * F + columns, grad_q * scale, mask=columns < F)
            tl.store(part_value + slot * F + columns, grad_v, mask=columns < F)
