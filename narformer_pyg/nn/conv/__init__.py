"""Message passing layers."""

from narformer_pyg.nn.conv.graph_aided_attention_conv import GraphAidedAttentionConv

__all__ = ["GraphAidedAttentionConv"]
