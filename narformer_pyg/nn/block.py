"""One block of NAR-Former V2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import Adj

from narformer_pyg._checks import check_integer
from narformer_pyg._registry import Registry
from narformer_pyg.nn import kernels
from narformer_pyg.nn.conv import GraphAidedAttentionConv, SoftmaxAttentionConv
from narformer_pyg.nn.dropout import Dropout
from narformer_pyg.nn.grouped_feed_forward import GroupedFeedForward

#: Attentions between the nodes that edges connect, by name.
ATTENTIONS = Registry("attention")
ATTENTIONS.register("linear")(GraphAidedAttentionConv)
ATTENTIONS.register("softmax")(SoftmaxAttentionConv)


@kernels.accelerated_by(kernels.small_graph)
class NARFormerV2Block(torch.nn.Module):
    r"""Graph-aided attention followed by a grouped feed-forward network.

    .. math::
        \mathbf{H} &= \mathrm{Dropout}(\phi(\mathrm{Attention}(\mathbf{X}, \mathbf{A})))

        \mathbf{X}' &= \mathbf{H} + \boldsymbol{\gamma} \odot \mathrm{GFFN}(\mathrm{LN}(\mathbf{H}))

    There is no residual connection around the attention (its root projection takes that part), and
    :math:`\boldsymbol{\gamma}` starts at :math:`10^{-4}`, both as in the authors' release.

    Args:
        in_channels (int): Size of each input node feature vector, or :obj:`-1` to take it from the
            first input.
        out_channels (int): Size of each output node feature vector.
        ffn_ratio (int, optional): Hidden size of the feed-forward network as a multiple of
            :obj:`out_channels`; :obj:`0` for a block without one. (default: :obj:`4`)
        num_groups (int, optional): Groups of the feed-forward network. (default: :obj:`8`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.05`)
        attention (str, optional): :obj:`"linear"` for
            :class:`~narformer_pyg.nn.GraphAidedAttentionConv`, :obj:`"softmax"` for
            :class:`~narformer_pyg.nn.SoftmaxAttentionConv`. (default: :obj:`"linear"`)
        layer_scale (float, optional): Initial value of :math:`\boldsymbol{\gamma}`; :obj:`None` for
            a block without it. (default: :obj:`1e-4`)
        norm (str, optional): What follows the attention: :obj:`"unit"` divides each node state by
            its Euclidean norm, as the paper does, :obj:`"layer"` is a layer norm with learned scale
            and shift, whatever :obj:`normalize` is. (default: :obj:`"unit"`)
        act (str or Callable, optional): The activation :math:`\phi`, here and in the feed-forward
            network. (default: :obj:`"relu"`)
        **kwargs (optional): Additional arguments of the attention.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)`
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`
    """

    #: The classes of the parts that kernels know.
    PARTS = {  # noqa: RUF012
        "conv": GraphAidedAttentionConv,
        "attention_norm": torch.nn.LayerNorm,
        "act": torch.nn.ReLU,
        "dropout": Dropout,
        "norm": torch.nn.LayerNorm,
        "ffn": GroupedFeedForward,
    }

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
        act: str | torch.nn.Module = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_integer("ffn_ratio", ffn_ratio, 0)
        if layer_scale is not None and not (math.isfinite(layer_scale) and layer_scale >= 0):
            raise ValueError(
                f"Expected 'layer_scale' to be a number of at least 0 or None (got {layer_scale})"
            )
        if norm not in ("unit", "layer"):
            raise ValueError(f"Expected 'norm' to be 'unit' or 'layer' (got {norm!r})")
        if norm == "layer":
            kwargs["normalize"] = False
        self.initial_scale = layer_scale
        self.conv = ATTENTIONS.get(attention)(in_channels, out_channels, **kwargs)
        self.attention_norm = torch.nn.LayerNorm(out_channels) if norm == "layer" else None
        self.act = activation_resolver(act)
        self.dropout = Dropout(dropout)
        self.norm: torch.nn.LayerNorm | None = None
        self.ffn: GroupedFeedForward | None = None
        self.layer_scale: Parameter | None = None
        if ffn_ratio > 0:
            self.norm = torch.nn.LayerNorm(out_channels)
            self.ffn = GroupedFeedForward(out_channels, ffn_ratio, num_groups, dropout, act)
            if layer_scale is not None:
                self.layer_scale = Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.conv, self.attention_norm, self.norm, self.ffn):
            if module is not None:
                module.reset_parameters()
        if self.layer_scale is not None and self.initial_scale is not None:
            torch.nn.init.constant_(self.layer_scale, self.initial_scale)

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        r"""Maps node features :math:`(|V|, F_{in})` to :math:`(|V|, F_{out})`."""
        if fast := kernels.takes_over(self, x, edge_index):
            return fast(self, x, edge_index)
        h = self.conv(x, edge_index)
        if self.attention_norm is not None:
            h = self.attention_norm(h)
        h = self.dropout(self.act(h))
        if self.ffn is None or self.norm is None:
            return h
        out = self.ffn(self.norm(h))
        return h + out if self.layer_scale is None else torch.addcmul(h, self.layer_scale, out)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.conv.in_channels}, {self.conv.out_channels}, "
            f"ffn={self.ffn})"
        )
