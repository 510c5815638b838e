"""The file that keeps the evaluations of a search, to resume from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from narformer_pyg._files import Journal
from narformer_pyg.search.evaluation import Evaluation


class EvaluationLog(Journal):
    r"""A file of JSON lines: the settings of the search first, then one line per evaluation.

    Every line is on the disk when :meth:`append` returns, so a killed search loses at most the
    evaluation that was running. The file is locked until :meth:`close`.

    Args:
        path (str or os.PathLike): The file; created if missing.
        settings (Mapping): The settings that determine the proposals of the search. An existing
            file must have the same.

    Raises:
        ValueError: If the file is in use, damaged before its last line, not a log, or of a search
            with other settings; its content does not change.
        OSError: If it cannot be read or created.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        super().__init__(path, "search", settings)
        needed = settings.get("objectives", ())
        try:
            #: The evaluations in the file when it was opened.
            self.history = [self._parse(i, entry, needed) for i, entry in enumerate(self.entries)]
        except ValueError:
            self.close()
            raise

    def append(self, evaluation: Evaluation) -> None:
        """Writes one evaluation; it is on the disk afterwards."""
        # JSON has no NaN and no infinity.
        values = {k: v if math.isfinite(v) else str(v) for k, v in evaluation.values.items()}
        self.write({**asdict(evaluation), "values": values})

    def _parse(self, number: int, entry: dict[str, Any], needed: Iterable[str]) -> Evaluation:
        try:
            values = {k: float(v) for k, v in entry["values"].items()}
            seconds = {k: float(entry[k]) for k in ("seconds", "search_seconds")}
            evaluation = Evaluation(**{**entry, **seconds, "values": values})
            if evaluation.number != number or not isinstance(evaluation.architecture, str):
                raise ValueError(f"its number is {evaluation.number}")
            if evaluation.ok and not all(math.isfinite(values[name]) for name in needed):
                raise ValueError(f"its values are {values}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise self.damaged(f"line {number + 2} is not evaluation {number}: {reason}") from error
        return evaluation
