"""Batches of graph ids: an order that is drawn anew every epoch and can be resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from narformer_pyg._checks import check_integer, check_seed


class ResumableBatchSampler:
    r"""Cuts the ids :obj:`0, ..., num_graphs - 1` into batches, in order or shuffled.

    The random numbers come from a private generator. :meth:`state_dict` holds its state at the
    start of the running epoch and the number of batches since; a sampler with the same arguments
    that loads it goes on with the very next batch.

    Args:
        num_graphs (int): The number of ids.
        batch_size (int): The number of ids in a batch; the last batch may hold fewer.
        shuffle (bool): Whether each epoch has an order of its own.
        drop_last (bool): Whether an incomplete last batch is left out.
        seed (int, optional): The seed of the generator; by default drawn from PyTorch's global
            one, so that :func:`torch.manual_seed` fixes it. (default: :obj:`None`)

    Raises:
        ValueError: If an argument has the wrong type or range.
    """

    def __init__(
        self,
        num_graphs: int,
        batch_size: int,
        shuffle: bool,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        self.num_graphs = check_integer("num_graphs", num_graphs)
        self.batch_size = check_integer("batch_size", batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        if self.drop_last and self.batch_size > self.num_graphs:
            raise ValueError(
                f"Expected 'batch_size' to be at most the number of graphs, {self.num_graphs}, "
                f"when 'drop_last' is set: no batch would be left (got {self.batch_size})"
            )
        self.rank, self.world_size = 0, 1
        if seed is None:
            seed = int(torch.empty((), dtype=torch.int64).random_())
        self.generator = torch.Generator().manual_seed(check_seed(seed))
        self._epoch_start: Tensor | None = None  # generator state, while an epoch is running
        self._num_done = 0
        self._num_skipped = 0

    def _draw(self) -> Tensor:
        """Returns the ids of a new epoch in their order, :obj:`[num_graphs]`."""
        if self.shuffle:
            return torch.randperm(self.num_graphs, generator=self.generator)
        return torch.arange(self.num_graphs)

    def shard(self, rank: int, world_size: int) -> None:
        """Makes this sampler give process :obj:`rank` of :obj:`world_size` its part of every batch.

        All processes draw the same order, so they need the same seed. Together, their batches are
        those of one process with :obj:`world_size` times the batch size; where the last batch has
        fewer graphs than there are processes, some graphs repeat.
        """
        self.world_size = check_integer("world_size", world_size)
        if check_integer("rank", rank, least=0) >= world_size:
            raise ValueError(
                f"Expected 'rank' to be less than 'world_size' (got {rank} and {world_size})"
            )
        self.rank = rank
        if len(self) == 0:
            raise ValueError(
                f"Expected the batches of {world_size} processes together to hold at most the "
                f"number of graphs, {self.num_graphs}, when 'drop_last' is set: no batch would be "
                f"left (got {self.batch_size * world_size})"
            )
        if self._num_skipped >= len(self):
            raise ValueError(
                f"Expected the state that was loaded to be of as many processes (got batch "
                f"{self._num_skipped} of {len(self)})"
            )

    def _split(self, ids: Tensor) -> list[Tensor]:
        """Returns the batches of this process."""
        batches = list(ids.split(self.batch_size * self.world_size))
        if self.world_size == 1:
            return batches
        if len(batches[-1]) < self.world_size:
            batches[-1] = batches[-1][torch.arange(self.world_size) % len(batches[-1])]
        return [batch.tensor_split(self.world_size)[self.rank] for batch in batches]

    def _epoch(self) -> list[Tensor]:
        """Returns the batches of a new epoch, an incomplete last one included."""
        return self._split(self._draw())

    def __iter__(self) -> Iterator[Tensor]:
        start, self._num_skipped = self._num_skipped, 0
        self._num_done, self._epoch_start = start, self.generator.get_state()
        batches, num_batches = self._epoch(), len(self)
        for i in range(start, num_batches):
            # Counted before it is handed out, as the consumer may stop at the last batch without
            # asking for another.
            self._num_done = i + 1
            if self._num_done == num_batches:
                self._num_done, self._epoch_start = 0, None
            yield batches[i]

    def __len__(self) -> int:
        size = self.batch_size * self.world_size
        return self.num_graphs // size if self.drop_last else -(-self.num_graphs // size)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state from which :meth:`load_state_dict` goes on.

        It holds :obj:`"generator"`, the state of the generator at the start of the running epoch
        (or now, between epochs), and :obj:`"num_batches"`, the batches since.
        """
        if self._epoch_start is None:
            return {"generator": self.generator.get_state(), "num_batches": self._num_skipped}
        return {"generator": self._epoch_start.clone(), "num_batches": self._num_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next iteration go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: If the state has other entries, or more batches than an epoch of this
                sampler.
        """
        if set(state_dict) != {"generator", "num_batches"}:
            raise ValueError(
                "Expected 'state_dict' to hold 'generator' and 'num_batches' "
                f"(got {sorted(state_dict)})"
            )
        done = state_dict["num_batches"]
        if not 0 <= done < max(len(self), 1):
            raise ValueError(
                f"Expected 'num_batches' to be less than the {len(self)} batches of an epoch; the "
                f"state is of a sampler with other arguments (got {done})"
            )
        self.generator.set_state(state_dict["generator"].cpu())
        self._epoch_start, self._num_done, self._num_skipped = None, 0, done
