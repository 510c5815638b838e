"""Search guided by a predictor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch_geometric.data import Data

from narformer_pyg._checks import check_integer, resolve_device
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import list_models
from narformer_pyg.search.evaluation import VALUE, Evaluation
from narformer_pyg.search.searcher import Direction, Searcher, single_objective
from narformer_pyg.search.space import Arch, SearchSpace
from narformer_pyg.search.surrogate import (
    predict_ensemble,
    rank_labels,
    search_recipe,
    train_ensemble,
)

if TYPE_CHECKING:
    from torch import nn

    from narformer_pyg.training import Recipe


class PredictorSearcher(Searcher[Arch]):
    r"""Base class of searches with a predictor: a random start, then batches of proposals.

    Args:
        space (SearchSpace): The space to search.
        objectives (dict): :obj:`"max"` or :obj:`"min"` for each value to optimise.
        initial (int, optional): The number of random architectures at the start, at least 2.
            (default: :obj:`20`)
        batch_size (int, optional): Evaluations between two trainings. (default: :obj:`10`)
        num_members (int, optional): The number of predictors. (default: :obj:`2`)
        recipe (Recipe, optional): The training of each. (default: :func:`search_recipe`)
        token_encoder (torch.nn.Module, optional): Reads the graphs of the space.
            (default: :class:`~narformer_pyg.nn.CellTokenEncoder`)
        model (str, optional): The predictor, see :func:`~narformer_pyg.nn.models.list_models`.
            (default: :obj:`"narformer_v2"`)
        device (str, optional): The device of predictors. (default: :obj:`"cpu"`, the fastest for
            their small batches)
        seed (int, optional): Seed of all draws and trainings. (default: :obj:`0`)

    Raises:
        ImportError: If Lightning, of the extra :obj:`train`, is missing.
        TypeError: If :obj:`space` is not a search space.
        ValueError: If another argument is wrong.
    """

    setting_names: ClassVar[tuple[str, ...]] = ("initial", "batch_size", "num_members")

    def __init__(
        self,
        space: SearchSpace[Arch],
        objectives: dict[str, Direction],
        *,
        initial: int = 20,
        batch_size: int = 10,
        num_members: int = 2,
        recipe: Recipe | None = None,
        token_encoder: nn.Module | None = None,
        model: str = "narformer_v2",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__(space, objectives, seed)
        self.initial = check_integer("initial", initial, 2)
        self.batch_size = check_integer("batch_size", batch_size)
        self.num_members = check_integer("num_members", num_members)
        self.recipe = _check_recipe(search_recipe() if recipe is None else recipe)
        if model not in list_models():
            raise ValueError(
                f"Expected 'model' to be among {', '.join(list_models())} (got {model!r})"
            )
        self.model = model
        self.token_encoder = CellTokenEncoder() if token_encoder is None else token_encoder
        self.device = resolve_device(device)
        self._graphs: dict[str, Data] = {}

    def settings(self) -> dict[str, Any]:
        """Returns all that determines the proposals."""
        return {
            **super().settings(),
            "model": self.model,
            "token_encoder": repr(self.token_encoder),
            "recipe": self.recipe.to_dict(),
        }

    def train_and_predict(
        self, evaluated: Sequence[Evaluation], labels: np.ndarray, rng: np.random.Generator
    ) -> Callable[[Sequence[Arch]], np.ndarray]:
        """Trains the ensemble on evaluations and returns its predictions as a function.

        The function maps architectures to float32, [members, architectures, objectives].
        """
        graphs = [self.graph(self.architecture(item)) for item in evaluated]
        seeds = rng.integers(2**31, size=self.num_members).tolist()
        members = train_ensemble(
            graphs, labels, seeds, self.recipe, self.token_encoder, self.model, self.device
        )
        return lambda new: predict_ensemble(members, [self.graph(a) for a in new], self.device)

    def graph(self, architecture: Arch) -> Data:
        """Returns the graph of an architecture, converted once."""
        text = self.space.format(architecture)
        if text not in self._graphs:
            self._graphs[text] = self.space.to_data(architecture)
        return self._graphs[text]

    def propose(
        self, history: Sequence[Evaluation], count: int, rng: np.random.Generator
    ) -> list[Arch]:
        """Draws the random start; afterwards asks :meth:`propose_by_predictor`."""
        seen = self.seen(history)
        good = [item for item in history if item.ok]
        labels = rank_labels(self.scores(good))
        # Without two different values there is nothing to learn.
        if len(history) < self.initial or len(np.unique(labels)) < 2:
            return self.draw_random(seen, count, rng)
        return self.propose_by_predictor(good, labels, seen, count, rng)

    @abstractmethod
    def propose_by_predictor(
        self, good: Sequence[Evaluation], labels: np.ndarray, seen: set[str], count: int,
        rng: np.random.Generator,
    ) -> list[Arch]:  # fmt: skip
        """Returns up to ``count`` architectures; labels are ranks, [number of good, objectives]."""


class PredictorSearch(PredictorSearcher[Arch]):
    r"""Evaluates the favourites of an ensemble of predictors.

    After a random start, every round trains NAR-Former V2 on the ranks of all evaluations, ranks
    candidates, and evaluates the best. Candidates are neighbours and mutations of the best
    evaluated architectures, and random ones. The mean of the ensemble and its members take turns
    in choosing (Thompson sampling with an ensemble), so that the batch contains different
    favourites where members disagree. No network is evaluated twice (:meth:`SearchSpace.key`).

    .. code-block:: python

        search = PredictorSearch(CellSpace(NASBench201Cell), seed=0)
        result = search.run(train_and_validate, budget=100, log="search.jsonl")
        result.best.architecture

    Args:
        space (SearchSpace): The space to search.
        objective (str, optional): The name of the value to optimise. (default: :obj:`"value"`, a
            plain number)
        maximize (bool, optional): Whether more is better. (default: :obj:`True`)
        num_parents (int, optional): The number of best architectures whose neighbours and
            mutations are candidates. (default: :obj:`10`)
        num_mutations (int, optional): The number of candidates two or three mutations away from
            those; also the most neighbours of each. (default: :obj:`250`)
        num_random (int, optional): The number of random candidates of a round, with which the
            search can leave a region. (default: :obj:`1500`)
        **kwargs (optional): Arguments of :class:`PredictorSearcher`.
    """

    setting_names = (
        *PredictorSearcher.setting_names, "num_parents", "num_mutations", "num_random",
    )  # fmt: skip

    def __init__(
        self,
        space: SearchSpace[Arch],
        *,
        objective: str = VALUE,
        maximize: bool = True,
        num_parents: int = 10,
        num_mutations: int = 250,
        num_random: int = 1500,
        **kwargs: Any,
    ) -> None:
        super().__init__(space, single_objective(objective, maximize), **kwargs)
        self.num_parents = check_integer("num_parents", num_parents)
        self.num_mutations = check_integer("num_mutations", num_mutations)
        self.num_random = check_integer("num_random", num_random, 0)

    def propose_by_predictor(
        self, good: Sequence[Evaluation], labels: np.ndarray, seen: set[str], count: int,
        rng: np.random.Generator,
    ) -> list[Arch]:  # fmt: skip
        """Trains the predictors and returns the favourites of the ensemble and its members."""
        order = np.argsort(-labels[:, 0], kind="stable")[: self.num_parents]
        candidates = self._candidates([self.architecture(good[i]) for i in order], seen, rng)
        if len(candidates) <= count:
            return candidates
        predict = self.train_and_predict(good, labels, rng)
        return [candidates[i] for i in _take_turns(predict(candidates)[:, :, 0], count)]

    def _candidates(
        self, parents: list[Arch], seen: set[str], rng: np.random.Generator
    ) -> list[Arch]:
        pool = []
        for parent in parents:
            neighbors = self.space.neighbors(parent)
            if len(neighbors) > self.num_mutations:
                chosen = rng.choice(len(neighbors), self.num_mutations, replace=False)
                neighbors = [neighbors[i] for i in chosen]
            pool += neighbors
        for i in range(self.num_mutations):
            child = parents[i % len(parents)]
            for _ in range(2 + int(rng.integers(2))):
                child = self.space.mutate(child, rng)
            pool.append(child)
        pool += [self.space.random(rng) for _ in range(self.num_random)]
        by_key: dict[str, Arch] = {}
        for architecture in pool:
            by_key.setdefault(self.space.key(architecture), architecture)
        return [architecture for key, architecture in by_key.items() if key not in seen]


def _check_recipe(recipe: Any) -> Recipe:
    from narformer_pyg.training import Recipe

    if not isinstance(recipe, Recipe):
        raise ValueError(
            "Expected 'recipe' to be a Recipe, for instance dataclasses.replace(search_recipe(), "
            f"epochs=50) (got {recipe!r})"
        )
    return recipe


def _take_turns(predictions: np.ndarray, count: int) -> list[int]:
    """Picks in turns the best by the mean and by each member; predictions are [members, n]."""
    spread = predictions.std(axis=1, keepdims=True) + 1e-12
    scores = (predictions - predictions.mean(axis=1, keepdims=True)) / spread
    voters = [scores.mean(axis=0)]
    if len(predictions) > 1:
        voters += list(scores)
    orders = [iter(np.argsort(-votes, kind="stable").tolist()) for votes in voters]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for order in orders:
            if len(chosen) < count:
                chosen.setdefault(next(i for i in order if i not in chosen))
    return list(chosen)
