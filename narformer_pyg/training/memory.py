"""What becomes of memory that a training step no longer needs."""

from __future__ import annotations

import ctypes
import sys

# Of mallopt(3) in glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    r"""Makes the C library keep freed memory for this process instead of giving it back.

    Every training step allocates and frees the same gradients and node states. By default glibc
    returns them to the system in between, and the system clears each page again when it is next
    touched, which took a tenth of the steps of the paper's model. The process holds on to the most
    memory it ever needed; blocks above a gigabyte (in some versions: 32 MB) are returned as before.

    Returns:
        bool: Whether it did: not without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    keeps = mallopt(_M_TRIM_THRESHOLD, -1) == 1  # no limit
    return keeps and any(mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in (1 << 30, 1 << 25))
