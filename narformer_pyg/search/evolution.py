"""Regularised evolution."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from narformer_pyg._checks import check_integer
from narformer_pyg.search.evaluation import VALUE, Evaluation
from narformer_pyg.search.searcher import Searcher, single_objective
from narformer_pyg.search.space import Arch, SearchSpace

# The mutations to try before a random architecture takes their place.
_MUTATIONS = 100


class RegularizedEvolution(Searcher[Arch]):
    r"""Evolution in which the oldest die.

    From the `"Regularized Evolution for Image Classifier Architecture Search"
    <https://arxiv.org/abs/1802.01548>`_ paper: after a random population, each step draws a sample
    of the population with replacement, mutates the best of the sample, and lets the child take the
    place of the oldest. The population is therefore the latest evaluations. Failed evaluations age
    too, but are never parents.

    Args:
        space (SearchSpace): The space to search.
        objective (str, optional): The name of the value to optimise. (default: :obj:`"value"`, a
            plain number)
        maximize (bool, optional): Whether more is better. (default: :obj:`True`)
        population_size (int, optional): The size of the population. (default: :obj:`50`)
        sample_size (int, optional): The size of the sample. (default: :obj:`10`)
        unique (bool, optional): Whether a child that was evaluated before is mutated again, which
            saves evaluations; the paper evaluates it once more. (default: :obj:`True`)
        seed (int, optional): Seed of all draws. (default: :obj:`0`)
    """

    setting_names = ("population_size", "sample_size", "unique")

    def __init__(
        self,
        space: SearchSpace[Arch],
        *,
        objective: str = VALUE,
        maximize: bool = True,
        population_size: int = 50,
        sample_size: int = 10,
        unique: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(space, single_objective(objective, maximize), seed)
        self.population_size = check_integer("population_size", population_size)
        self.sample_size = check_integer("sample_size", sample_size)
        if sample_size > population_size:
            raise ValueError(
                "Expected 'sample_size' to be at most 'population_size' "
                f"(got {sample_size} and {population_size})"
            )
        self.unique = bool(unique)

    @property
    def least_budget(self) -> int:
        """The first population."""
        return self.population_size

    def propose(
        self, history: Sequence[Evaluation], count: int, rng: np.random.Generator
    ) -> list[Arch]:
        """Mutates the best of a sample of the latest evaluations."""
        seen = self.seen(history) if self.unique else set()
        parents = [item for item in history[-self.population_size :] if item.ok]
        children = []
        for _ in range(count):
            child = None
            if len(history) >= self.population_size and parents:
                sample = [parents[i] for i in rng.integers(len(parents), size=self.sample_size)]
                best = self.architecture(sample[int(self.scores(sample)[:, 0].argmax())])
                draw = functools.partial(self.space.mutate, best, rng)
                child = self.draw_new(draw, seen, _MUTATIONS)
            if child is None:
                child = self.draw_new(lambda: self.space.random(rng), seen)
            if child is not None:
                children.append(child)
        return children
