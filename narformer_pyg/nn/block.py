"""One block of NAR-Former V2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.typing import Adj

from narformer_pyg._checks import check_integer
from narformer_pyg.nn.conv import GraphAidedAttentionConv, SoftmaxAttentionConv
from narformer_pyg.nn.dropout import may_overwrite, norm_dropout, relu_dropout
from narformer_pyg.nn.grouped_feed_forward import GroupedFeedForward

#: Attentions between the nodes that edges connect, by name.
ATTENTIONS: dict[str, type[GraphAidedAttentionConv] | type[SoftmaxAttentionConv]] = {
    "linear": GraphAidedAttentionConv,
    "softmax": SoftmaxAttentionConv,
}


class NARFormerV2Block(torch.nn.Module):
    r"""Graph-aided attention followed by a grouped feed-forward network.

    .. math::
        \mathbf{H} &= \mathrm{Dropout}(\mathrm{ReLU}(\mathrm{Attention}(\mathbf{X}, \mathbf{A})))

        \mathbf{X}' &= \mathbf{H} + \boldsymbol{\gamma} \odot \mathrm{GFFN}(\mathrm{LN}(\mathbf{H}))

    There is no residual connection around the attention (its root projection takes that part), and
    :math:`\boldsymbol{\gamma}` starts at :math:`10^{-4}`, both as in the authors' release.

    Args:
        in_channels (int): Size of each input node feature vector.
        out_channels (int): Size of each output node feature vector.
        ffn_ratio (int, optional): Hidden size of the feed-forward network as a multiple of
            :obj:`out_channels`; :obj:`0` for a block without one. (default: :obj:`4`)
        num_groups (int, optional): Groups of the feed-forward network. (default: :obj:`8`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.05`)
        attention (str, optional): :obj:`"linear"` for
            :class:`~narformer_pyg.nn.GraphAidedAttentionConv`, :obj:`"softmax"` for
            :class:`~narformer_pyg.nn.SoftmaxAttentionConv`. (default: :obj:`"linear"`)
        layer_scale (float, optional): What :math:`\boldsymbol{\gamma}` starts at; :obj:`None` for a
            block without it. (default: :obj:`1e-4`)
        norm (str, optional): What follows the attention: :obj:`"unit"` divides each node state by
            its Euclidean norm, as the paper does, :obj:`"layer"` is a layer norm with learned scale
            and shift, whatever :obj:`normalize` is. (default: :obj:`"unit"`)
        **kwargs (optional): Additional arguments of the attention.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)`
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ffn_ratio: int = 4,
        num_groups: int = 8,
        dropout: float = 0.05,
        attention: str = "linear",
        layer_scale: float | None = 1e-4,
        norm: str = "unit",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_integer("ffn_ratio", ffn_ratio, 0)
        if attention not in ATTENTIONS:
            raise ValueError(
                f"Expected 'attention' to be among {', '.join(ATTENTIONS)} (got {attention!r})"
            )
        if layer_scale is not None and not (math.isfinite(layer_scale) and layer_scale >= 0):
            raise ValueError(
                f"Expected 'layer_scale' to be a number of at least 0 or None (got {layer_scale})"
            )
        if norm not in ("unit", "layer"):
            raise ValueError(f"Expected 'norm' to be 'unit' or 'layer' (got {norm!r})")
        if norm == "layer":
            kwargs["normalize"] = False
        self.dropout = dropout
        self.initial_scale = layer_scale
        self.conv = ATTENTIONS[attention](in_channels, out_channels, **kwargs)
        self.attention_norm = torch.nn.LayerNorm(out_channels) if norm == "layer" else None
        self.norm = self.ffn = None
        if ffn_ratio > 0:
            self.norm = torch.nn.LayerNorm(out_channels)
            self.ffn = GroupedFeedForward(out_channels, ffn_ratio, num_groups, dropout)
        has_scale = ffn_ratio > 0 and layer_scale is not None
        self.layer_scale = Parameter(torch.empty(out_channels)) if has_scale else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.conv.reset_parameters()
        if self.attention_norm is not None:
            self.attention_norm.reset_parameters()
        if self.norm is not None and self.ffn is not None:
            self.norm.reset_parameters()
            self.ffn.reset_parameters()
        if self.layer_scale is not None and self.initial_scale is not None:
            torch.nn.init.constant_(self.layer_scale, self.initial_scale)

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        r"""Maps node features :math:`(|V|, F_{in})` to :math:`(|V|, F_{out})`."""
        h = self.conv(x, edge_index)
        if self.attention_norm is None:
            # The division by the norm has made a new tensor.
            is_new = type(self.conv) in ATTENTIONS.values() and self.conv.normalize
            overwrites = is_new and not self.training and may_overwrite(self.conv)
            h = h.relu_() if overwrites else relu_dropout(h, self.dropout, self.training)
        else:
            h = norm_dropout(h, self.attention_norm, self.dropout, self.training, relu=True)
        if self.norm is None or self.ffn is None:
            return h
        if self.layer_scale is None:
            return h + self.ffn(self.norm(h))
        out = self.ffn(self.norm(h))
        if may_overwrite(self.norm) and h.dtype == out.dtype == self.layer_scale.dtype:
            return h.addcmul_(self.layer_scale, out)
        return torch.addcmul(h, self.layer_scale, out)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.conv.in_channels}, {self.conv.out_channels}, "
            f"ffn={self.ffn})"
        )
