"""The file that evaluations are written to as they come, and resumed from."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from narformer_pyg._files import atomic_write
from narformer_pyg.search.evaluation import Evaluation

log = logging.getLogger(__name__)

_FORMAT = "narformer_pyg.search"
_VERSION = 1


class EvaluationLog:
    r"""A file of JSON lines: the settings of the search first, then one line per evaluation.

    Every line is on the disk when :meth:`append` returns, so that a killed search loses the
    evaluation it was busy with and no other. A last line that was cut off is dropped.

    Args:
        path (str or os.PathLike): The file; created if missing.
        settings (Mapping): What determines the proposals of the search. An existing file must have
            the same.

    Raises:
        ValueError: If the file is something else, is damaged before its last line, or is of a
            search with other settings.
        OSError: If it cannot be read or created.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        #: What the file held when it was opened.
        self.history: list[Evaluation] = []
        # As JSON has them: tuples are lists there.
        plain = json.loads(json.dumps(settings))
        lines = self._read_lines()
        if not lines:
            header = {"format": _FORMAT, "version": _VERSION, "settings": plain}
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps(header) + "\n", "utf-8")
            return
        self._check_header(lines[0], plain)
        self.history = [self._parse(i, line) for i, line in enumerate(lines[1:])]

    def append(self, evaluation: Evaluation) -> None:
        """Writes one evaluation; it is on the disk afterwards."""
        content = asdict(evaluation)
        # JSON knows no NaN and no infinity.
        content["values"] = {
            name: value if math.isfinite(value) else str(value)
            for name, value in evaluation.values.items()
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_lines(self) -> list[str]:
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            log.warning("Dropped the last line of %s, which was cut off", self.path)
            os.truncate(self.path, end)
        try:
            return content[:end].decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise self._damaged(f"it is not text: {error}") from error

    def _check_header(self, line: str, settings: dict[str, Any]) -> None:
        try:
            header = json.loads(line)
            if header["format"] != _FORMAT or header["version"] != _VERSION:
                raise KeyError("format")
            theirs = dict(header["settings"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged("its first line is not that of a log") from error
        changed = [
            f"{name}: {theirs.get(name)!r} there, {settings.get(name)!r} here"
            for name in {**theirs, **settings}
            if theirs.get(name) != settings.get(name)
        ]
        if changed:
            raise ValueError(
                "Expected 'log' to be of a search with the same settings, so that it can go on "
                f"(got {os.fspath(self.path)!r}, which differs in {'; '.join(changed)}); pass "
                "another file or the same settings"
            )

    def _parse(self, number: int, line: str) -> Evaluation:
        try:
            content = json.loads(line)
            content["values"] = {k: float(v) for k, v in content["values"].items()}
            evaluation = Evaluation(**content)
            if evaluation.number != number or not isinstance(evaluation.architecture, str):
                raise ValueError(f"its number is {evaluation.number}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(
                f"line {number + 2} is not evaluation {number}: {type(error).__name__}: {error}"
            ) from error
        return evaluation

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(
            f"Expected 'log' to be a file that a search has written (got "
            f"{os.fspath(self.path)!r}: {reason}); pass another file to start anew"
        )
