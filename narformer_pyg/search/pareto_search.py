"""Search for the best trade-offs between several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from narformer_pyg._checks import check_integer
from narformer_pyg.search.evaluation import Evaluation
from narformer_pyg.search.nsga2 import check_pymoo, evolve
from narformer_pyg.search.pareto_front import hypervolume, non_dominated
from narformer_pyg.search.predictor_search import PredictorSearcher
from narformer_pyg.search.searcher import Direction
from narformer_pyg.search.space import Arch, SearchSpace
from narformer_pyg.search.surrogate import rank_labels


class ParetoSearch(PredictorSearcher[Arch]):
    r"""Finds architectures that no other beats in all objectives, such as accuracy and latency.

    After a random start, every round trains one predictor of all objectives on the ranks of the
    evaluations, evolves a population by NSGA-II
    (`Deb et al., 2002 <https://doi.org/10.1109/4235.996017>`_; pymoo's) on its predictions, and
    evaluates those architectures that are predicted to add most to the volume that the front
    dominates.

    .. code-block:: python

        search = ParetoSearch(space, {"accuracy": "max", "latency": "min"})
        result = search.run(evaluate, budget=200)
        [item.values for item in result.front]

    Args:
        space (SearchSpace): Where to search.
        objectives (Mapping): :obj:`"max"` or :obj:`"min"` for each of at least two values that
            :obj:`evaluate` returns.
        initial (int, optional): The number of random architectures at the start, at least 2.
            (default: :obj:`40`)
        batch_size (int, optional): Evaluations between two trainings. (default: :obj:`20`)
        population_size (int, optional): The population of NSGA-II. (default: :obj:`100`)
        generations (int, optional): Its generations in each round. (default: :obj:`15`)
        num_members (int, optional): The number of predictors. (default: :obj:`1`)
        **kwargs (optional): Recipe, token encoder, model, device and seed, see
            :class:`~narformer_pyg.search.predictor_search.PredictorSearcher`.

    Raises:
        ImportError: If pymoo, of the extra :obj:`search`, or Lightning is missing.
        TypeError: If :obj:`space` is not a search space.
        ValueError: If another argument is wrong.
    """

    def __init__(
        self,
        space: SearchSpace[Arch],
        objectives: Mapping[str, Direction],
        *,
        initial: int = 40,
        batch_size: int = 20,
        population_size: int = 100,
        generations: int = 15,
        num_members: int = 1,
        **kwargs: Any,
    ) -> None:
        check_pymoo()
        if not isinstance(objectives, Mapping) or len(objectives) < 2:
            raise ValueError(
                "Expected 'objectives' to say 'max' or 'min' for at least two values of "
                f"'evaluate', as in {{'accuracy': 'max', 'latency': 'min'}} (got {objectives!r})"
            )
        super().__init__(
            space,
            dict(objectives),
            initial=initial,
            batch_size=batch_size,
            num_members=num_members,
            **kwargs,
        )
        self.population_size = check_integer("population_size", population_size, 2)
        self.generations = check_integer("generations", generations)

    def settings(self) -> dict[str, Any]:
        """Returns all that determines the proposals."""
        return {
            **super().settings(),
            "population_size": self.population_size,
            "generations": self.generations,
        }

    def propose_by_predictor(
        self,
        good: Sequence[Evaluation],
        labels: np.ndarray,
        seen: set[str],
        count: int,
        rng: np.random.Generator,
    ) -> list[Arch]:
        """Trains the predictor, evolves a population on it and returns the most promising."""
        self.fit_predictor(good, labels, rng)
        known = self._start_population(good, labels, rng)
        visited, predictions = evolve(
            self.space,
            known,
            lambda architectures: self.predict(architectures).mean(axis=0),
            self.population_size,
            self.generations,
            rng,
        )
        # What was evaluated is in it too, as it was predicted: errors of level are left out.
        evaluated = np.array([self.space.key(a) in seen for a in visited])
        chosen = choose_by_hypervolume(predictions[evaluated], predictions[~evaluated], count)
        new = [a for a, is_known in zip(visited, evaluated, strict=True) if not is_known]
        batch = [new[i] for i in chosen]
        seen.update(self.space.key(a) for a in batch)
        return batch + self.draw_random(seen, count - len(batch), rng)

    def _start_population(
        self, good: Sequence[Evaluation], labels: np.ndarray, rng: np.random.Generator
    ) -> list[Arch]:
        """Returns the evaluated front, then what is behind it, then random architectures."""
        order = best_fronts(labels, self.population_size // 2)
        known = [self.architecture(good[i]) for i in order]
        num_random = max(self.population_size - len(known), self.population_size // 2)
        return known + [self.space.random(rng) for _ in range(num_random)]


def best_fronts(points: np.ndarray, count: int) -> list[int]:
    """Returns the points of whole fronts, the best one first, until there are ``count``."""
    left = list(range(len(points)))
    out: list[int] = []
    while left and len(out) < count:
        front = {left[i] for i in non_dominated(points[left])}
        out += sorted(front)
        left = [i for i in left if i not in front]
    return out


def choose_by_hypervolume(known: np.ndarray, new: np.ndarray, count: int) -> list[int]:
    r"""Chooses new points, one after the other, that add most to the volume dominated.

    Values are replaced by their ranks among all points, so that no unit counts more than another.
    Where nothing is added, points of the best fronts are taken.

    Args:
        known (numpy.ndarray): Points that are there already: :math:`(m, d)`, larger is better.
        new (numpy.ndarray): Points to choose from: :math:`(n, d)`.
        count (int): How many to choose; all are if there are no more.
    """
    ranks = rank_labels(np.concatenate([known, new]).astype(np.float64))
    reference = np.ones(ranks.shape[1])
    front = ranks[: len(known)]
    front = front[non_dominated(front)]
    points = ranks[len(known) :]

    # What is behind so many other points is not worth the computation.
    candidates = best_fronts(points, 3 * count)

    chosen: list[int] = []
    while candidates and len(chosen) < count:
        volume = hypervolume(front, reference)
        gains = [hypervolume(np.vstack([front, points[i]]), reference) - volume for i in candidates]
        best_i = candidates.pop(int(np.argmax(gains)))
        chosen.append(best_i)
        front = np.vstack([front, points[best_i]])
        front = front[non_dominated(front)]
    return chosen
