"""Converters from architectures of other formats to graphs."""

from narformer_pyg.convert.dispatch import to_data
from narformer_pyg.convert.nasbench101 import from_nasbench101
from narformer_pyg.convert.nasbench201 import from_nasbench201

__all__ = ["from_nasbench101", "from_nasbench201", "to_data"]
