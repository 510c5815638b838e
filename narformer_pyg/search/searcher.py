"""What all searches share: the loop over evaluations, the log and resuming."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias

import numpy as np

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg.search.evaluation import VALUE, Evaluation, SearchResult, read_values
from narformer_pyg.search.log import EvaluationLog
from narformer_pyg.search.pareto_front import non_dominated
from narformer_pyg.search.space import Arch, SearchSpace, check_space

log = logging.getLogger(__name__)

Evaluate: TypeAlias = Callable[[Any], "float | Mapping[str, float]"]
Direction: TypeAlias = Literal["max", "min"]

# Draws in a row that may give nothing new before a space counts as exhausted.
MAX_TRIES = 1000


class Searcher(ABC, Generic[Arch]):
    r"""Base class of searches.

    A search is a function from what has been evaluated to what to evaluate next: subclasses say in
    :meth:`propose`, and keep no state of their own. All random numbers of a batch come from the
    seed and from how many evaluations came before. So a search that is resumed from its log goes
    on exactly as it would have without the break, and one with a larger budget begins like one
    with a smaller budget.

    Args:
        space (SearchSpace): Where to search.
        objectives (Mapping): :obj:`"max"` or :obj:`"min"` for the name of each value of
            :obj:`evaluate` to optimise.
        seed (int): Seed of everything that is drawn.

    Raises:
        TypeError: If :obj:`space` is not a search space.
        ValueError: If an argument is wrong.
    """

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
        # Parsing and canonical forms of what was evaluated, which every proposal asks for again.
        self._parsed: dict[str, tuple[Arch, str]] = {}

    @abstractmethod
    def propose(
        self, history: Sequence[Evaluation], count: int, rng: np.random.Generator
    ) -> list[Arch]:
        r"""Returns what to evaluate next.

        Args:
            history (sequence of Evaluation): All evaluations so far.
            count (int): How many architectures to return; fewer end the search.
            rng (numpy.random.Generator): The source of randomness.
        """

    @abstractmethod
    def batch_size_at(self, start: int) -> int:
        """Returns the size of the batch that begins after :obj:`start` evaluations."""

    @property
    @abstractmethod
    def least_budget(self) -> tuple[int, str]:
        """The smallest budget that makes sense, and what it follows from."""

    def settings(self) -> dict[str, Any]:
        """Returns all that determines the proposals, in values that JSON knows."""
        return {
            "search": type(self).__name__,
            "space": self.space.name,
            "objectives": self.objectives,
            "seed": self.seed,
        }

    def run(
        self,
        evaluate: Evaluate,
        budget: int,
        *,
        log: str | os.PathLike[str] | None = None,
        callback: Callable[[Evaluation], None] | None = None,
    ) -> SearchResult:
        r"""Searches until so many architectures are evaluated.

        Args:
            evaluate (callable): Maps an architecture to a number, or to a dictionary of numbers. If
                it raises an exception or an objective is not finite, this is recorded with its
                reason and the search goes on; the evaluation counts.
            budget (int): The number of evaluations, those in :obj:`log` included.
            log (str or os.PathLike, optional): A file to which each evaluation is written when it
                is done. If the file is there already, the search goes on from it.
                (default: :obj:`None`)
            callback (callable, optional): Called with each new evaluation.
                (default: :obj:`None`)

        Raises:
            TypeError: If :obj:`evaluate` cannot be called or returns something else.
            ValueError: If :obj:`budget` is too small, :obj:`log` is damaged or of another search,
                or :obj:`evaluate` returns no value for an objective.
        """
        if not callable(evaluate):
            raise TypeError(
                f"Expected 'evaluate' to be a function of an architecture (got {evaluate!r})"
            )
        check_integer("budget", budget)
        least, reason = self.least_budget
        if budget < least:
            raise ValueError(f"Expected 'budget' to be at least {least}, {reason} (got {budget})")
        file = None if log is None else EvaluationLog(log, self.settings())
        history = [] if file is None else file.history
        exhausted = False

        start = 0
        while len(history) < budget and not exhausted:
            while start + self.batch_size_at(start) <= len(history):
                start += self.batch_size_at(start)
            count = self.batch_size_at(start)
            clock = time.perf_counter()
            # The whole batch, whatever the budget: a larger one then goes on with the rest of it.
            batch = self.propose(history[:start], count, np.random.default_rng([self.seed, start]))
            search_seconds = time.perf_counter() - clock
            exhausted = len(batch) < count
            for architecture in self._remaining(batch, history[start:])[: budget - len(history)]:
                evaluation = self._evaluate(evaluate, architecture, len(history), search_seconds)
                search_seconds = 0.0
                if file is not None:
                    file.append(evaluation)
                history.append(evaluation)
                if callback is not None:
                    callback(evaluation)
            start += count
        return self.result(history, exhausted and len(history) < budget)

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
        """Returns what was evaluated."""
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
        """Returns what of a batch is not evaluated yet, when a search is resumed within it."""
        texts = [self.space.format(architecture) for architecture in batch]
        logged = [item.architecture for item in done]
        if texts[: len(logged)] == logged:
            return batch[len(logged) :]
        # Other library versions or threads can move a prediction in its last digit.
        log.warning(
            "The log holds other proposals than this machine makes (first difference in the batch "
            "after evaluation %d); the search goes on, but not as it would have without the break",
            done[0].number,
        )
        left = [a for a, text in zip(batch, texts, strict=True) if text not in logged]
        return left[: len(batch) - len(logged)]

    def _evaluate(
        self, evaluate: Evaluate, architecture: Arch, number: int, search_seconds: float
    ) -> Evaluation:
        values: dict[str, float] = {}
        result: Any = None
        clock = time.perf_counter()
        try:
            result = evaluate(architecture)
            error = None
        except Exception as exception:
            error = f"{type(exception).__name__}: {exception}"
        seconds = time.perf_counter() - clock
        if error is None:
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
