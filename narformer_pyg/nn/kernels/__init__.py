"""Faster forms of the layers, behind one door.

The modules of :mod:`narformer_pyg.nn` are plain PyTorch and define what is computed. A kernel takes
over a module where :func:`takes_over` says so, and computes the same. :func:`enabled` switches
kernels off, as the environment variable :obj:`NARFORMER_KERNELS=0` does.
"""

from narformer_pyg.nn.kernels.attention import graph_aided_attention
from narformer_pyg.nn.kernels.block import small_graph
from narformer_pyg.nn.kernels.door import accelerated_by, enabled, takes_over
from narformer_pyg.nn.kernels.dropout import positional_dropout
from narformer_pyg.nn.kernels.feed_forward import grouped_feed_forward
from narformer_pyg.nn.kernels.onednn import onednn_linear

#: The kernels by name, as :func:`enabled` takes them.
NAMES = tuple(
    kernel.name
    for kernel in (
        graph_aided_attention,
        grouped_feed_forward,
        onednn_linear,
        positional_dropout,
        small_graph,
    )
)

__all__ = [
    "NAMES",
    "accelerated_by",
    "enabled",
    "graph_aided_attention",
    "grouped_feed_forward",
    "onednn_linear",
    "positional_dropout",
    "small_graph",
    "takes_over",
]
