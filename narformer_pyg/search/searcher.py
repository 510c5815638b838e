"""The base class of searches: the loop over evaluations, the log and resuming."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Generic, Literal, TypeAlias

import numpy as np

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg.search.evaluation import VALUE, Evaluation, SearchResult, read_values
from narformer_pyg.search.log import EvaluationLog
from narformer_pyg.search.pareto_front import non_dominated
from narformer_pyg.search.space import Arch, SearchSpace, check_space

log = logging.getLogger(__name__)

Evaluate: TypeAlias = Callable[[Any], "float | Mapping[str, float]"]
Direction: TypeAlias = Literal["max", "min"]

# Draws in a row without a new architecture after which a space counts as exhausted.
MAX_TRIES = 1000


class Searcher(ABC, Generic[Arch]):
    r"""Base class of searches.

    A search maps the evaluations so far to the architectures to evaluate next: subclasses implement
    :meth:`propose` and keep no state. All random numbers of a batch come from the seed and the
    number of evaluations before it. A search resumed from its log therefore continues as if it had
    never stopped, and a larger budget extends the search of a smaller one.

    Args:
        space (SearchSpace): The space to search.
        objectives (Mapping): :obj:`"max"` or :obj:`"min"` for the name of each value of
            :obj:`evaluate` to optimise.
        seed (int): Seed of all draws.

    Raises:
        TypeError: If :obj:`space` is not a search space.
        ValueError: If an argument is wrong.
    """

    #: The attributes that determine the proposals, besides space, objectives and seed.
    setting_names: ClassVar[tuple[str, ...]] = ()
    #: The size of the first batch; without one, all batches have :attr:`batch_size`.
    initial = 0
    #: The size of a batch of proposals.
    batch_size = 1

    def __init__(
        self, space: SearchSpace[Arch], objectives: Mapping[str, Direction], seed: int
    ) -> None:
        self.space: SearchSpace[Arch] = check_space(space)
        self.objectives = dict(objectives)
        for name, direction in self.objectives.items():
            if direction not in ("max", "min"):
                raise ValueError(
                    f"Expected 'objectives' to say 'max' or 'min' for each name (got {direction!r} "
                    f"for {name!r})"
                )
        self.seed = check_seed(seed)
        # Architectures and keys of evaluations, which every proposal needs again.
        self._parsed: dict[str, tuple[Arch, str]] = {}

    @abstractmethod
    def propose(
        self, history: Sequence[Evaluation], count: int, rng: np.random.Generator
    ) -> list[Arch]:
        r"""Returns the next architectures to evaluate.

        Args:
            history (sequence of Evaluation): All evaluations so far.
            count (int): The number of architectures to return; fewer end the search.
            rng (numpy.random.Generator): The source of randomness.
        """

    @property
    def least_budget(self) -> int:
        """The smallest useful budget: the first batch and one more."""
        return self.initial + self.batch_size

    def settings(self) -> dict[str, Any]:
        """Returns all that determines the proposals, in values that JSON has."""
        return {
            "search": type(self).__name__,
            "space": self.space.name,
            "objectives": self.objectives,
            "seed": self.seed,
            **{name: getattr(self, name) for name in self.setting_names},
        }

    def run(
        self,
        evaluate: Evaluate,
        budget: int,
        *,
        log: str | os.PathLike[str] | None = None,
        callback: Callable[[Evaluation], None] | None = None,
    ) -> SearchResult:
        r"""Searches until the budget is used up.

        Args:
            evaluate (callable): Maps an architecture to a number, or to a dictionary of numbers. If
                it raises, or an objective is not finite, the search records the reason and
                continues; the evaluation counts.
            budget (int): The number of evaluations, those in :obj:`log` included.
            log (str or os.PathLike, optional): A file that receives each evaluation. If it exists,
                the search resumes from it. (default: :obj:`None`)
            callback (callable, optional): Called with each new evaluation.
                (default: :obj:`None`)

        Raises:
            TypeError: If :obj:`evaluate` cannot be called or returns something else.
            ValueError: If :obj:`budget` is too small, :obj:`log` is in use, damaged or of another
                search, or :obj:`evaluate` returns no value for an objective.
        """
        if not callable(evaluate):
            raise TypeError(
                f"Expected 'evaluate' to be a function of an architecture (got {evaluate!r})"
            )
        check_integer("budget", budget)
        if budget < self.least_budget:
            raise ValueError(
                f"Expected 'budget' to be at least {self.least_budget} for {self} (got {budget})"
            )
        with nullcontext() if log is None else EvaluationLog(log, self.settings()) as file:
            history = [] if file is None else file.history
            exhausted = False
            start = 0
            while len(history) < budget and not exhausted:
                while start + self._count(start) <= len(history):
                    start += self._count(start)
                count = self._count(start)
                clock = time.perf_counter()
                # The whole batch, whatever the budget: a larger one continues with its rest.
                rng = np.random.default_rng([self.seed, start])
                batch = self.propose(history[:start], count, rng)
                search_seconds = time.perf_counter() - clock
                exhausted = len(batch) < count
                left = self._remaining(batch, history[start:])[: budget - len(history)]
                for architecture in left:
                    item = self._evaluate(evaluate, architecture, len(history), search_seconds)
                    search_seconds = 0.0
                    if file is not None:
                        file.append(item)
                    history.append(item)
                    if callback is not None:
                        callback(item)
                start += count
        return self.result(history, exhausted and len(history) < budget)

    def _count(self, start: int) -> int:
        """Returns the size of the batch that begins after :obj:`start` evaluations."""
        return self.initial if start < self.initial else self.batch_size

    def result(self, history: Iterable[Evaluation], exhausted: bool = False) -> SearchResult:
        """Returns the best of some evaluations and their Pareto front."""
        history = list(history)
        good = [item for item in history if item.ok]
        scores = self.scores(good)  # [n, num_objectives]
        front = [good[i] for i in non_dominated(scores)] if good else []
        best = None
        if good and len(self.objectives) == 1:
            best = good[int(scores[:, 0].argmax())]
        return SearchResult(history, best, front, exhausted)

    def scores(self, evaluations: Sequence[Evaluation]) -> np.ndarray:
        """Returns the objectives such that larger is better: float64, [n, num_objectives]."""
        sign = np.array([1.0 if d == "max" else -1.0 for d in self.objectives.values()])
        rows = [[item.values[name] for name in self.objectives] for item in evaluations]
        return np.array(rows, dtype=np.float64).reshape(-1, len(sign)) * sign

    def architecture(self, evaluation: Evaluation) -> Arch:
        """Returns the architecture of an evaluation."""
        return self._parse(evaluation)[0]

    def seen(self, history: Iterable[Evaluation]) -> set[str]:
        """Returns the keys of evaluated architectures."""
        return {self._parse(item)[1] for item in history}

    def _parse(self, evaluation: Evaluation) -> tuple[Arch, str]:
        text = evaluation.architecture
        if text not in self._parsed:
            try:
                architecture = self.space.parse(text)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Expected 'log' to hold architectures of the space {self.space.name} (got "
                    f"{text!r} as evaluation {evaluation.number}: {error})"
                ) from error
            self._parsed[text] = architecture, self.space.key(architecture)
        return self._parsed[text]

    def draw_new(
        self, draw: Callable[[], Arch], seen: set[str], tries: int = MAX_TRIES
    ) -> Arch | None:
        """Draws until the architecture is not in :obj:`seen`, and adds it; gives up at last."""
        for _ in range(tries):
            architecture = draw()
            key = self.space.key(architecture)
            if key not in seen:
                seen.add(key)
                return architecture
        return None

    def draw_random(self, seen: set[str], count: int, rng: np.random.Generator) -> list[Arch]:
        """Draws random architectures that are not in :obj:`seen`, and adds them."""
        drawn = (self.draw_new(lambda: self.space.random(rng), seen) for _ in range(count))
        return [architecture for architecture in drawn if architecture is not None]

    def _remaining(self, batch: list[Arch], done: Sequence[Evaluation]) -> list[Arch]:
        """Returns the part of a batch that is left when a search resumes within it."""
        texts = [self.space.format(architecture) for architecture in batch]
        logged = [item.architecture for item in done]
        if texts[: len(logged)] == logged:
            return batch[len(logged) :]
        # Other library versions or threads can move a prediction in its last digit.
        log.warning(
            "The log and this machine disagree on the proposals from evaluation %d on; the search "
            "continues, but not as it would have without the break",
            done[0].number,
        )
        left = [a for a, text in zip(batch, texts, strict=True) if text not in logged]
        return left[: len(batch) - len(logged)]

    def _evaluate(
        self, evaluate: Evaluate, architecture: Arch, number: int, search_seconds: float
    ) -> Evaluation:
        values: dict[str, float] = {}
        clock = time.perf_counter()
        try:
            result = evaluate(architecture)
        except Exception as exception:
            error: str | None = f"{type(exception).__name__}: {exception}"
            seconds = time.perf_counter() - clock
        else:
            seconds = time.perf_counter() - clock
            values, error = read_values(result, list(self.objectives))
        if error is not None:
            log.warning("Evaluation %d failed (%s)", number, error)
        text = self.space.format(architecture)
        return Evaluation(number, text, values, error, seconds, search_seconds)

    def __repr__(self) -> str:
        settings = {k: v for k, v in self.settings().items() if k not in ("search", "space")}
        inner = ", ".join(f"{k}={v!r}" for k, v in settings.items() if not isinstance(v, dict))
        return f"{type(self).__name__}({self.space.name}, {inner})"


def single_objective(objective: Any, maximize: Any) -> dict[str, Direction]:
    """Returns the objectives of a search for the best value of one name."""
    if not isinstance(objective, str) or not objective:
        raise ValueError(
            f"Expected 'objective' to be the name of a value of 'evaluate', or {VALUE!r} for a "
            f"plain number (got {objective!r})"
        )
    if not isinstance(maximize, bool):
        raise ValueError(f"Expected 'maximize' to be True or False (got {maximize!r})")
    return {objective: "max" if maximize else "min"}
