"""NSGA-II on predictions, by pymoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from narformer_pyg.search.space import Arch, SearchSpace


def check_pymoo() -> None:
    """Raises an :class:`ImportError` that says how to install pymoo, if it is missing."""
    try:
        import pymoo  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "pymoo":
            raise
        raise ImportError(
            "The Pareto search needs pymoo; install it with 'pip install \"narformer-pyg[search]\"'"
        ) from error


def evolve(
    space: SearchSpace[Arch],
    start: Sequence[Arch],
    predict: Callable[[list[Arch]], np.ndarray],
    population_size: int,
    generations: int,
    rng: np.random.Generator,
) -> tuple[list[Arch], np.ndarray]:
    r"""Evolves architectures towards the front of their predictions.

    Children are mutations; front and crowding distance select the parents.

    Returns:
        tuple: All different architectures of the evolution, and their predictions :math:`(n, d)`.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.crossover import Crossover
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    # Pymoo sees an architecture as a number: its place among all that were met.
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
