"""A data loader for datasets that fit on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, InMemoryDataset

from narformer_pyg.loader._batch_sampler import ResumableBatchSampler
from narformer_pyg.loader._collated import CollatedGraphs

# Arguments of PyG's loader about workers and copies: this one has none.
_WITHOUT_EFFECT = frozenset(
    {"num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout"}
)


class DeviceLoader:
    r"""Cuts batches out of a collated dataset that lives on one device.

    The batches equal those of :class:`torch_geometric.loader.DataLoader`: same attributes, values,
    types, :obj:`batch` and :obj:`ptr`, and single graphs can be taken back out of them. But no
    graph ever becomes an object of its own: a few :func:`torch.index_select` calls cut a batch, and
    the host knows all sizes, so it never waits for the device.

    PyG's loader remains the choice for datasets with a transform, classes with batching rules of
    their own, and attributes that are neither dense tensors, numbers nor objects to be listed. A
    dataset larger than the memory of a GPU stays on the host with :obj:`stream=True`: the loader
    sends batches from pinned memory while the GPU works on the last one. The loader shares the
    dataset's memory, so the dataset must not change while it is in use.

    Each iteration is a new epoch, with a new order if :obj:`shuffle` is set.

    Args:
        dataset (InMemoryDataset or list of Data): The graphs. Subsets such as
            :obj:`dataset[index]` are copied once.
        batch_size (int, optional): The number of graphs in a batch. (default: :obj:`1`)
        shuffle (bool, optional): Whether each epoch has an order of its own.
            (default: :obj:`False`)
        device (torch.device or str, optional): Where the dataset and the batches live. By default,
            where the dataset is. (default: :obj:`None`)
        drop_last (bool, optional): Whether to leave out an incomplete last batch.
            (default: :obj:`False`)
        batch_sampler (iterable, optional): The batches of an epoch as sequences or tensors of
            graph ids, iterated anew every epoch; replaces :obj:`batch_size`, :obj:`shuffle`,
            :obj:`drop_last` and :obj:`seed`. (default: :obj:`None`)
        seed (int, optional): The seed of the order, which does not depend on the device. By
            default, PyTorch's global generator draws it. (default: :obj:`None`)
        stream (bool, optional): If set to :obj:`True`, the dataset stays where it is and only the
            batches are sent to :obj:`device`. (default: :obj:`False`)
        **kwargs (optional): :obj:`num_workers`, :obj:`pin_memory` and the like, which have no
            effect, for code written for PyG's loader.

    Raises:
        TypeError: If :obj:`dataset` is neither an in-memory dataset nor a list of
            :class:`~torch_geometric.data.Data`.
        ValueError: If it is empty, has a transform or an attribute that cannot be cut, or if
            another argument has the wrong type or range.

    Example:
        >>> loader = DeviceLoader(dataset, batch_size=128, shuffle=True, device="cuda")
        >>> for batch in loader:
        ...     out = model(batch)
    """

    def __init__(
        self,
        dataset: InMemoryDataset | Sequence[Data],
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        device: torch.device | str | None = None,
        drop_last: bool = False,
        batch_sampler: Iterable[Sequence[int] | Tensor] | None = None,
        seed: int | None = None,
        stream: bool = False,
        **kwargs: Any,
    ) -> None:
        refused = kwargs.keys() - _WITHOUT_EFFECT
        if refused:
            raise TypeError(
                f"Expected no other arguments of PyG's DataLoader than {sorted(_WITHOUT_EFFECT)}, "
                f"which have no effect here (got {sorted(refused)}); use PyG's DataLoader for them"
            )
        self.dataset = dataset
        target = None if device is None else torch.device(device)
        self._graphs = CollatedGraphs(dataset, None if stream else target)
        #: Whether batches are sent to the device one by one.
        self.stream = stream
        self._target = self._graphs.device if target is None else target
        self.batch_sampler: Any
        self._owns_sampler = batch_sampler is None
        if batch_sampler is None:
            self.batch_sampler = ResumableBatchSampler(
                self._graphs.num_graphs, batch_size, shuffle, drop_last, seed
            )
        else:
            given = (batch_size != 1, shuffle, drop_last, seed is not None)
            replaced = ("batch_size", "shuffle", "drop_last", "seed")
            if any(given):
                raise ValueError(
                    "Expected no argument that 'batch_sampler' replaces (got "
                    f"{', '.join(compress(replaced, given))})"
                )
            if not isinstance(batch_sampler, Iterable) or isinstance(batch_sampler, Iterator):
                raise ValueError(
                    "Expected 'batch_sampler' to be an iterable that can be iterated anew every "
                    f"epoch, such as a list (got {type(batch_sampler).__name__})"
                )
            self.batch_sampler = batch_sampler
        self._num_done = 0
        self._num_skipped = 0

    @property
    def device(self) -> torch.device:
        """The device of the batches, and of the dataset if it is not streamed."""
        return self._target

    def to(self, device: torch.device | str) -> DeviceLoader:
        """Moves the dataset to a device, or only its batches if they are streamed."""
        self._target = torch.device(device)
        if not self.stream:
            self._graphs.to(self._target)
        return self

    def collate(self, indices: Tensor | Sequence[int]) -> Batch:
        """Returns the batch of any graphs, in the given order; a graph may occur several times.

        Raises:
            ValueError: If :obj:`indices` is empty, not a vector or not of integers.
            IndexError: If there is no such graph; negative ids do not count from the end.
        """
        index = torch.as_tensor(indices)
        if index.dim() != 1 or index.numel() == 0:
            raise ValueError(
                "Expected 'indices' to be a vector of at least one graph id "
                f"(got shape {list(index.shape)})"
            )
        if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
            raise ValueError(f"Expected 'indices' to hold integers (got {index.dtype})")
        index = index.to("cpu", torch.long)
        low, high = index.aminmax()
        if low < 0 or high >= self._graphs.num_graphs:
            raise IndexError(
                f"Expected 'indices' to be in the range from 0 to {self._graphs.num_graphs - 1} "
                f"(got {int(low if low < 0 else high)})"
            )
        return self._cut(index)

    def _cut(self, index: Tensor) -> Batch:
        batch = self._graphs.cut(index)
        if not self.stream or self._target == self._graphs.device:
            return batch
        if self._target.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self._target, non_blocking=True)

    def __iter__(self) -> Iterator[Batch]:
        if self._owns_sampler:  # its batches need no check
            yield from map(self._cut, self.batch_sampler)
            return
        skipped, self._num_skipped = self._num_skipped, 0
        length = len(self.batch_sampler) if hasattr(self.batch_sampler, "__len__") else None
        for i, indices in enumerate(self.batch_sampler):
            if i < skipped:
                continue
            self._num_done = 0 if i + 1 == length else i + 1
            yield self.collate(indices)
        self._num_done = 0

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state from which :meth:`load_state_dict` goes on with the very next batch.

        It is the state of the batch sampler if that has one, as the samplers of this package do.
        Otherwise it is the number of batches since the start of the epoch, which resumes a sampler
        with a fixed order only.
        """
        if hasattr(self.batch_sampler, "state_dict"):
            return self.batch_sampler.state_dict()
        return {"num_batches": self._num_done or self._num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next iteration go on where :meth:`state_dict` of such a loader was taken.

        Raises:
            ValueError: If the state is of a loader with other arguments.
        """
        if hasattr(self.batch_sampler, "load_state_dict"):
            self.batch_sampler.load_state_dict(state_dict)
        elif set(state_dict) != {"num_batches"}:
            raise ValueError(
                f"Expected 'state_dict' to hold 'num_batches' only (got {sorted(state_dict)})"
            )
        else:
            self._num_done, self._num_skipped = 0, state_dict["num_batches"]

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._graphs.num_graphs}, device={self.device})"
