"""The NAR-Former V2 model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing

from narformer_pyg._checks import check_integer
from narformer_pyg.errors import CheckpointError
from narformer_pyg.nn.block import ATTENTIONS, NARFormerV2Block
from narformer_pyg.nn.conv import GraphAidedAttentionConv
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.registry import register_model
from narformer_pyg.nn.models.released_checkpoint import (
    check_names_and_shapes,
    load_released_checkpoint,
)


@register_model("narformer_v2")
class NARFormerV2(GraphRegressor):
    r"""The transformer for graphs of neural architectures.

    From the `"NAR-Former V2: Rethinking Transformer for Universal Neural Network Representation
    Learning" <https://arxiv.org/abs/2306.10792>`_ paper.

    Blocks of graph-aided attention and grouped feed-forward networks, a readout, and a head whose
    predictions are positive. The defaults are the paper's model of cells (8,582,535 parameters with
    128-dimensional node codes); :obj:`num_blocks=2, readout="sum", static_channels=40` is its model
    of whole networks (2,310,921 parameters with 152-dimensional node codes).

    Args:
        in_channels (int): Size of each node code, for instance :obj:`encoder.out_channels`, or
            :obj:`-1` to take it from the first input.
        hidden_channels (int, optional): Size of the node states. (default: :obj:`512`)
        num_blocks (int, optional): The number of blocks. (default: :obj:`6`)
        out_channels (int, optional): The number of targets :math:`T`. (default: :obj:`1`)
        readout (str, optional): :obj:`"fusion"` weighs the mean node state after every block,
            :obj:`"sum"` adds up and :obj:`"mean"` averages the nodes after the last block.
            (default: :obj:`"fusion"`)
        static_channels (int, optional): Size of the code of the graph features (batch size, FLOPs,
            parameters, memory access); :obj:`0` for none. (default: :obj:`0`)
        ffn_ratio (int, optional): Hidden size of the feed-forward networks as a multiple of
            :obj:`hidden_channels`; :obj:`0` for blocks without them. (default: :obj:`4`)
        num_groups (int, optional): Groups of the feed-forward networks. (default: :obj:`8`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.05`)
        undirected (bool, optional): If set to :obj:`False`, edges are used in the direction of the
            data flow only. (default: :obj:`True`)
        attention (str, optional): :obj:`"linear"` is the graph-aided attention of the paper. For
            comparison, :obj:`"softmax"` is vanilla self-attention between neighbors, and
            :obj:`"global_softmax"` between all nodes of a graph, to which edges are of no concern
            then; see :class:`~narformer_pyg.nn.SoftmaxAttentionConv`. (default: :obj:`"linear"`)
        layer_scale (float, optional): What the learned scale of the feed-forward networks starts
            at; :obj:`None` for none. (default: :obj:`1e-4`)
        norm (str, optional): What follows the attention: :obj:`"unit"` divides each node state by
            its Euclidean norm, as the paper does, :obj:`"layer"` is a layer norm.
            (default: :obj:`"unit"`)
        act (str, optional): The activation. (default: :obj:`"relu"`)
        **kwargs (optional): Additional arguments of the attention, by default
            :class:`~narformer_pyg.nn.GraphAidedAttentionConv`.

    Shapes:
        - **input:** node codes :math:`(|\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)`, batch vector :math:`(|\mathcal{V}|)` *(optional)*, code of
          the graph features :math:`(|\mathcal{G}|, F_s)` *(optional)*
        - **output:** positive predictions :math:`(|\mathcal{G}|, T)`
    """

    #: Where further arguments go, which :func:`~narformer_pyg.nn.models.create_model` checks.
    PASSES_ON_TO = (GraphAidedAttentionConv, MessagePassing)

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 512,
        num_blocks: int = 6,
        out_channels: int = 1,
        readout: str = "fusion",
        static_channels: int = 0,
        ffn_ratio: int = 4,
        num_groups: int = 8,
        dropout: float = 0.05,
        undirected: bool = True,
        attention: str = "linear",
        layer_scale: float | None = 1e-4,
        norm: str = "unit",
        act: str = "relu",
        **kwargs: Any,
    ) -> None:
        check_integer("ffn_ratio", ffn_ratio, 0)
        if attention not in (known := (*ATTENTIONS.names(), "global_softmax")):
            raise ValueError(
                f"Expected 'attention' to be among {', '.join(known)} (got {attention!r})"
            )
        check_integer("num_groups", num_groups)
        if check_integer("hidden_channels", hidden_channels) % num_groups != 0:
            raise ValueError(
                "Expected 'hidden_channels' to be a multiple of 'num_groups' "
                f"(got {hidden_channels} and {num_groups})"
            )
        super().__init__(
            in_channels,
            hidden_channels,
            num_blocks,
            out_channels,
            readout,
            static_channels,
            dropout,
            undirected,
            act,
        )
        self.config.update(
            ffn_ratio=ffn_ratio,
            num_groups=num_groups,
            attention=attention,
            layer_scale=layer_scale,
            norm=norm,
            **kwargs,
        )
        self.attention = attention
        self.blocks = torch.nn.ModuleList(
            NARFormerV2Block(
                in_channels if i == 0 else hidden_channels,
                hidden_channels,
                ffn_ratio,
                num_groups,
                dropout,
                attention.removeprefix("global_"),
                layer_scale,
                norm,
                act,
                **kwargs,
            )
            for i in range(num_blocks)
        )

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        for block in self.blocks:
            cast(NARFormerV2Block, block).reset_parameters()

    def connect(self, edge_index: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        r"""Returns the edges that blocks use: those given, or all pairs of nodes of a graph."""
        if self.attention == "global_softmax":
            return all_pairs(batch, batch_size)
        return super().connect(edge_index, batch, batch_size)

    def encode(self, x: Tensor, edge_index: Tensor) -> list[Tensor]:
        r"""Returns the node states :math:`(|V|, F)` after every block."""
        states = []
        for block in self.blocks:
            x = block(x, edge_index)
            states.append(x)
        return states

    @classmethod
    def from_released_checkpoint(
        cls, checkpoint: str | os.PathLike[str] | Mapping[str, Any], **kwargs: Any
    ) -> NARFormerV2:
        r"""Loads a checkpoint that the authors' code has written.

        Sizes and task are inferred from the weights. See
        :func:`narformer_pyg.nn.models.released_checkpoint.convert_released_state_dict`.

        Args:
            checkpoint (str or os.PathLike or dict): The file, or what :meth:`torch.load` returns
                for it, or the state dict inside.
            **kwargs (optional): What cannot be inferred from weights: :obj:`dropout`,
                :obj:`undirected` and :obj:`normalize`.

        Raises:
            CheckpointError: If the file is not such a checkpoint; the message names the keys that
                are missing, unknown or of the wrong shape.
        """
        config, state_dict = load_released_checkpoint(checkpoint)
        try:
            with torch.device("meta"):  # only names and shapes are needed
                expected = {k: v.shape for k, v in cls(**config).state_dict().items()}
        except ValueError as error:
            raise CheckpointError(
                f"Expected 'checkpoint' to hold weights of consistent sizes (got: {error})"
            ) from error
        check_names_and_shapes(state_dict, expected)
        model = cls(**{**config, **kwargs})
        model.load_state_dict(state_dict)
        return model


def all_pairs(batch: Tensor, batch_size: int) -> Tensor:
    r"""Returns the edges between all nodes of each graph, self-loops among them.

    Args:
        batch (torch.Tensor): The graph :math:`(|\mathcal{V}|)` of each node, in ascending order.
        batch_size (int): The number of graphs.
    """
    count = torch.bincount(batch, minlength=batch_size)
    first = count.cumsum(0) - count
    repeats = count.index_select(0, batch)  # each node meets as many
    source = torch.arange(batch.numel(), device=batch.device).repeat_interleave(repeats)
    start = repeats.cumsum(0) - repeats
    rank = torch.arange(source.numel(), device=batch.device) - start.index_select(0, source)
    return torch.stack([source, first.index_select(0, batch.index_select(0, source)) + rank])
