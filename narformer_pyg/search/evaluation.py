"""One evaluated architecture, and the result of a whole search."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The name of the value of an :obj:`evaluate` that returns a plain number.
VALUE = "value"


@dataclass(frozen=True)
class Evaluation:
    r"""One call of :obj:`evaluate`.

    Args:
        number (int): The number of evaluations before it.
        architecture (str): The architecture, as :meth:`SearchSpace.format` writes it.
        values (dict): The result of :obj:`evaluate` by name; a plain number is called
            :obj:`"value"`. Empty if it raised.
        error (str, optional): The reason why the evaluation does not count: the exception, or the
            value that is not finite. :obj:`None` for a good one.
        seconds (float): Seconds in :obj:`evaluate`.
        search_seconds (float): Seconds that the search took to propose the batch that begins with
            this architecture; zero for the rest of the batch.
    """

    number: int
    architecture: str
    values: dict[str, float]
    error: str | None
    seconds: float
    search_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the evaluation gave finite values."""
        return self.error is None


@dataclass(frozen=True)
class SearchResult:
    r"""The evaluations of a search.

    Args:
        history (list of Evaluation): All evaluations in order, failed ones included.
        best (Evaluation, optional): The best one, the earliest among equals. :obj:`None` if every
            evaluation failed or there are several objectives.
        front (list of Evaluation): The evaluations that no other dominates.
        exhausted (bool): Whether the search ended early because it found no new architecture.
    """

    history: list[Evaluation]
    best: Evaluation | None
    front: list[Evaluation]
    exhausted: bool = False

    @property
    def search_seconds(self) -> float:
        """Seconds that the search itself took, without the evaluations."""
        return sum(item.search_seconds for item in self.history)

    @property
    def num_failed(self) -> int:
        """The number of evaluations that raised or gave values that are not finite."""
        return sum(not item.ok for item in self.history)


def read_values(result: Any, needed: Sequence[str]) -> tuple[dict[str, float], str | None]:
    r"""Returns the result of :obj:`evaluate` as a dictionary, and the reason if it does not count.

    Raises:
        TypeError: If the result is neither a number nor a mapping of numbers.
        ValueError: If a needed name is missing.
    """
    items = result if isinstance(result, Mapping) else {VALUE: result}
    values = {str(name): _as_float(str(name), value) for name, value in items.items()}
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(
            f"Expected 'evaluate' to return a value for each objective (got {sorted(values)} "
            f"without {missing}); name the objective after what 'evaluate' returns"
        )
    wrong = [f"{name} is {values[name]}" for name in needed if not math.isfinite(values[name])]
    return values, wrong[0] if wrong else None


def _as_float(name: str, value: Any) -> float:
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        with contextlib.suppress(ValueError, RuntimeError):
            value = value.item()  # arrays and tensors of one element
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            "Expected 'evaluate' to return a number or a dictionary of numbers "
            f"(got {type(value).__name__} for {name!r}: {value!r})"
        )
    return float(value)
