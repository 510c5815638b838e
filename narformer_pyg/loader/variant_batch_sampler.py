"""Batches that hold one of several variants of each graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from narformer_pyg._checks import check_integer
from narformer_pyg.loader._batch_sampler import ResumableBatchSampler


class VariantBatchSampler(ResumableBatchSampler):
    r"""Batches in which each graph draws one of its variants every epoch.

    The dataset holds all variants of the first graph, then all of the second, and so on. A batch is
    a :class:`torch.LongTensor` of :obj:`batch_size` ids.

    Each iteration is a new epoch. See :meth:`state_dict` to resume in the middle of one.

    Args:
        num_variants (sequence of int): The number of variants of each graph, at least one.
        batch_size (int): The number of graphs in a batch.
        shuffle (bool, optional): Whether each epoch has an order of its own.
            (default: :obj:`True`)
        drop_last, seed (optional): As in :class:`DeviceLoader`.

    Raises:
        ValueError: If an argument has the wrong type or range.
    """

    def __init__(
        self, num_variants: Sequence[int], batch_size: int, shuffle: bool = True, **kwargs: Any
    ) -> None:
        for number in num_variants:
            check_integer("num_variants", number)
        super().__init__(len(num_variants), batch_size, shuffle, **kwargs)
        self.num_variants = torch.tensor(num_variants)
        self._first = self.num_variants.cumsum(0) - self.num_variants

    def _epoch(self) -> list[Tensor]:
        graphs = self._draw()
        chosen = torch.rand(self.num_graphs, generator=self.generator, dtype=torch.double)
        variants = self._first + (chosen * self.num_variants).long()
        return self._split(variants[graphs])

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.num_graphs}, batch_size={self.batch_size}, "
            f"variants={int(self.num_variants.sum())})"
        )
