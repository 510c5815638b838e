from __future__ import annotations

import numpy as np
import pytest

from narformer_pyg.convert import from_nasbench101, to_data
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench101Cell

# The Inception-like cell of the benchmark's documentation.
MATRIX = [
    [0, 1, 1, 1, 0, 1, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0],
]
NAMES = [
    "input", "conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu",
    "maxpool3x3", "output",
]  # fmt: skip
TEXT = (
    "conv1x1-bn-relu~0+conv3x3-bn-relu~0+conv3x3-bn-relu~0+conv3x3-bn-relu~3+maxpool3x3~0"
    "+output~1,2,4,5"
)


@pytest.mark.parametrize("matrix", [MATRIX, np.array(MATRIX), np.array(MATRIX, dtype=float)])
def test_from_nasbench101(matrix: object) -> None:
    data = from_nasbench101(matrix, NAMES)
    assert str(data) == "NASBench101Data(edge_index=[2, 9], op=[7], position=[7], num_nodes=7)"
    assert data.op.tolist() == [0, 1, 2, 2, 2, 3, 4]
    assert data.position.tolist() == list(range(7))
    assert data.edge_index.tolist() == [
        [0, 0, 0, 3, 0, 1, 2, 4, 5],
        [1, 2, 3, 4, 5, 6, 6, 6, 6],
    ]


def test_dangling_vertices_are_no_nodes() -> None:
    matrix = np.array(MATRIX)
    matrix[3, 4] = 0
    assert from_nasbench101(matrix, NAMES).op.tolist() == [0, 1, 2, 3, 4]


def test_from_nasbench101_rejects() -> None:
    with pytest.raises(ConversionError, match=r"upper triangular"):
        from_nasbench101(np.transpose(MATRIX), NAMES)
    with pytest.raises(ConversionError, match=r"got 'conv3x3'"):
        from_nasbench101(MATRIX, [*NAMES[:2], "conv3x3", *NAMES[3:]])
    with pytest.raises(TypeError, match=r"'operations' to be a sequence of names"):
        from_nasbench101(MATRIX, "input,output")


@pytest.mark.parametrize(
    "architecture",
    [
        (MATRIX, NAMES),
        [np.array(MATRIX), tuple(NAMES)],
        TEXT,
        NASBench101Cell.from_str(TEXT),
        from_nasbench101(MATRIX, NAMES),
    ],
)
def test_to_data(architecture: object) -> None:
    data, expected = to_data(architecture), from_nasbench101(MATRIX, NAMES)
    assert data.op.tolist() == expected.op.tolist()
    assert data.edge_index.tolist() == expected.edge_index.tolist()


def test_to_data_tells_the_spaces_apart() -> None:
    assert to_data("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|").num_nodes == 8
    with pytest.raises(ConversionError, match=r"3 feature maps joined by '\+'"):
        to_data("maxpool3x3~0")
    with pytest.raises(ConversionError, match=r"among conv1x1-bn-relu.*got 'maxpool'"):
        to_data("maxpool~0+output~1")
    with pytest.raises(ConversionError, match=r"at vertex 1.*got 'max~pool~0'"):
        to_data("max~pool~0+output~1")


@pytest.mark.parametrize("architecture", [5, None, (MATRIX,), (MATRIX, NAMES, 3)])
def test_to_data_rejects(architecture: object) -> None:
    with pytest.raises(ConversionError, match=r"a pair \(matrix, operations\).*got (int|None|tup)"):
        to_data(architecture)


def test_a_malformed_pair_is_a_conversion_error() -> None:
    for pair in (("a", "b"), (MATRIX, 5), (5, NAMES), (MATRIX, MATRIX)):
        with pytest.raises(ConversionError):
            to_data(pair)
