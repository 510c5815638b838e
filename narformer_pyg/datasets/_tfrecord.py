"""Reads TFRecord files without TensorFlow, every checksum verified.

A record is its length (8 bytes, little-endian), the masked CRC-32C of the length, the payload and
the masked CRC-32C of the payload (4 bytes each). See
https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator

import numpy as np
from tqdm.auto import tqdm

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_MASK_DELTA = 0xA282EAD8
_CHUNK = 1 << 22  # bytes read at once
_MAX_LENGTH = 1 << 14  # of a payload: the tables below grow with it
_HEADER = struct.Struct("<Q")


def read_tfrecord(
    path: str | os.PathLike[str], progress: bool = True, max_length: int = _MAX_LENGTH
) -> Iterator[bytes]:
    """Yields the payloads of a file, read in pieces of four megabytes.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is truncated, damaged or has a payload of more than
            :obj:`max_length` bytes; the message names the record, counted from 0.
    """
    number = 0  # of the first record in the buffer
    offset = 0  # of the buffer in the file
    buffer = b""
    with (
        open(path, "rb") as file,
        tqdm(
            total=os.path.getsize(path),
            desc=f"Reading {os.path.basename(path)}",
            unit="B",
            unit_scale=True,
            disable=None if progress else True,  # None: shown on terminals only
        ) as bar,
    ):
        while True:
            piece = file.read(max(_CHUNK, max_length))
            buffer += piece
            starts, end = _frame(buffer, max_length)
            good = _verify(buffer, starts, end)
            for start in starts[:good]:
                yield buffer[start + 12 : start + 12 + _HEADER.unpack_from(buffer, start)[0]]
            number += good
            if good < len(starts):
                raise _damaged(path, number, offset + starts[good], "a checksum does not match")
            offset += end
            buffer = buffer[end:]
            bar.update(len(piece))
            if len(buffer) >= 12:
                # Too long for the rest of the buffer, or simply wrong.
                (length,) = _HEADER.unpack_from(buffer)
                if not _verify_header(buffer):
                    raise _damaged(path, number, offset, "the checksum of its length is wrong")
                if length > max_length:
                    what = f"it is longer than {max_length} bytes ({length})"
                    raise _damaged(path, number, offset, what)
            if not piece:
                if buffer:
                    raise _damaged(path, number, offset, "the file ends in the middle of it")
                return


def masked_crc32c(buffer: bytes, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    r"""Returns the masked CRC-32C of many parts of a buffer at once: uint32, :obj:`[num_parts]`.

    A CRC is linear: it is the exclusive or of one term for each byte, which a table gives by the
    byte's value and its distance from the end. The arguments say where each part begins and how
    many bytes it has, int64.
    """
    crc = np.zeros(len(sizes), dtype=np.uint32)
    filled = np.flatnonzero(sizes)
    table, initial = _tables(1 << max(6, int(sizes.max(initial=0)).bit_length()))
    if len(filled):
        size = sizes[filled]
        first = np.cumsum(size) - size  # of each part, in the concatenation of all
        place = np.arange(int(size.sum()), dtype=np.int32)
        shift = (starts[filled] - first).astype(np.int32)
        byte = np.frombuffer(buffer, np.uint8)[place + np.repeat(shift, size)]
        distance = np.repeat((first + size - 1).astype(np.int32), size) - place
        contribution = table.take(distance * 256 + byte)
        crc[filled] = np.bitwise_xor.reduceat(contribution, first)
    crc = ~(crc ^ initial[sizes])
    return (crc >> 15 | crc << 17) + np.uint32(_MASK_DELTA)


@functools.lru_cache(maxsize=2)
def _tables(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the terms of a byte by its distance from the end, and those of the initial value."""
    step = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        step = np.where(step & 1, step >> 1 ^ np.uint32(_POLYNOMIAL), step >> 1)
    table = np.empty((size, 256), dtype=np.uint32)
    initial = np.empty(size, dtype=np.uint32)
    table[0], initial[0] = step, 0xFFFFFFFF
    for i in range(1, size):
        table[i] = table[i - 1] >> 8 ^ step[table[i - 1] & 0xFF]
        initial[i] = initial[i - 1] >> np.uint32(8) ^ step[initial[i - 1] & 0xFF]
    return table.ravel(), initial


def _frame(buffer: bytes, max_length: int) -> tuple[list[int], int]:
    """Returns the beginnings of complete records, if the lengths are right, and their end."""
    starts: list[int] = []
    position, end = 0, len(buffer)
    while position + 12 <= end:
        (length,) = _HEADER.unpack_from(buffer, position)
        if length > max_length or position + 16 + length > end:
            break
        starts.append(position)
        position += 16 + length
    return starts, position


def _verify(buffer: bytes, starts: list[int], end: int) -> int:
    """Returns the number of records before the first one with a wrong checksum."""
    if not starts:
        return 0
    header = np.array(starts, dtype=np.int64)
    length = np.diff(header, append=end) - 16
    # Length and payload of each record in turn.
    parts = np.stack([header, header + 12], axis=1).ravel()
    sizes = np.stack([np.full_like(length, 8), length], axis=1).ravel()
    right = masked_crc32c(buffer, parts, sizes) == _stored(buffer, parts + sizes)
    right = right.reshape(-1, 2).all(axis=1)
    return len(starts) if right.all() else int(right.argmin())


def _verify_header(buffer: bytes) -> bool:
    crc = masked_crc32c(buffer, np.array([0]), np.array([8]))
    return bool(crc[0] == _stored(buffer, np.array([8]))[0])


def _stored(buffer: bytes, positions: np.ndarray) -> np.ndarray:
    """Returns the 32-bit numbers at some positions."""
    data = np.frombuffer(buffer, np.uint8)
    return data[positions[:, None] + np.arange(4)].copy().view("<u4").ravel()


def _damaged(path: str | os.PathLike[str], number: int, position: int, what: str) -> ValueError:
    return ValueError(
        f"Cannot read record {number} of {os.fspath(path)!r}, counted from 0, at byte {position}: "
        f"{what}. Download the file again, as it is truncated or damaged"
    )
