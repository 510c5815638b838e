"""What cells ask of a source of randomness."""

from __future__ import annotations

import numpy as np


def check_rng(rng: np.random.Generator) -> np.random.Generator:
    """Returns ``rng``, or raises a :class:`TypeError` unless it is a generator of numpy."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"Expected 'rng' to be a numpy.random.Generator, as numpy.random.default_rng(0) "
            f"returns it (got {type(rng).__name__}: {rng!r})"
        )
    return rng
