"""Batches that hold each graph next to one of its augmented copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from narformer_pyg._checks import check_integer
from narformer_pyg.loader._batch_sampler import ResumableBatchSampler


class PairedBatchSampler(ResumableBatchSampler):
    r"""Batches of originals followed by their augmented copies, for a consistency loss.

    The dataset is the concatenation of :obj:`num_graphs` originals and :obj:`num_copies` blocks of
    augmented graphs, so that copy :math:`k` of graph :math:`i` is at
    :math:`i + (1 + k) \cdot` :obj:`num_graphs`;
    :func:`narformer_pyg.transforms.augment` makes the blocks. A batch is a
    :class:`torch.LongTensor` of shape :obj:`[2 * batch_size]`: the originals, then one copy of
    each in the same order. With several copies, each graph draws one of them every epoch.

    Each iteration is a new epoch. See :meth:`state_dict` to resume in the middle of one.

    Args:
        num_graphs (int): The number of originals.
        batch_size (int): The number of originals in a batch, half the number of its graphs.
        num_copies (int, optional): The number of copies of each graph in the dataset.
            (default: :obj:`1`)
        shuffle (bool, optional): Whether each epoch has an order of its own.
            (default: :obj:`True`)
        drop_last, seed (optional): As in :class:`DeviceLoader`.

    Raises:
        ValueError: If an argument has the wrong type or range.

    Example:
        >>> sampler = PairedBatchSampler(len(graphs), batch_size=8)
        >>> loader = DeviceLoader(graphs + augment(graphs), batch_sampler=sampler)
    """

    def __init__(
        self,
        num_graphs: int,
        batch_size: int,
        num_copies: int = 1,
        shuffle: bool = True,
        **kwargs: Any,
    ) -> None:
        self.num_copies = check_integer("num_copies", num_copies)
        super().__init__(num_graphs, batch_size, shuffle, **kwargs)

    def _epoch(self) -> list[Tensor]:
        originals = self._draw()
        copies = originals + self.num_graphs
        if self.num_copies > 1:
            chosen = torch.randint(self.num_copies, copies.size(), generator=self.generator)
            copies += self.num_graphs * chosen
        pairs = zip(self._split(originals), self._split(copies), strict=True)
        return [torch.cat(pair) for pair in pairs]

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.num_graphs}, batch_size={self.batch_size}, "
            f"num_copies={self.num_copies})"
        )
