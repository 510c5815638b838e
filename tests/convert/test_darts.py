from __future__ import annotations

import pytest

from narformer_pyg.convert import from_darts, to_data
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype

V1 = DARTS_GENOTYPES["DARTS_V1"]


@pytest.mark.parametrize(
    "genotype", [V1, str(V1), str(V1).replace("range(2, 6)", "[2, 3, 4, 5]"), f"\n  {V1}\n"]
)
def test_from_darts(genotype: str | DARTSGenotype) -> None:
    data = from_darts(genotype)
    assert str(data) == "DARTSData(edge_index=[2, 42], op=[29], position=[29], num_nodes=29)"
    assert data.op.tolist() == V1.to_data().op.tolist()
    for again in (to_data(genotype), to_data(data)):
        assert again.op.tolist() == data.op.tolist()
        assert again.edge_index.tolist() == data.edge_index.tolist()


def test_from_darts_rejects() -> None:
    with pytest.raises(ConversionError, match=r"got 'max_pool_5x5' at node 5"):
        from_darts(str(V1).replace("avg_pool_3x3", "max_pool_5x5"))
    with pytest.raises(TypeError, match=r"DARTS' notation or a DARTSGenotype \(got int: 5\)"):
        from_darts(5)  # type: ignore[arg-type]


def test_to_data_tells_the_spaces_apart() -> None:
    # Whatever begins like a genotype is read as one, so that the error is about genotypes.
    with pytest.raises(ConversionError, match=r"'text' to be of the form Genotype\(normal="):
        to_data("Genotype(normal")
    with pytest.raises(ConversionError, match=r"'arch_str' to describe 3 feature maps"):
        to_data("Genotypes")
    with pytest.raises(ConversionError, match=r"a genotype in DARTS' notation.*got int: 5"):
        to_data(5)
