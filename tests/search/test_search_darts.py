from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from narformer_pyg.search import (
    CellSpace,
    ParetoSearch,
    PredictorSearch,
    RandomSearch,
    RegularizedEvolution,
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


def two_values(genotype: DARTSGenotype) -> dict[str, float]:
    """How much is learnt, and how deep the cells are: two that do not exclude each other."""
    depth = [0, 0]
    for k in range(0, 8, 2):
        depth.append(1 + max(depth[source] for _, source in genotype.normal[k : k + 2]))
    return {"parameters": parameters(genotype), "depth": max(depth)}


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


@pytest.mark.parametrize(
    ("method", "arguments", "budget"),
    [
        (RandomSearch, {}, 25),
        (RegularizedEvolution, {"population_size": 10, "sample_size": 4}, 60),
        (
            PredictorSearch,
            {
                "initial": 12, "batch_size": 6, "num_mutations": 10, "num_random": 10,
                "recipe": SMALL, "num_members": 1,
            },
            24,
        ),
    ],
)  # fmt: skip
def test_searches_minimise(method: Any, arguments: Any, budget: int, tmp_path: Path) -> None:
    search = method(SPACE, maximize=False, seed=2, **arguments)
    log = tmp_path / "log.jsonl"
    result = search.run(parameters, budget, log=log)
    assert len(result.history) == budget
    assert result.num_failed == 0
    found = genotypes(result)
    assert len({genotype.canonical() for genotype in found}) == budget
    counts = [parameters(genotype) for genotype in found]
    assert counts == [item.values["value"] for item in result.history]
    assert result.best is not None
    assert result.best.values["value"] == min(counts)
    if method is RegularizedEvolution:
        assert min(counts) < min(counts[:10])
    # Resumed from the log, nothing is evaluated again.
    again = search.run(lambda genotype: pytest.fail("evaluated again"), budget, log=log)
    assert genotypes(again) == found


def test_pareto_search() -> None:
    search = ParetoSearch(
        SPACE, {"parameters": "min", "depth": "max"},
        initial=10, batch_size=5, population_size=8, generations=2, recipe=SMALL, num_members=1,
    )  # fmt: skip
    result = search.run(two_values, 20)
    assert len(result.history) == 20
    front = [tuple(item.values.values()) for item in result.front]
    assert not any(a[0] <= b[0] and a[1] > b[1] for a in front for b in front)
