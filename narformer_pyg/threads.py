"""Threads that leave the processor to others while they wait."""

from __future__ import annotations

import os


def wait_passively() -> None:
    r"""Lets the threads of OpenMP sleep while they wait for each other, unless the user chose.

    By default they spin: beside one busy process, two threads then take ten times as long as one.
    To be called before :mod:`torch` is imported; it sets :obj:`OMP_WAIT_POLICY=PASSIVE` where
    neither this nor :obj:`GOMP_SPINCOUNT` nor :obj:`KMP_BLOCKTIME` is set.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
