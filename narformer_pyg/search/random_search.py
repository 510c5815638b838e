"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from narformer_pyg.search.evaluation import VALUE, Evaluation
from narformer_pyg.search.searcher import Searcher, single_objective
from narformer_pyg.search.space import Arch, SearchSpace


class RandomSearch(Searcher[Arch]):
    r"""Evaluates random architectures, each at most once: the baseline.

    Args:
        space (SearchSpace): The space to search.
        objective (str, optional): The name of the value to optimise. (default: :obj:`"value"`, a
            plain number)
        maximize (bool, optional): Whether more is better. (default: :obj:`True`)
        seed (int, optional): Seed of the draws. (default: :obj:`0`)
    """

    def __init__(
        self,
        space: SearchSpace[Arch],
        *,
        objective: str = VALUE,
        maximize: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(space, single_objective(objective, maximize), seed)

    def propose(
        self, history: Sequence[Evaluation], count: int, rng: np.random.Generator
    ) -> list[Arch]:
        """Draws architectures that are not evaluated yet."""
        return self.draw_random(self.seen(history), count, rng)
