from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from narformer_pyg.loader import PairedBatchSampler


def halves(batch: Tensor, num_graphs: int) -> tuple[list[int], list[int]]:
    """Returns the originals and the numbers of the copies; checks that they fit together."""
    assert batch.dtype == torch.long
    originals, copies = batch.chunk(2)
    assert torch.equal(copies % num_graphs, originals)
    return originals.tolist(), (copies // num_graphs - 1).tolist()


class TestPairedBatchSampler:
    @pytest.mark.parametrize("num_copies", [1, 3])
    def test_pairs(self, num_copies: int) -> None:
        sampler = PairedBatchSampler(10, 4, num_copies=num_copies, seed=0)
        assert len(sampler) == 3
        drawn: Counter[int] = Counter()
        epochs = []
        for _ in range(40):
            batches = [halves(batch, 10) for batch in sampler]
            assert [len(originals) for originals, _ in batches] == [4, 4, 2]
            assert sorted(chain(*(originals for originals, _ in batches))) == list(range(10))
            for _, copies in batches:
                drawn.update(copies)
            epochs.append(batches)
        assert epochs[0] != epochs[1]
        assert set(drawn) == set(range(num_copies))
        expected = 400 / num_copies
        assert all(abs(count - expected) < 0.25 * expected for count in drawn.values())

    def test_each_graph_draws_its_own_copy(self) -> None:
        (batch,) = PairedBatchSampler(200, 200, num_copies=4, seed=0)
        assert set(halves(batch, 200)[1]) == {0, 1, 2, 3}

    def test_in_order(self) -> None:
        sampler = PairedBatchSampler(5, 2, shuffle=False)
        for _ in range(2):
            assert [batch.tolist() for batch in sampler] == [[0, 1, 5, 6], [2, 3, 7, 8], [4, 9]]

    @pytest.mark.parametrize("name", ["num_graphs", "batch_size", "num_copies"])
    @pytest.mark.parametrize("value", [0, -1, 1.0, True, "1"])
    def test_counts(self, name: str, value: Any) -> None:
        arguments = {"num_graphs": 4, "batch_size": 2, "num_copies": 1, name: value}
        with pytest.raises(ValueError, match=rf"'{name}' to be a positive.*\(got {value!r}\)"):
            PairedBatchSampler(**arguments)

    def test_repr(self) -> None:
        sampler = PairedBatchSampler(4, 2, num_copies=3)
        assert repr(sampler) == "PairedBatchSampler(4, batch_size=2, num_copies=3)"
