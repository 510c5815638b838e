from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from narformer_pyg.search import (
    CellSpace,
    PredictorSearch,
    SearchResult,
    SearchSpace,
    search_recipe,
)
from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype

SPACE: CellSpace[DARTSGenotype] = CellSpace(DARTSGenotype)
SMALL = dataclasses.replace(
    search_recipe(), epochs=4, model={"hidden_channels": 16, "num_blocks": 1, "dropout": 0.0}
)


def parameters(genotype: DARTSGenotype) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in genotype.to_module(C=4, layers=3).parameters())


def genotypes(result: SearchResult) -> list[DARTSGenotype]:
    return [DARTSGenotype.from_str(item.architecture) for item in result.history]


def test_space() -> None:
    assert isinstance(SPACE, SearchSpace)
    genotype = DARTS_GENOTYPES["PDARTS"]
    assert SPACE.parse(SPACE.format(genotype)) == genotype
    swapped = DARTSGenotype((*genotype.normal[1::-1], *genotype.normal[2:]), genotype.reduce)
    assert swapped != genotype
    assert SPACE.key(swapped) == SPACE.key(genotype)
    assert SPACE.to_data(genotype).num_nodes == 29


def test_predictor_search_minimises(tmp_path: Path) -> None:
    budget, log = 24, tmp_path / "log.jsonl"
    search = PredictorSearch(
        SPACE, maximize=False, seed=2, initial=12, batch_size=6, num_mutations=10, num_random=10,
        recipe=SMALL, num_members=1,
    )  # fmt: skip
    result = search.run(parameters, budget, log=log)
    assert len(result.history) == budget
    assert result.num_failed == 0
    found = genotypes(result)
    assert len({genotype.canonical() for genotype in found}) == budget
    counts = [parameters(genotype) for genotype in found]
    assert counts == [item.values["value"] for item in result.history]
    assert result.best is not None
    assert result.best.values["value"] == min(counts)
    # Resumed from the log, nothing is evaluated again.
    again = search.run(lambda genotype: pytest.fail("evaluated again"), budget, log=log)
    assert genotypes(again) == found
