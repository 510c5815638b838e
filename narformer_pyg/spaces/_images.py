"""What the networks of cells ask of their input."""

from __future__ import annotations

from torch import Tensor


def check_images(x: Tensor, factor: int = 4) -> None:
    """Raises a :class:`ValueError` unless the images :obj:`x` can be halved down to a factor."""
    if x.dim() != 4 or x.size(1) != 3 or x.size(2) % factor or x.size(3) % factor:
        raise ValueError(
            f"Expected 'x' to have the shape [B, 3, H, W] with H and W divisible by {factor} "
            f"(got {list(x.shape)})"
        )
