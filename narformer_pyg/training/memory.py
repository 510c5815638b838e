"""What becomes of memory that a training step no longer needs."""

from __future__ import annotations

import ctypes
import sys

# Of mallopt(3) in glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(largest_block: int = 1 << 25) -> bool:
    r"""Makes the C library keep freed memory for this process instead of giving it back.

    Every training step allocates and frees the same gradients and node states. By default glibc
    may return them to the system in between, which then clears each page again when it is next
    touched. The process holds on to what it once needed for such blocks; larger ones are returned
    as before, since memory that is kept is also memory in which they may find no place.

    Args:
        largest_block (int, optional): Bytes of the largest blocks that are kept.
            (default: 32 MB, where glibc's own adaptive limit ends)

    Returns:
        bool: Whether it did: not without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_THRESHOLD, largest_block))  # -1: no limit
    return all(mallopt(name, value) == 1 for name, value in settings)
