"""Files that survive a kill: complete or absent, or a journal of complete lines."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

T = TypeVar("T")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path that is renamed to ``path`` when the block ends without an error.

    A process that is killed in the block leaves the old file, never half of the new one.
    Missing parent folders are created.

    Args:
        path (str or os.PathLike): The file to write.

    Raises:
        OSError: If the folder cannot be created or written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Same folder (a rename never crosses file systems), same ending (numpy and matplotlib read it).
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises an :class:`OSError` now if a file at ``path`` could not be written later."""
    parent = Path(path).parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=parent):
        pass


def is_inside(name: str) -> bool:
    """Tells whether a path with forward slashes names something below the folder it starts from."""
    normal = posixpath.normpath(name)
    return bool(name) and not normal.startswith("/") and normal.split("/")[0] != ".."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Journal:
    r"""A file of JSON lines: a header with the settings of a long run, then one entry a line.

    An entry is on the disk when :meth:`write` returns. A last line that a kill cut off is dropped
    when the journal is opened again. The journal is locked until it is closed, so two processes
    never write to one file.

    Args:
        path (str or os.PathLike): The file; created if missing, left alone if it is no journal.
        kind (str): The kind of run, *e.g.*, :obj:`"search"`.
        settings (Mapping): The settings that all entries share.

    Raises:
        OSError: If the file cannot be read or created.
        ValueError: If the file is in use, damaged, something else, or has other settings.
    """

    def __init__(
        self, path: str | os.PathLike[str], kind: str, settings: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self.kind = kind
        #: What the file held when it was opened.
        self.entries: list[dict[str, Any]] = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self._read({"format": f"narformer_pyg.{kind}", "version": 1, "settings": settings})
        except BaseException:
            self.close()
            raise

    def write(self, entry: Mapping[str, Any]) -> None:
        """Adds an entry and waits until it is on the disk."""
        self._file.write(_line(entry))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file and releases the lock."""
        self._file.close()

    def damaged(self, reason: str) -> ValueError:
        """Returns the error to raise for content that no journal of this kind has."""
        return ValueError(
            f"Expected {str(self.path)!r} to be the journal of a {self.kind} (got a file of other "
            f"content: {reason}); move it away, or pass another file"
        )

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Expected {str(self.path)!r} to be free (got a journal that another {self.kind} "
                "writes to); wait until it ends, or pass another file"
            ) from None

    def _read(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        first = _line(header)
        if first.startswith(content):  # new, or killed while the header was written
            self._file.truncate(0)
            self.write(header)
            return
        end = content.rfind(b"\n") + 1
        lines = content[:end].splitlines()
        try:
            for line in lines:
                self.entries.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise self.damaged(f"line {len(self.entries) + 1} is not an entry: {error}") from error
        found = self.entries.pop(0) if self.entries else {}
        if [found.get(k) for k in ("format", "version")] != [header["format"], header["version"]]:
            raise self.damaged("its first line is not a header")
        then, now = found.get("settings"), json.loads(first)["settings"]
        if not isinstance(then, dict):
            raise self.damaged("its header has no settings")
        if then != now:
            changed = [
                f"{name}: {then.get(name)!r} then, {now.get(name)!r} now"
                for name in {**then, **now}
                if then.get(name) != now.get(name)
            ]
            raise ValueError(
                f"Expected the settings of the unfinished {self.kind} in {str(self.path)!r} (got "
                f"{'; '.join(changed)}); use the same settings, move it away, or pass another file"
            )
        if end < len(content):
            log.warning("Dropped the last line of %s, which was cut off", self.path)
            self._file.truncate(end)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, allow_nan=False).encode() + b"\n"
