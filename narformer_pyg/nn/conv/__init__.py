"""Message passing layers."""

from narformer_pyg.nn.conv.graph_aided_attention_conv import GraphAidedAttentionConv
from narformer_pyg.nn.conv.softmax_attention_conv import SoftmaxAttentionConv

__all__ = ["GraphAidedAttentionConv", "SoftmaxAttentionConv"]
