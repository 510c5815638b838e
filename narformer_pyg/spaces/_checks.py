"""Checks of arguments that the search spaces share."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def check_rng(rng: Any) -> np.random.Generator:
    """Returns ``rng``, or raises a :class:`TypeError` unless it is a NumPy generator."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"Expected 'rng' to be a numpy.random.Generator, as numpy.random.default_rng(0) "
            f"returns it (got {type(rng).__name__}: {rng!r})"
        )
    return rng


def check_text(name: str, text: Any) -> str:
    """Returns ``text``, or raises a :class:`TypeError` unless it is a string."""
    if not isinstance(text, str):
        raise TypeError(
            f"Expected '{name}' to be a string (got {type(text).__name__}: {text!r:.80})"
        )
    return text


def check_number(name: str, value: Any, end: int) -> int:
    """Returns ``value`` as an integer, or raises unless it is one from 0 to ``end - 1``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f"Expected '{name}' to be an integer (got {type(value).__name__}: {value!r})"
        )
    if not 0 <= value < end:
        raise ValueError(f"Expected '{name}' to be between 0 and {end - 1} (got {value})")
    return int(value)


def check_images(x: Tensor, factor: int = 4) -> None:
    """Raises a :class:`ValueError` unless the network can halve the images down to a factor."""
    if x.dim() != 4 or x.size(1) != 3 or x.size(2) % factor or x.size(3) % factor:
        raise ValueError(
            f"Expected 'x' to have the shape [B, 3, H, W] with H and W divisible by {factor} "
            f"(got {list(x.shape)})"
        )
