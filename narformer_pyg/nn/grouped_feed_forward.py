"""The grouped feed-forward network of a NAR-Former V2 block."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from narformer_pyg._checks import check_integer
from narformer_pyg.nn.dropout import MAX_SPARSE_P, has_hooks, norm_dropout
from narformer_pyg.nn.functional import is_traced
from narformer_pyg.nn.fused_feed_forward import fused_feed_forward
from narformer_pyg.nn.grouped_linear import GroupedLinear, merge_groups, split_groups
from narformer_pyg.nn.products import OneDNNProducts

#: Of the hidden features of a part: 4 MB in single precision.
CACHED_ELEMENTS = 1 << 20

_BY_DEFAULT: AbstractContextManager[None] = nullcontext()


class GroupedFeedForward(torch.nn.Module):
    r"""A two-layer perceptron on groups of features, with a layer norm in every group.

    .. math::
        \mathrm{GFFN}(\mathbf{x}) = \mathrm{LN}_2 \left( \mathrm{ReLU}(\mathrm{LN}_1(
        \mathbf{x} \mathbf{W}_1 + \mathbf{b}_1)) \mathbf{W}_2 + \mathbf{b}_2 \right)

    Both linear maps are :class:`GroupedLinear`; the layer norms act inside each group and their
    affine parameters are shared by the groups, as in the authors' release. Features are not
    shuffled between the groups. On the CPU all steps are one operation, whose gradient is derived
    by hand and cannot be differentiated again; with a hook on one of the parts they are not.

    Args:
        channels (int): Size of each input and output sample, a multiple of :obj:`num_groups`.
        ratio (int, optional): Hidden size as a multiple of :obj:`channels`. (default: :obj:`4`)
        num_groups (int, optional): The number of groups. (default: :obj:`8`)
        dropout (float, optional): Dropout probability, after the activation and after the second
            layer norm. (default: :obj:`0.05`)

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """

    def __init__(
        self, channels: int, ratio: int = 4, num_groups: int = 8, dropout: float = 0.05
    ) -> None:
        super().__init__()
        check_integer("ratio", ratio)
        self.channels = channels
        self.num_groups = num_groups
        self.dropout = dropout
        self.lin_1 = GroupedLinear(channels, ratio * channels, num_groups)
        self.norm_1 = torch.nn.LayerNorm(ratio * channels // num_groups)
        self.lin_2 = GroupedLinear(ratio * channels, channels, num_groups)
        self.norm_2 = torch.nn.LayerNorm(channels // num_groups)

    @property
    def cached_rows(self) -> int:
        """The rows whose hidden features stay in the cache."""
        return max(CACHED_ELEMENTS // self.lin_1.out_channels, 1)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.lin_1, self.norm_1, self.lin_2, self.norm_2):
            module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Maps features :math:`(*, F)` to :math:`(*, F)`."""
        if x.size(-1) != self.channels:
            raise ValueError(
                f"Expected the last dimension of 'x' to be {self.channels} "
                f"(got shape {list(x.shape)})"
            )
        rows = x.reshape(-1, self.channels)
        # The hidden features are several times larger than the input: some rows at a time, they
        # stay in the cache.
        num_rows = self.cached_rows
        if x.device.type != "cpu" or rows.size(0) == 0 or is_traced():
            return merge_groups(self._forward_groups(rows)).view(x.shape)
        if torch.is_grad_enabled():
            if self._is_fused(rows):
                out = fused_feed_forward(
                    rows.contiguous(),
                    *(self.lin_1, self.norm_1, self.lin_2, self.norm_2),
                    self.dropout if self.training else 0.0,
                    num_rows,
                )
                return out.view(x.shape)
            return merge_groups(self._forward_groups(rows)).view(x.shape)
        products = OneDNNProducts(rows, min(num_rows, rows.size(0)) * self.lin_1.weights.numel())
        parts = [
            self._forward_groups(part, products).transpose(0, 1) for part in rows.split(num_rows)
        ]
        return torch.cat(parts).view(x.shape)  # [num_rows, num_groups, channels / num_groups]

    def _is_fused(self, x: Tensor) -> bool:
        """Whether nothing needs the steps: no hook, no replaced part, no lower precision."""
        if torch.is_autocast_enabled("cpu") or x.dtype not in (torch.float32, torch.float64):
            return False
        if self.training and self.dropout > MAX_SPARSE_P:
            return False
        parts = ((self.lin_1, GroupedLinear), (self.norm_1, torch.nn.LayerNorm),
                 (self.lin_2, GroupedLinear), (self.norm_2, torch.nn.LayerNorm))  # fmt: skip
        return all(
            type(part) is kind
            and not has_hooks(part)
            and all(p is not None and p.dtype == x.dtype for p in part._parameters.values())
            for part, kind in parts
        )

    def _forward_groups(
        self, x: Tensor, products: AbstractContextManager[None] = _BY_DEFAULT
    ) -> Tensor:
        """Maps features [num_rows, channels] to [num_groups, num_rows, channels / num_groups]."""
        with products:
            groups = self.lin_1.forward_groups(split_groups(x, self.num_groups))
        groups = norm_dropout(groups, self.norm_1, self.dropout, self.training, relu=True)
        with products:
            groups = self.lin_2.forward_groups(groups)
        return norm_dropout(groups, self.norm_2, self.dropout, self.training)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, "
            f"ratio={self.lin_1.out_channels // self.channels}, num_groups={self.num_groups})"
        )
