from __future__ import annotations

from collections import Counter

import pytest
import torch

from narformer_pyg.loader import VariantBatchSampler

NUM_VARIANTS = [1, 4, 2, 3, 1]
OWNER = [0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4]


class TestVariantBatchSampler:
    def test_one_variant_of_each(self) -> None:
        sampler = VariantBatchSampler(NUM_VARIANTS, 2, seed=0)
        assert len(sampler) == 3
        drawn: Counter[int] = Counter()
        orders = set()
        for _ in range(600):
            batches = list(sampler)
            assert [batch.numel() for batch in batches] == [2, 2, 1]
            ids = torch.cat(batches).tolist()
            assert sorted(OWNER[i] for i in ids) == [0, 1, 2, 3, 4]
            orders.add(tuple(OWNER[i] for i in ids))
            drawn.update(ids)
        assert len(orders) > 50
        for i, owner in enumerate(OWNER):
            expected = 600 / NUM_VARIANTS[owner]
            assert abs(drawn[i] - expected) < 0.3 * expected + 1

    def test_in_order(self) -> None:
        sampler = VariantBatchSampler([1, 1, 1], 2, shuffle=False)
        assert [batch.tolist() for batch in sampler] == [[0, 1], [2]]

    def test_processes_draw_parts_of_the_same_batches(self) -> None:
        samplers = [VariantBatchSampler([2] * 8, 2, seed=5) for _ in range(2)]
        for rank, sampler in enumerate(samplers):
            sampler.shard(rank, 2)
        parts = [torch.cat(list(sampler)).tolist() for sampler in samplers]
        assert sorted(i // 2 for i in parts[0] + parts[1]) == list(range(8))

    @pytest.mark.parametrize("value", [0, -1, 1.5])
    def test_number(self, value: float) -> None:
        with pytest.raises(ValueError, match="'num_variants' to be a positive integer"):
            VariantBatchSampler([1, value], 2)  # type: ignore[list-item]

    def test_repr(self) -> None:
        sampler = VariantBatchSampler(NUM_VARIANTS, 2)
        assert repr(sampler) == "VariantBatchSampler(5, batch_size=2, variants=11)"
