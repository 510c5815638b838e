"""Graph algorithms on the cells of NAS-Bench-101, in plain Python on small integers.

A graph is a list of predecessor masks: bit :obj:`x` of entry :obj:`y` says that there is an edge
:obj:`x -> y`. Vertex 0 is the input, the last one the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import md5


def useful_vertices(predecessors: Sequence[int]) -> list[int]:
    """Returns the vertices on a path from input to output, in order; none if there is no path.

    Args:
        predecessors: The graph, its vertices in topological order.
    """
    n = len(predecessors)
    reached = 1  # from the input
    for y in range(1, n):
        if predecessors[y] & reached:
            reached |= 1 << y
    useful = 1 << n - 1  # to the output
    for y in reversed(range(n)):
        if useful >> y & 1:
            useful |= predecessors[y]
    useful &= reached
    return [y for y in range(n) if useful >> y & 1] if useful & 1 else []


def select_vertices(predecessors: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Returns the subgraph of some vertices, which are numbered anew in the given order."""
    return [sum((predecessors[y] >> x & 1) << i for i, x in enumerate(kept)) for y in kept]


def topological_order(predecessors: Sequence[int]) -> list[int]:
    """Returns the vertices as early in number as the edges allow, the output last.

    Returns an empty list if there is a cycle.
    """
    n = len(predecessors)
    order: list[int] = []
    done = 0
    while len(order) < n:
        candidates = range(n - 1) if len(order) < n - 1 else range(n - 1, n)
        for y in candidates:
            if not done >> y & 1 and not predecessors[y] & ~done:
                order.append(y)
                done |= 1 << y
                break
        else:
            return []
    return order


def topological_orders(predecessors: Sequence[int]) -> Iterator[list[int]]:
    """Yields every topological order of a graph without vertices off the paths."""
    n = len(predecessors)
    order = [0]

    def extend(done: int) -> Iterator[list[int]]:
        if len(order) == n - 1:
            yield [*order, n - 1]
            return
        for y in range(1, n - 1):
            if not done >> y & 1 and not predecessors[y] & ~done:
                order.append(y)
                yield from extend(done | 1 << y)
                order.pop()

    return extend(1)


def ancestors(predecessors: Sequence[int]) -> list[int]:
    """Returns for each vertex the mask of those with a path to it, itself included."""
    masks: list[int] = []
    for y, direct in enumerate(predecessors):
        mask = 1 << y
        for x in range(y):
            if direct >> x & 1:
                mask |= masks[x]
        masks.append(mask)
    return masks


def module_hash(predecessors: Sequence[int], labels: Sequence[int]) -> str:
    """Returns the benchmark's fingerprint of a labelled graph, the same for isomorphic ones.

    A vertex starts as the MD5 digest of the text of its triple of out-degree, in-degree and label.
    As many times as there are vertices, all digests are replaced at once by that of the sorted
    digests of the predecessors, those of the successors and the vertex's own, joined by bars. The
    fingerprint is the digest of the text of the sorted list. Section 2.1 of `"NAS-Bench-101:
    Towards Reproducible Neural Architecture Search" <https://arxiv.org/abs/1902.09635>`_.
    """
    n = len(predecessors)
    sources = [[x for x in range(n) if predecessors[y] >> x & 1] for y in range(n)]
    targets = [[y for y in range(n) if predecessors[y] >> x & 1] for x in range(n)]
    digests = [_digest(str((len(targets[v]), len(sources[v]), labels[v]))) for v in range(n)]
    for _ in range(n):
        digests = [
            _digest(
                "|".join(
                    (
                        "".join(sorted(digests[x] for x in sources[v])),
                        "".join(sorted(digests[y] for y in targets[v])),
                        digests[v],
                    )
                )
            )
            for v in range(n)
        ]
    return _digest(str(sorted(digests)))


def _digest(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()
