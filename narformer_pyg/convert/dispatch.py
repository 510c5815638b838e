"""One entrance for everything that can become a graph."""

from __future__ import annotations

import re
from typing import Any

from torch_geometric.data import Data

from narformer_pyg.convert.darts import from_darts
from narformer_pyg.convert.nasbench101 import from_nasbench101
from narformer_pyg.convert.nasbench201 import from_nasbench201
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces.nasbench101 import NASBench101Cell

# What every text of a NASBench101Cell ends with, and no arch string of NAS-Bench-201.
_NASBENCH101_TEXT = re.compile(r"output~[0-9,]*$")
# What every genotype begins with, and no text of the other spaces.
_DARTS_TEXT = re.compile(r"\s*Genotype\b")


def to_data(architecture: Any) -> Data:
    r"""Turns an architecture into a graph, whatever its form.

    Args:
        architecture (str, tuple, cell or Data): An arch string of NAS-Bench-201, the text of a
            :class:`~narformer_pyg.spaces.NASBench101Cell`, a genotype in DARTS' notation, a pair
            :obj:`(matrix, operations)` of NAS-Bench-101, a cell of a search space (anything with a
            method :obj:`to_data`), or a graph, which is returned as it is.

    Raises:
        ConversionError: If it is none of these, or malformed.
    """
    if isinstance(architecture, Data):
        return architecture
    if isinstance(architecture, str):
        if _NASBENCH101_TEXT.search(architecture):
            return NASBench101Cell.from_str(architecture).to_data()
        if _DARTS_TEXT.match(architecture):
            return from_darts(architecture)
        return from_nasbench201(architecture)
    if _is_pair(architecture):
        return from_nasbench101(*architecture)
    if hasattr(architecture, "to_data"):
        return architecture.to_data()
    raise ConversionError(
        "Expected an architecture to be a NAS-Bench-201 arch string, a genotype in DARTS' "
        "notation, a pair (matrix, operations) of NAS-Bench-101, a cell of a search space or a "
        f"torch_geometric.data.Data (got {type(architecture).__name__}: {architecture!r:.80})"
    )


def _is_pair(architecture: Any) -> bool:
    """Whether it looks like a matrix and operations, so that errors can be about these."""
    kind = (tuple, list)
    return (
        isinstance(architecture, kind)
        and len(architecture) == 2
        and isinstance(architecture[1], kind)
    )
