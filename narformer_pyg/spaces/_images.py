"""What the networks of cells ask of their input."""

from __future__ import annotations

from torch import Tensor


def check_images(x: Tensor) -> None:
    """Raises a :class:`ValueError` unless two halvings of the images :obj:`x` are possible."""
    if x.dim() != 4 or x.size(1) != 3 or x.size(2) % 4 or x.size(3) % 4:
        raise ValueError(
            "Expected 'x' to have the shape [B, 3, H, W] with H and W divisible by 4 "
            f"(got {list(x.shape)})"
        )
