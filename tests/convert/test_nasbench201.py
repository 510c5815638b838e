from __future__ import annotations

import pytest

from narformer_pyg.convert import from_nasbench201
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench201Cell

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"


@pytest.mark.parametrize("arch", [ARCH, NASBench201Cell.from_str(ARCH)])
def test_from_nasbench201(arch: str | NASBench201Cell) -> None:
    data = from_nasbench201(arch)
    assert str(data) == "NASBench201Data(edge_index=[2, 10], op=[8], position=[8], num_nodes=8)"
    assert data.op.tolist() == [0, 2, 2, 3, 4, 1, 5, 6]
    assert data.edge_index.tolist() == [
        [0, 0, 1, 0, 1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6, 6, 7, 7, 7],
    ]


def test_from_nasbench201_rejects() -> None:
    with pytest.raises(ConversionError, match=r"got 'max_pool_3x3'"):
        from_nasbench201(ARCH.replace("avg_pool", "max_pool"))
    with pytest.raises(TypeError, match=r"architecture string or a NASBench201Cell \(got int: 5\)"):
        from_nasbench201(5)  # type: ignore[arg-type]
