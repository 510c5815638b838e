"""The file in which measurements survive a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO


class Journal:
    r"""A file of JSON lines: the settings of a measurement, then an entry per model and pass.

    Every entry is on the disk before the next model runs. A line that a kill or a power cut left
    half-written is dropped when the journal is opened again.

    Args:
        path (Path): The file; it is created where it is missing.
        settings (dict): What all entries have in common.

    Raises:
        ValueError: If the file was written with other settings or is no journal.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        complete = self._read(settings) if path.exists() else 0
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._file.truncate(complete)
        if complete == 0:
            self._write({"settings": settings})

    def append(self, entry: dict[str, Any]) -> None:
        """Adds an entry and waits until it is on the disk."""
        self.entries.append(entry)
        self._write(entry)

    def _read(self, settings: dict[str, Any]) -> int:
        """Reads the complete lines and returns how many bytes they take."""
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        lines = content[:complete].splitlines()
        if not lines:
            return 0
        try:
            header, *self.entries = [json.loads(line) for line in lines]
            found = header["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected {str(self.path)!r} to be the journal of an unfinished measurement "
                f"({error}); delete it to start anew"
            ) from error
        if found != settings:
            different = [
                f"{name} {found.get(name)!r} then, {settings.get(name)!r} now"
                for name in sorted({*found, *settings})
                if found.get(name) != settings.get(name)
            ]
            raise ValueError(
                f"Expected the settings of the unfinished measurement in {str(self.path)!r} (got "
                f"{'; '.join(different)}); use the same settings, or delete the file to start anew"
            )
        return complete

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
