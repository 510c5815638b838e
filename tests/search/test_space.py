from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from narformer_pyg.search import CellSpace, PredictorSearch, SearchSpace, search_recipe
from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype, NASBench201Cell

DARTS: CellSpace[DARTSGenotype] = CellSpace(DARTSGenotype)
PDARTS = DARTS_GENOTYPES["PDARTS"]
SWAPPED = DARTSGenotype((*PDARTS.normal[1::-1], *PDARTS.normal[2:]), PDARTS.reduce)


@pytest.mark.parametrize(
    ("cell_class", "cell", "same", "num_nodes"),
    [
        (NASBench201Cell, NASBench201Cell.from_index(2676), NASBench201Cell.from_index(14174), 8),
        (DARTSGenotype, PDARTS, SWAPPED, 29),
    ],
)
def test_cell_space(cell_class: Any, cell: Any, same: Any, num_nodes: int) -> None:
    space: Any = CellSpace(cell_class)
    assert isinstance(space, SearchSpace)
    assert repr(space) == f"CellSpace({cell_class.__name__})"
    assert space.parse(space.format(cell)) == cell
    assert same != cell
    assert space.key(same) == space.key(cell)  # isomorphic
    assert space.to_data(cell).num_nodes == num_nodes


def test_a_class_without_the_methods() -> None:
    with pytest.raises(TypeError, match=r"Expected 'cell_class' .*without random"):
        CellSpace(int)


def parameters(genotype: DARTSGenotype) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in genotype.to_module(C=4, layers=3).parameters())


def test_predictor_search_of_darts(tmp_path: Path) -> None:
    size = {"hidden_channels": 16, "num_blocks": 1, "dropout": 0.0}
    recipe = dataclasses.replace(search_recipe(), epochs=4, model=size)
    search = PredictorSearch(
        DARTS, maximize=False, seed=2, initial=12, batch_size=6, num_mutations=10, num_random=10,
        recipe=recipe, num_members=1,
    )  # fmt: skip
    log = tmp_path / "log.jsonl"
    result = search.run(parameters, 24, log=log)
    assert result.num_failed == 0
    found = [DARTSGenotype.from_str(item.architecture) for item in result.history]
    assert len({genotype.canonical() for genotype in found}) == 24
    counts = [parameters(genotype) for genotype in found]
    assert counts == [item.values["value"] for item in result.history]
    assert result.best is not None
    assert result.best.values["value"] == min(counts)
    # A search resumed from its log evaluates nothing again.
    again = search.run(lambda genotype: pytest.fail("evaluated again"), 24, log=log)
    assert again.history == result.history
