"""DARTS genotypes as graphs."""

from __future__ import annotations

from torch_geometric.data import Data

from narformer_pyg.spaces import DARTSGenotype


def from_darts(genotype: str | DARTSGenotype) -> Data:
    r"""Converts a genotype of `DARTS <https://arxiv.org/abs/1806.09055>`_ to a graph.

    .. code-block:: python

        data = from_darts(str(DARTS_GENOTYPES["DARTS_V1"]))
        # DARTSData(edge_index=[2, 42], op=[29], position=[29], num_nodes=29)

    Args:
        genotype (str or DARTSGenotype): The genotype, in DARTS' notation or parsed.

    Returns:
        Data: Both cells as one graph with their operations on the nodes, see
        :meth:`DARTSGenotype.to_data`.

    Raises:
        ConversionError: If the text is not a genotype of this space.
        TypeError: If :obj:`genotype` is neither a string nor a genotype.
    """
    if isinstance(genotype, DARTSGenotype):
        return genotype.to_data()
    if not isinstance(genotype, str):
        raise TypeError(
            "Expected 'genotype' to be a text in DARTS' notation or a DARTSGenotype "
            f"(got {type(genotype).__name__}: {genotype!r})"
        )
    return DARTSGenotype.from_str(genotype).to_data()
