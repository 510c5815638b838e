"""Readouts: from node states after every block to one vector per graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from narformer_pyg._registry import Registry
from narformer_pyg.nn.linear import Linear

#: Readouts by name; :func:`register_readout` adds one. It is built with the arguments
#: :obj:`channels` and :obj:`num_blocks`.
READOUTS = Registry("readout")
register_readout = READOUTS.register


def segment_sum(x: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    r"""Sums node states :math:`(|V|, F)` over the nodes of each graph, to :math:`(|G|, F)`.

    Adds whole rows, which is several times faster on the CPU than a scatter of every element and
    the gather that is its gradient. Half precision, which counts to 256, is added up in single.
    """
    dtype = torch.promote_types(x.dtype, torch.float)
    out = x.new_zeros(num_graphs, x.size(-1), dtype=dtype)
    return out.index_add_(0, batch, x.to(dtype)).to(x.dtype)


def segment_mean(x: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    r"""Averages node states :math:`(|V|, F)` over the nodes of each graph, to :math:`(|G|, F)`.

    A graph without nodes has the mean zero.
    """
    x_wide = x.to(torch.promote_types(x.dtype, torch.float))
    count = _segment_size(x_wide, batch, num_graphs)
    return (segment_sum(x_wide, batch, num_graphs) / count).to(x.dtype)


def _segment_size(x: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    """Returns the number of nodes of each graph, at least 1, as a column of the type of x."""
    return segment_sum(x.new_ones(batch.numel(), 1), batch, num_graphs).clamp_(min=1)


@register_readout("sum")
class SumReadout(torch.nn.Module):
    r"""The sum over the nodes after the last block, used by the paper for whole networks.

    Args:
        channels (int, optional): Size :math:`F` of the node states; not needed.
        num_blocks (int, optional): The number of blocks :math:`B`; not needed.

    Shapes:
        - **input:** node states :math:`B \times (|\mathcal{V}|, F)`, batch vector
          :math:`(|\mathcal{V}|)`
        - **output:** graph states :math:`(|\mathcal{G}|, F)`
    """

    def __init__(self, channels: int | None = None, num_blocks: int | None = None) -> None:
        super().__init__()

    def reset_parameters(self) -> None:
        r"""Does nothing: there is nothing to learn."""

    def forward(self, states: Sequence[Tensor], batch: Tensor, num_graphs: int) -> Tensor:
        r"""Reduces node states to graph states."""
        return segment_sum(states[-1], batch, num_graphs)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}()"


@register_readout("mean")
class MeanReadout(SumReadout):
    r"""The mean over the nodes after the last block. Shapes as in :class:`SumReadout`."""

    def forward(self, states: Sequence[Tensor], batch: Tensor, num_graphs: int) -> Tensor:
        r"""Reduces node states to graph states."""
        return segment_mean(states[-1], batch, num_graphs)


@register_readout("fusion")
class FusionReadout(torch.nn.Module):
    r"""A learned, input-dependent weighted sum of the mean node state after every block.

    .. math::
        \mathbf{m}_b = \frac{1}{|\mathcal{V}|} \sum_v \mathbf{h}_v^{(b)}, \quad
        \mathbf{w} = \sigma(\mathrm{MLP}([\mathbf{m}_1 \| \dots \| \mathbf{m}_B])), \quad
        \mathbf{z} = \sum_b w_b \mathbf{m}_b

    The paper's readout of cells (authors' release). Shapes as in :class:`SumReadout`.

    Args:
        channels (int): Size :math:`F` of the node states.
        num_blocks (int): The number of blocks :math:`B`.
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_blocks = num_blocks
        total = channels * num_blocks
        self.lin_1 = Linear(total, max(total // 4, 1))
        self.lin_2 = Linear(max(total // 4, 1), num_blocks)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.lin_1.reset_parameters()
        self.lin_2.reset_parameters()

    def forward(self, states: Sequence[Tensor], batch: Tensor, num_graphs: int) -> Tensor:
        r"""Reduces node states to graph states."""
        dtype = states[0].dtype
        wide = torch.promote_types(dtype, torch.float)
        sums = [segment_sum(state.to(wide), batch, num_graphs) for state in states]
        count = _segment_size(sums[0], batch, num_graphs)
        means = (torch.stack(sums, dim=1) / count.unsqueeze(-1)).to(dtype)
        weights = self.lin_2(self.lin_1(means.flatten(1)).relu()).sigmoid()
        # means: [num_graphs, num_blocks, channels], weights: [num_graphs, num_blocks]
        return (weights.unsqueeze(-1) * means).sum(dim=1)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels}, num_blocks={self.num_blocks})"
