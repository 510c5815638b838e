"""Labels of benchmarks: kind, unit and description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    r"""One label of a benchmark.

    Args:
        name (str): The name it is selected by, *e.g.*, :obj:`"cifar10_test_acc"`.
        unit (str): :obj:`"percent"`, :obj:`"nats"`, :obj:`"s"` or :obj:`"ms"`.
        kind (str): :obj:`"accuracy"`, :obj:`"loss"`, :obj:`"time"` or :obj:`"latency"`.
        description (str): One sentence on how it was measured.
    """

    name: str
    unit: Literal["percent", "nats", "s", "ms"]
    kind: Literal["accuracy", "loss", "time", "latency"]
    description: str

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one (accuracies only)."""
        return self.kind == "accuracy"


def select_targets(
    target: str | Sequence[str], known: Mapping[str, Target], *, argument: str = "target"
) -> tuple[str, ...]:
    r"""Resolves a selection of targets to their names.

    Raises:
        TypeError: If :obj:`target` is neither a string nor a sequence of strings.
        ValueError: If a name is unknown or given twice, or if there is none.
    """
    if isinstance(target, str):
        names = tuple(known) if target == "all" else (target,)
    elif isinstance(target, Sequence) and all(isinstance(name, str) for name in target):
        names = tuple(target)
    else:
        raise TypeError(
            f"Expected '{argument}' to be a name or a sequence of names (got {target!r})"
        )
    if not names:
        raise ValueError(f"Expected '{argument}' to name at least one target (got {target!r})")
    for name in names:
        if name not in known:
            raise ValueError(
                f"Expected '{argument}' to be 'all' or among {', '.join(known)} (got {name!r})"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"Expected '{argument}' to name each target once (got {target!r})")
    return names
