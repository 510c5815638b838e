from __future__ import annotations

import pytest

from narformer_pyg.search import CellSpace, NASBench201Evaluation, RandomSearch
from narformer_pyg.spaces import NASBench201Cell


def test_missing_labels_are_failures() -> None:
    # 202 cells have no latency on this phone, see NASBench201.
    evaluate = NASBench201Evaluation(["latency_pixel3"])
    search = RandomSearch(CellSpace(NASBench201Cell), objective="latency_pixel3", maximize=False)
    result = search.run(evaluate, 300)
    assert result.num_failed > 0
    assert result.best is not None
    assert evaluate(NASBench201Cell.from_str(result.best.architecture)) == result.best.values


def test_unknown_labels() -> None:
    with pytest.raises(ValueError, match=r"Expected 'target'.*got 'accuracy'"):
        NASBench201Evaluation(["accuracy"])
