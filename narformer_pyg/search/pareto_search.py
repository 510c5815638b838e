"""Search for the best trade-offs between several objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from narformer_pyg._checks import check_integer
from narformer_pyg.search.evaluation import Evaluation
from narformer_pyg.search.pareto_front import hypervolume, non_dominated
from narformer_pyg.search.predictor_search import PredictorSearcher
from narformer_pyg.search.searcher import Direction
from narformer_pyg.search.space import Arch, SearchSpace
from narformer_pyg.search.surrogate import rank_labels


class ParetoSearch(PredictorSearcher[Arch]):
    r"""Finds architectures that no other beats in all objectives, such as accuracy and latency.

    After a random start, every round trains one predictor of all objectives on the ranks of the
    evaluations, evolves a population on its predictions by pymoo's NSGA-II
    (`Deb et al., 2002 <https://doi.org/10.1109/4235.996017>`_), and evaluates the architectures
    predicted to add most to the volume that the front dominates.

    .. code-block:: python

        search = ParetoSearch(space, {"accuracy": "max", "latency": "min"})
        result = search.run(evaluate, budget=200)
        [item.values for item in result.front]

    Args:
        space (SearchSpace): The space to search.
        objectives (Mapping): :obj:`"max"` or :obj:`"min"` for each of at least two values that
            :obj:`evaluate` returns.
        population_size (int, optional): The population of NSGA-II. (default: :obj:`100`)
        generations (int, optional): Its generations in each round. (default: :obj:`15`)
        **kwargs (optional): Arguments of
            :class:`~narformer_pyg.search.predictor_search.PredictorSearcher`, whose defaults here
            are 40 for :obj:`initial`, 20 for :obj:`batch_size` and 1 for :obj:`num_members`.

    Raises:
        ImportError: If pymoo, of the extra :obj:`search`, or Lightning is missing.
    """

    setting_names = (*PredictorSearcher.setting_names, "population_size", "generations")

    def __init__(
        self,
        space: SearchSpace[Arch],
        objectives: Mapping[str, Direction],
        *,
        population_size: int = 100,
        generations: int = 15,
        **kwargs: Any,
    ) -> None:
        if find_spec("pymoo") is None:
            raise ImportError("ParetoSearch needs pymoo: 'pip install \"narformer-pyg[search]\"'")
        if not isinstance(objectives, Mapping) or len(objectives) < 2:
            raise ValueError(
                "Expected 'objectives' to say 'max' or 'min' for at least two values of "
                f"'evaluate', as in {{'accuracy': 'max', 'latency': 'min'}} (got {objectives!r})"
            )
        sizes = {"initial": 40, "batch_size": 20, "num_members": 1}
        super().__init__(space, dict(objectives), **{**sizes, **kwargs})
        self.population_size = check_integer("population_size", population_size, 2)
        self.generations = check_integer("generations", generations)

    def propose_by_predictor(
        self, good: Sequence[Evaluation], labels: np.ndarray, seen: set[str], count: int,
        rng: np.random.Generator,
    ) -> list[Arch]:  # fmt: skip
        """Trains the predictor, evolves a population on it and returns the most promising."""
        predict = self.train_and_predict(good, labels, rng)
        # The evaluated front, the next fronts, then random architectures.
        order = best_fronts(labels, self.population_size // 2)
        start = [self.architecture(good[i]) for i in order]
        num_random = max(self.population_size - len(start), self.population_size // 2)
        start += [self.space.random(rng) for _ in range(num_random)]
        visited, predictions = _evolve(
            self.space,
            start,
            lambda architectures: predict(architectures).mean(axis=0),
            self.population_size,
            self.generations,
            rng,
        )
        # Predictions stand for evaluated architectures, too: errors of the level cancel out.
        evaluated = np.array([self.space.key(a) in seen for a in visited])
        chosen = choose_by_hypervolume(predictions[evaluated], predictions[~evaluated], count)
        new = [a for a, is_known in zip(visited, evaluated, strict=True) if not is_known]
        batch = [new[i] for i in chosen]
        seen.update(self.space.key(a) for a in batch)
        return batch + self.draw_random(seen, count - len(batch), rng)


def _evolve(
    space: SearchSpace[Arch],
    start: Sequence[Arch],
    predict: Callable[[list[Arch]], np.ndarray],
    population_size: int,
    generations: int,
    rng: np.random.Generator,
) -> tuple[list[Arch], np.ndarray]:
    """Evolves architectures towards the front of their predictions, by mutation alone.

    Returns:
        tuple: All different architectures of the evolution, and their predictions, [n, objectives].
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.crossover import Crossover
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    # To pymoo, an architecture is a number: its place in the list of all visited ones.
    visited: list[Arch] = []
    places: dict[str, int] = {}
    predictions: list[np.ndarray] = []

    def place(architecture: Arch) -> int:
        key = space.key(architecture)
        if key not in places:
            places[key] = len(visited)
            visited.append(architecture)
        return places[key]

    def predict_all(ids: np.ndarray) -> np.ndarray:
        if len(predictions) < len(visited):
            predictions.extend(predict(visited[len(predictions) :]))
        return np.stack([predictions[i] for i in ids])

    first = np.unique([place(architecture) for architecture in start])

    class Predictions(Problem):
        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = -predict_all(x[:, 0].astype(int)).astype(np.float64)

    class Copy(Crossover):
        def _do(self, problem: Any, x: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
            return x.copy()

    class Mutate(Mutation):
        def _do(self, problem: Any, x: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
            return np.array([[place(space.mutate(visited[int(i)], rng))] for i in x[:, 0]])

    minimize(
        Predictions(n_var=1, n_obj=predict_all(first[:1]).shape[1], xl=0, xu=np.iinfo(int).max),
        NSGA2(
            pop_size=population_size,
            sampling=first[:, None].astype(float),
            crossover=Copy(2, 2),
            mutation=Mutate(),
        ),
        ("n_gen", generations),
        seed=int(rng.integers(2**31)),
        verbose=False,
    )
    return visited, predict_all(np.arange(len(visited)))


def best_fronts(points: np.ndarray, count: int) -> list[int]:
    """Returns the points of whole fronts, the best one first, at least ``count`` of them."""
    left = list(range(len(points)))
    out: list[int] = []
    while left and len(out) < count:
        front = {left[i] for i in non_dominated(points[left])}
        out += sorted(front)
        left = [i for i in left if i not in front]
    return out


def choose_by_hypervolume(known: np.ndarray, new: np.ndarray, count: int) -> list[int]:
    r"""Chooses new points, one after the other, that add most to the dominated volume.

    Ranks among all points replace values, so that no unit counts more than another. Points that add
    nothing follow in the order of their fronts.
    """
    ranks = rank_labels(np.concatenate([known, new]).astype(np.float64))
    reference = np.ones(ranks.shape[1])
    front = ranks[: len(known)]
    front = front[non_dominated(front)]
    points = ranks[len(known) :]

    # Points of later fronts are not worth the computation.
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
