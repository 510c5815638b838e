"""NAS-Bench-101 cells as three arrays of small integers, for computations on all of them at once.

A cell is a row :obj:`(vertices, edge_bits, op_code)`, as :attr:`NASBench101Cell.code` gives it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from narformer_pyg.spaces.nasbench101.graph import MAX_EDGES, MAX_VERTICES

#: The operations by their digit in :obj:`op_code`, in the benchmark's own order.
DIGITS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
#: The value of the attribute :obj:`op` of a graph for each digit; the input's is 0.
DIGIT_TO_OP = (2, 1, 3)
OUTPUT_OP = 4


class UnpackedCells(NamedTuple):
    """Cells in arrays of equal shape, padded to seven vertices.

    Args:
        vertices: The number of vertices: int64, :obj:`[num_cells]`.
        adjacency: The edges from source to target: bool, :obj:`[num_cells, 7, 7]`.
        op: The operation ids, -1 for no vertex: int8, :obj:`[num_cells, 7]`.
    """

    vertices: np.ndarray
    adjacency: np.ndarray
    op: np.ndarray


def unpack_codes(vertices: Any, edge_bits: Any, op_code: Any) -> UnpackedCells:
    """Unpacks arrays of codes, :obj:`[num_cells]` each, and checks that each row is a cell.

    Raises:
        TypeError: If an array is not of integers.
        ValueError: If the arrays are not vectors of the same length, or a row is not a cell: too
            many vertices or edges, bits or digits beyond the vertices, or a vertex that is on no
            path from input to output.
    """
    vertices = _check_array("vertices", vertices)
    edge_bits = _check_array("edge_bits", edge_bits)
    op_code = _check_array("op_code", op_code)
    sizes = [len(vertices), len(edge_bits), len(op_code)]
    if len(set(sizes)) > 1:
        raise ValueError(
            "Expected 'vertices', 'edge_bits' and 'op_code' to have one entry for each cell "
            f"(got {', '.join(map(str, sizes))} entries)"
        )
    inside = (vertices >= 2) & (vertices <= MAX_VERTICES)
    _check_rows(inside, "vertices", vertices, f"between 2 and {MAX_VERTICES}")
    below = (edge_bits >= 0) & (edge_bits < 1 << vertices * (vertices - 1) // 2)
    _check_rows(below, "edge_bits", edge_bits, "without bits of other than the cell's vertices")
    below = (op_code >= 0) & (op_code < 3 ** (vertices - 2))
    _check_rows(below, "op_code", op_code, "without digits of other than the cell's vertices")

    num = len(vertices)
    adjacency = np.zeros((num, MAX_VERTICES, MAX_VERTICES), dtype=bool)
    for y in range(1, MAX_VERTICES):
        for x in range(y):
            adjacency[:, x, y] = edge_bits >> (x + y * (y - 1) // 2) & 1
    few = adjacency.sum(axis=(1, 2)) <= MAX_EDGES
    _check_rows(few, "edge_bits", edge_bits, f"at most {MAX_EDGES} edges")
    # In topological order, a predecessor and a successor each put every vertex on a full path.
    place = np.arange(MAX_VERTICES)
    entered = adjacency.any(axis=1) | (place == 0) | (place >= vertices[:, None])
    left = adjacency.any(axis=2) | (place >= vertices[:, None] - 1)
    on_paths = (entered & left).all(axis=1)
    what = "a graph whose vertices are all on a path from input to output"
    _check_rows(on_paths, "edge_bits", edge_bits, what)

    op = np.full((num, MAX_VERTICES), -1, dtype=np.int8)
    op[:, 0] = 0
    op[np.arange(num), vertices - 1] = OUTPUT_OP
    to_op = np.array(DIGIT_TO_OP, dtype=np.int8)
    for v in range(1, MAX_VERTICES - 1):
        exponent = vertices - 2 - v  # how many operations come after that of vertex v
        inner = exponent >= 0
        op[inner, v] = to_op[op_code[inner] // 3 ** exponent[inner] % 3]
    return UnpackedCells(vertices, adjacency, op)


@functools.cache
def all_edge_bits() -> tuple[list[tuple[int, int]], np.ndarray]:
    """Returns all graphs of the space without operations, and the running number of cells.

    Returns:
        The 6,472 pairs :obj:`(vertices, edge_bits)` of upper triangular matrices, isomorphic ones
        included, in ascending order; and the running total of the ways to place operations on
        them: int64, :obj:`[6472]`.
    """
    graphs: list[tuple[int, int]] = []
    for n in range(2, MAX_VERTICES + 1):
        rows = [np.arange(1, 1 << y, dtype=np.int64) << y * (y - 1) // 2 for y in range(1, n)]
        # Every vertex but the input has a predecessor; edges are limited as vertices are added.
        bits = np.zeros(1, dtype=np.int64)
        for row in rows:
            bits = (bits[:, None] | row).ravel()
            bits = bits[_popcount(bits) <= MAX_EDGES]
        for x in range(n - 1):
            outgoing = sum(1 << x + y * (y - 1) // 2 for y in range(x + 1, n))
            bits = bits[bits & outgoing > 0]
        graphs += [(n, int(b)) for b in np.sort(bits)]
    ends = np.cumsum([3 ** (n - 2) for n, _ in graphs])
    ends.flags.writeable = False  # shared by all callers
    return graphs, ends


def _popcount(bits: np.ndarray) -> np.ndarray:
    count = np.zeros_like(bits)
    for i in range(MAX_VERTICES * (MAX_VERTICES - 1) // 2):
        count += bits >> i & 1
    return count


def vertex_channels(adjacency: np.ndarray, vertices: np.ndarray, out_channels: int) -> np.ndarray:
    r"""Returns the channels that each intermediate vertex computes: int64, :obj:`[num_cells, 7]`.

    The vertices that the output concatenates share the module's channels evenly, and the first
    ones take one more each where there is a remainder; any other vertex has as many channels as the
    largest vertex that it feeds. Input, output and padding have zero.
    """
    concatenated = adjacency[np.arange(len(vertices)), :, vertices - 1]  # [num_cells, 7]
    concatenated[:, 0] = False  # the input is added, not concatenated
    degree = np.maximum(concatenated.sum(axis=1), 1)[:, None]
    is_larger = concatenated.cumsum(axis=1) <= out_channels % degree
    channels = np.where(concatenated, out_channels // degree + is_larger, 0)
    for v in reversed(range(1, MAX_VERTICES - 2)):
        fed = (channels[:, v + 1 :] * adjacency[:, v, v + 1 :]).max(axis=1)
        channels[:, v] = np.where(concatenated[:, v], channels[:, v], fed)
    return channels


def _check_array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1:
        raise ValueError(f"Expected '{name}' to be a vector (got shape {list(array.shape)})")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"Expected '{name}' to hold integers (got {array.dtype})")
    return array.astype(np.int64)


def _check_rows(valid: np.ndarray, name: str, values: np.ndarray, what: str) -> None:
    if not valid.all():
        row = int(valid.argmin())
        raise ValueError(f"Expected '{name}' to be {what} (got {int(values[row])} in row {row})")
