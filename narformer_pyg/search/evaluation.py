"""One evaluated architecture, and what a whole search has found."""

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
        number (int): How many evaluations came before it.
        architecture (str): The architecture, as :meth:`SearchSpace.format` writes it.
        values (dict): What :obj:`evaluate` returned, by name; a plain number is called
            :obj:`"value"`. Empty if it raised.
        error (str, optional): Why the evaluation does not count: the exception, or which value is
            not finite. :obj:`None` if all is well.
        seconds (float): Seconds that :obj:`evaluate` took.
        search_seconds (float): Seconds that the search took to propose the batch that begins with
            this architecture; zero for the others.
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
    r"""What a search has evaluated.

    Args:
        history (list of Evaluation): All evaluations in order, failed ones included.
        best (Evaluation, optional): The best one, for a search with one objective; the earliest
            among equals. :obj:`None` if every evaluation failed or there are several objectives.
        front (list of Evaluation): The evaluations that no other is better than in all objectives.
        exhausted (bool): Whether the search ended before its budget, as it found no architecture
            that was not evaluated yet.
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
        """How many evaluations raised or gave values that are not finite."""
        return sum(not item.ok for item in self.history)


def read_values(result: Any, needed: Sequence[str]) -> tuple[dict[str, float], str | None]:
    r"""Returns what :obj:`evaluate` returned as a dictionary, and why it does not count if so.

    Args:
        result: A number, or a mapping from names to numbers.
        needed (sequence of str): The names that the search reads.

    Raises:
        TypeError: If the result is neither a number nor a mapping of numbers.
        ValueError: If a needed name is missing.
    """
    if isinstance(result, Mapping):
        values = {str(name): _as_float(str(name), value) for name, value in result.items()}
    else:
        values = {VALUE: _as_float(VALUE, result)}
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(
            f"Expected 'evaluate' to return a value for each objective (got {sorted(values)} "
            f"without {missing}); name the objective after what 'evaluate' returns"
        )
    wrong = [name for name in needed if not math.isfinite(values[name])]
    reason = f"{wrong[0]} is {values[wrong[0]]}" if wrong else None
    return values, reason


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
