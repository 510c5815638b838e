"""Tables of measured latencies: CSV files, and the text files of NNLQP."""

from __future__ import annotations

import csv
import hashlib
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from narformer_pyg._files import is_inside

#: The name that NNLQP gives its tables.
NNLQP_FILE = "gt.txt"
_COLUMNS = ("file", "latency_ms")
# Bytes above which a file is not read to tell whether it has changed.
_LARGE = 4 * 2**20


@dataclass(frozen=True)
class LatencyRow:
    r"""One measured model.

    Args:
        file (str): The ONNX file, relative to the folder of models.
        latency_ms (float): Its latency in milliseconds.
        where (str): The line of the table, for messages.
        family (str): The family of the model, or nothing.
        batch_size (int, optional): The batch size that was measured, where the file does not say.
        input_shapes (tuple): Pairs of input and shape that were measured.
        platform (str): The device that was measured, or nothing.
        stage (str): :obj:`"train"` or :obj:`"test"` where the table assigns it, or nothing.
    """

    file: str
    latency_ms: float
    where: str
    family: str = ""
    batch_size: int | None = None
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    platform: str = ""
    stage: str = ""

    @property
    def model(self) -> tuple[str, int | None, tuple[tuple[str, tuple[int, ...]], ...]]:
        """The measured model: equal for two measurements of the same one."""
        return self.file, self.batch_size, self.input_shapes


def read_latency_table(
    path: str | os.PathLike[str], platform: str | int | None = None
) -> list[LatencyRow]:
    r"""Reads a CSV table of latencies, or a file of NNLQP.

    A CSV file has the columns :obj:`file` and :obj:`latency_ms`, and optionally :obj:`family`,
    :obj:`input_shapes`, :obj:`platform` and :obj:`stage`. The lines of a file :obj:`*.txt` of NNLQP
    are ``id file batch latency family platform [stage]``. Several platforms require a choice.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the table lacks a column, is empty, holds a wrong value, several platforms,
            or a model twice.
    """
    path = Path(path)
    try:
        rows = _read_nnlqp(path) if path.suffix == ".txt" else _read_csv(path)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected 'labels' to be a text file in UTF-8 (got {str(path)!r}: {error})"
        ) from error
    if not rows:
        raise ValueError(
            f"Expected 'labels' to hold at least one latency (got {str(path)!r}, which is empty)"
        )
    known = sorted({row.platform for row in rows})
    if platform is not None:
        rows = [row for row in rows if row.platform == str(platform)]
        if not rows:
            raise ValueError(
                f"Expected 'platform' to be among {', '.join(map(repr, known))}, the platforms of "
                f"{str(path)!r} (got {str(platform)!r})"
            )
    elif len(known) > 1:
        raise ValueError(
            f"Expected 'platform' to say which of {', '.join(map(repr, known))} to predict, since "
            f"{str(path)!r} holds several (got None)"
        )
    seen: dict[object, LatencyRow] = {}
    for row in rows:
        first = seen.setdefault(row.model, row)
        if first is not row:
            raise ValueError(
                f"Expected 'labels' to name each model once (got {row.file!r} in {first.where} and "
                f"in {row.where}); it could be in training and test set"
            )
    return rows


def digest(rows: list[LatencyRow], models: Path) -> str:
    """Returns a hash of labels and models, of large files by size and time of the last change."""
    out = hashlib.sha256(b"" if models.is_dir() else models.read_bytes())
    files: dict[str, str] = {}
    for row in rows:
        if models.is_dir() and row.file not in files:
            files[row.file] = _file_digest(models / row.file)
        content = (*row.model, row.latency_ms, row.family, row.platform, row.stage)
        out.update(f"{content!r}{files.get(row.file, '')}\n".encode())
    return out.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    status = path.stat()
    if status.st_size > _LARGE:
        return f"{status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_files(rows: list[LatencyRow], folder: Path, models: Path, name: str) -> None:
    """Raises unless each model is in the folder, which is that of ``models`` or in an archive."""
    missing = [row for row in rows if not (folder / row.file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Expected 'models' to hold every model of {name!r} (got {str(models)!r} without "
            f"{len(missing)} of {len(rows)}, {missing[0].file!r} of {missing[0].where} for one)"
        )


def _read_csv(path: Path) -> list[LatencyRow]:
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        missing = [name for name in _COLUMNS if name not in header]
        if missing:
            raise ValueError(
                f"Expected 'labels' to have the columns {', '.join(_COLUMNS)} (got {str(path)!r} "
                f"without {', '.join(missing)}, but with {', '.join(header) or 'none'})"
            )
        for line in reader:
            where = f"line {reader.line_num} of {path.name}"
            text = {name: (line.get(name) or "").strip() for name in header}
            rows.append(
                LatencyRow(
                    _file(text["file"], where),
                    _latency(text["latency_ms"], where),
                    where,
                    family=text.get("family", ""),
                    input_shapes=_shapes(text.get("input_shapes", ""), where),
                    platform=text.get("platform", ""),
                    stage=text.get("stage", ""),
                )
            )
    return rows


def _read_nnlqp(path: Path) -> list[LatencyRow]:
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        items = line.split()
        where = f"line {number} of {path.name}"
        if not items:
            continue
        if len(items) not in (6, 7):
            raise ValueError(
                f"Expected {where} to be 'id file batch latency family platform [stage]' "
                f"(got {len(items)} values: {line[:80]!r})"
            )
        batch = int(_number(int, items[2], "batch", where))
        if batch < 1:
            raise ValueError(f"Expected 'batch' in {where} to be positive (got {batch})")
        rows.append(
            LatencyRow(
                _file(items[1], where),
                _latency(items[3], where),
                where,
                family=items[4],
                batch_size=batch,
                platform=items[5],
                stage=items[6] if len(items) == 7 else "",
            )
        )
    return rows


def _file(text: str, where: str) -> str:
    if not is_inside(text):
        raise ValueError(f"Expected 'file' in {where} to name a model in 'models' (got {text!r})")
    return posixpath.normpath(text)


def _latency(text: str, where: str) -> float:
    value = _number(float, text, "latency_ms", where)
    if not np.finfo(np.float32).tiny <= value <= np.finfo(np.float32).max:  # as it is stored
        raise ValueError(
            f"Expected 'latency_ms' in {where} to be positive and finite (got {text}); leave out "
            "models that were not measured"
        )
    return value


def _number(read: Callable[[str], float], text: str, name: str, where: str) -> float:
    try:
        return read(text)
    except ValueError:
        raise ValueError(f"Expected '{name}' in {where} to be a number (got {text!r})") from None


def _shapes(text: str, where: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    shapes = []
    for item in text.split():
        name, _, dims = item.rpartition(":")
        try:
            # An input without dimensions has nothing behind its name.
            shapes.append((name, tuple(int(d) for d in dims.split("x") if dims)))
        except ValueError:
            name = ""
        if not name:
            raise ValueError(
                f"Expected 'input_shapes' in {where} to be like 'input:1x3x224x224' (got {text!r})"
            )
    return tuple(shapes)
