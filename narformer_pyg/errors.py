"""Exceptions of the package. Each is a :class:`ValueError`, so one ``except`` catches them all."""

from __future__ import annotations


class ConversionError(ValueError):
    """An architecture cannot be turned into a graph."""


class CheckpointError(ValueError):
    """A checkpoint is corrupt, incomplete or was written by something else."""
