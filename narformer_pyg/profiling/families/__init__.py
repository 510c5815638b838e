"""Generators of random networks, family by family."""

from narformer_pyg.profiling.families.generate import FAMILIES, Family, generate

__all__ = ["FAMILIES", "Family", "generate"]
