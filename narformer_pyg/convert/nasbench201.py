"""NAS-Bench-201 cells as graphs."""

from __future__ import annotations

from torch_geometric.data import Data

from narformer_pyg.spaces import NASBench201Cell


def from_nasbench201(arch: str | NASBench201Cell) -> Data:
    r"""Converts a cell of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ to a graph.

    .. code-block:: python

        data = from_nasbench201(
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+"
            "|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
        )
        # NASBench201Data(edge_index=[2, 10], op=[8], position=[8], num_nodes=8)

    Args:
        arch (str or NASBench201Cell): The architecture, in the benchmark's notation or parsed.

    Returns:
        Data: The graph with its operations on the nodes, see :meth:`NASBench201Cell.to_data`.

    Raises:
        ConversionError: If the string is not a cell of this space.
        TypeError: If :obj:`arch` is neither a string nor a cell.
    """
    if isinstance(arch, NASBench201Cell):
        return arch.to_data()
    if not isinstance(arch, str):
        raise TypeError(
            "Expected 'arch' to be an architecture string or a NASBench201Cell "
            f"(got {type(arch).__name__}: {arch!r})"
        )
    return NASBench201Cell.from_str(arch).to_data()
