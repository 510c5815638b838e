"""Index arithmetic of graphs that lie behind one another in a tensor."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

_MAX_CACHED = 8  # batch sizes a layout remembers: the full batch, the last one, a few more


class Cut:
    """Where each graph of a batch begins and which graph each element belongs to.

    Args:
        slices (torch.Tensor): The first element of each graph and the end,
            :obj:`[batch_size + 1]`, on the CPU.
        device (torch.device): The device of :obj:`ptr` and :obj:`owner`.
    """

    def __init__(self, slices: Tensor, device: torch.device) -> None:
        self.slices = slices
        self.ptr = slices.to(device, non_blocking=True)

    @cached_property
    def total(self) -> int:
        """The number of elements."""
        return int(self.slices[-1])

    @cached_property
    def owner(self) -> Tensor:
        """The graph of each element, :obj:`[total]`."""
        return torch.repeat_interleave(self.ptr.diff(), output_size=self.total)


class Layout:
    """The number of elements that each graph of a dataset has, shared by all attributes alike.

    The sizes stay on the CPU, so that the size of a batch is known without asking the device.

    Args:
        sizes (torch.Tensor): The number of elements of each graph, :obj:`[num_graphs]`.
    """

    def __init__(self, sizes: Tensor) -> None:
        self.sizes = sizes
        self.starts = cumsum(sizes)[:-1]
        self.size: int | None = int(sizes[0]) if bool((sizes == sizes[0]).all()) else None
        self._cuts: dict[tuple[int, torch.device], Cut] = {}

    def cut(self, index: Tensor, device: torch.device) -> Cut:
        """Returns the cut of the graphs :obj:`index` (on the CPU)."""
        if self.size is None:
            return Cut(cumsum(self.sizes.index_select(0, index)), device)
        # With equal sizes a cut depends on the number of graphs alone.
        key = (index.numel(), device)
        cut = self._cuts.get(key)
        if cut is None:
            if len(self._cuts) >= _MAX_CACHED:
                self._cuts.clear()
            cut = self._cuts[key] = Cut(torch.arange(index.numel() + 1) * self.size, device)
        return cut

    def elements(self, index: Tensor, cut: Cut) -> Tensor:
        """Returns the positions in the dataset of the elements of a batch, :obj:`[total]`."""
        shift = self.starts.index_select(0, index) - cut.slices[:-1]
        device = cut.ptr.device
        shift = shift.to(device, non_blocking=True).index_select(0, cut.owner)
        return shift.add_(torch.arange(cut.total, device=device))
