"""Checks of arguments."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch


def check_integer(name: str, value: Any, least: int = 1, lazy: bool = False) -> int:
    """Returns ``value`` as an integer, or raises unless it is a whole number >= ``least``.

    With ``lazy``, -1 passes too: a size that the first input decides, as everywhere in PyG.
    """
    if lazy and value == -1:
        return -1
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        what = "a positive integer" if least == 1 else f"an integer >= {least}"
        raise ValueError(f"Expected '{name}' to be {what} (got {value!r})")
    return int(value)


def value_range(values: torch.Tensor) -> tuple[int, int] | None:
    """Returns the lowest and highest of some integers, or None where reading them is costly.

    A GPU would have to finish all queued work; compiled or exported code has no values.
    """
    if torch.compiler.is_compiling() or values.device.type != "cpu" or values.numel() == 0:
        return None
    low, high = torch.aminmax(values)
    return int(low), int(high)


def check_seed(value: Any, name: str = "seed") -> int:
    """Returns ``value`` as an integer, or raises unless every generator takes it as a seed."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"Expected '{name}' to be an integer (got {value!r})")
    seed = int(value)
    if not 0 <= seed < 2**63:
        raise ValueError(f"Expected '{name}' to be between 0 and 2**63 - 1 (got {seed})")
    return seed


def resolve_device(device: torch.device | str) -> torch.device:
    """Returns the device called ``device``; ``"auto"`` is the first GPU, or the CPU without one.

    Raises:
        ValueError: If there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = torch.device("meta")
    if parsed.type not in ("cpu", "cuda"):
        raise ValueError(
            f"Expected 'device' to be 'auto', 'cpu', 'cuda' or 'cuda:N' (got {str(device)!r})"
        )
    if parsed.type == "cpu":
        return parsed
    index = parsed.index or 0
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"Expected 'device' to be available (got {str(device)!r}, but PyTorch "
            f"{torch.__version__} sees {torch.cuda.device_count()} CUDA devices); use 'cpu'"
        )
    return torch.device("cuda", index)
