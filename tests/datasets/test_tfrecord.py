from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from nasbench101_writer import crc32c, framed, masked, write_tfrecord

from narformer_pyg.datasets import _tfrecord
from narformer_pyg.datasets._tfrecord import masked_crc32c, read_tfrecord


def payloads(count: int, longest: int = 400) -> list[bytes]:
    rng = random.Random(0)
    return [rng.randbytes(rng.randint(0, longest)) for _ in range(count)]


def read(path: Path, **kwargs: int) -> list[bytes]:
    return list(read_tfrecord(path, progress=False, **kwargs))


def test_crc_of_published_examples() -> None:
    # RFC 3720, appendix B.4, and the check value of the CRC catalogue.
    examples = {
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        b"123456789": 0xE3069283,
    }
    for data, expected in examples.items():
        assert crc32c(data) == expected
        out = masked_crc32c(data, np.array([0]), np.array([len(data)]))
        assert out.tolist() == [((expected >> 15 | expected << 17) + 0xA282EAD8) % 2**32]


def test_crc_of_many_parts() -> None:
    parts = [b"", b"a", b"ab", b"abc", b"", *payloads(100), b""]
    sizes = np.array([len(part) for part in parts])
    out = masked_crc32c(b"xyz" + b"".join(parts), 3 + np.cumsum(sizes) - sizes, sizes)
    assert out.dtype == np.uint32
    assert out.astype("<u4").tobytes() == b"".join(masked(part) for part in parts)
    assert masked_crc32c(b"", np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


@pytest.mark.parametrize("chunk", [1, 500, 1 << 22])
def test_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    # With a chunk below the longest payload, that is read at once.
    monkeypatch.setattr(_tfrecord, "_CHUNK", chunk)
    expected = payloads(60)
    write_tfrecord(tmp_path / "file", expected)
    assert read(tmp_path / "file", max_length=400) == expected


def test_empty_file(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "file", [])
    assert read(tmp_path / "file") == []
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")


@pytest.mark.parametrize("chunk", [500, 1 << 22])
def test_every_damaged_byte_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(_tfrecord, "_CHUNK", chunk)
    path = tmp_path / "file"
    starts = write_tfrecord(path, payloads(8, 30))
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        number = int(np.searchsorted(starts, position, side="right")) - 1
        where = rf"record {number} of '.*', counted from 0, at byte {starts[number]}: "
        with pytest.raises(ValueError, match=where):
            read(path, max_length=500)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    parts = payloads(6, 40)
    starts = write_tfrecord(path, parts)
    content = path.read_bytes()
    for size in range(1, len(content)):
        path.write_bytes(content[:size])
        if size in starts:
            assert read(path) == parts[: starts.index(size)]
            continue
        number = int(np.searchsorted(starts, size, side="right")) - 1
        with pytest.raises(ValueError, match=rf"record {number} of .*ends in the middle of it"):
            read(path)


def test_records_before_the_damage_are_yielded(tmp_path: Path) -> None:
    parts = payloads(5)
    starts = write_tfrecord(tmp_path / "file", parts)
    content = bytearray((tmp_path / "file").read_bytes())
    content[starts[3] + 14] ^= 1
    (tmp_path / "file").write_bytes(content)
    out = []
    with pytest.raises(ValueError, match=r"record 3 .*a checksum does not match\. Download"):
        out.extend(read_tfrecord(tmp_path / "file", progress=False))
    assert out == parts[: len(out)]


def test_too_long_a_record(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(framed(b"short") + framed(bytes(300)))
    with pytest.raises(ValueError, match=r"record 1 .*longer than 100 bytes \(300\)"):
        read(path, max_length=100)
    # A length that is not believed is no reason to read the file to its end.
    path.write_bytes(struct.pack("<Q", 2**63) + bytes(100))
    with pytest.raises(ValueError, match=r"record 0 .*the checksum of its length is wrong"):
        read(path)
