"""One entrance for everything that can become a graph."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import Data

from narformer_pyg.convert.nasbench201 import from_nasbench201
from narformer_pyg.errors import ConversionError


def to_data(architecture: Any) -> Data:
    r"""Turns an architecture into a graph, whatever its form.

    Args:
        architecture (str, cell or Data): An arch string of NAS-Bench-201, a cell of a search space
            (anything with a method :obj:`to_data`), or a graph, which is returned as it is.

    Raises:
        ConversionError: If it is none of these, or malformed.
    """
    if isinstance(architecture, Data):
        return architecture
    if isinstance(architecture, str):
        return from_nasbench201(architecture)
    if hasattr(architecture, "to_data"):
        return architecture.to_data()
    raise ConversionError(
        "Expected an architecture to be a NAS-Bench-201 arch string, a cell of a search space or a "
        f"torch_geometric.data.Data (got {type(architecture).__name__}: {architecture!r:.80})"
    )
