"""Writes files in the format of NAS-Bench-101, bit by bit and without the package's reader."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from narformer_pyg.spaces import NASBench101Cell


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[crc & 0xFF ^ byte]
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def write_tfrecord(path: Path, payloads: Iterable[bytes]) -> list[int]:
    """Writes a file and returns where each record begins, and the end."""
    content, starts = b"", [0]
    for payload in payloads:
        content += framed(payload)
        starts.append(len(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return starts


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, wire_type: int, content: bytes) -> bytes:
    return _varint(number << 3 | wire_type) + content


def _double(number: int, value: float) -> bytes:
    return _field(number, 1, struct.pack("<d", value))


def _text(number: int, content: bytes) -> bytes:
    return _field(number, 2, _varint(len(content)) + content)


def evaluation(
    epoch: float, time: float, train: float, valid: float, test: float, checkpoint: str = ""
) -> bytes:
    """One EvaluationData message; accuracies are fractions."""
    out = b"".join(_double(i, v) for i, v in enumerate((epoch, time, train, valid, test), 1))
    return out + (_text(6, checkpoint.encode()) if checkpoint else b"")


def metrics(evaluations: Sequence[bytes], parameters: int, total_time: float) -> bytes:
    """One ModelMetrics message."""
    out = b"".join(_text(1, message) for message in evaluations)
    return out + _field(2, 0, _varint(parameters)) + _double(3, total_time)


def record(
    cell: NASBench101Cell,
    epochs: int,
    train: float,
    valid: float,
    test: float,
    time: float,
) -> bytes:
    """The payload of one run; the evaluations before the last one are decoys."""
    evaluations = [
        evaluation(0.0, 0.0, 0.1, 0.1, 0.1),
        evaluation(epochs / 2, time / 2, 0.2, 0.2, 0.2, "/path/model.ckpt-1"),
        evaluation(float(epochs), time, train, valid, test, "/path/model.ckpt-2"),
    ]
    message = metrics(evaluations, 1_000_000, 1.5 * time)
    return json.dumps(
        [
            cell.module_hash,
            epochs,
            "".join(str(entry) for row in cell.matrix for entry in row),
            ",".join(cell.operations),
            base64.b64encode(message).decode(),
        ]
    ).encode()
