"""Search guided by a predictor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch_geometric.data import Data

from narformer_pyg._checks import check_integer
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.search.evaluation import VALUE, Evaluation
from narformer_pyg.search.searcher import Direction, Searcher, single_objective
from narformer_pyg.search.space import Arch, SearchSpace
from narformer_pyg.search.surrogate import EnsemblePredictor, rank_labels, search_recipe

if TYPE_CHECKING:
    from narformer_pyg.training import Recipe


class PredictorSearcher(Searcher[Arch]):
    r"""What searches with a predictor share: a random start, then batches of proposals.

    Args:
        space (SearchSpace): Where to search.
        objectives (dict): :obj:`"max"` or :obj:`"min"` for each value to optimise.
        initial (int): The number of random architectures at the start, at least 2.
        batch_size (int): Evaluations between two trainings.
        num_members (int): The number of predictors.
        recipe (Recipe, optional): How each is trained. (default: :func:`search_recipe`)
        token_encoder (torch.nn.Module, optional): Reads the graphs of the space.
            (default: :class:`~narformer_pyg.nn.CellTokenEncoder`)
        model (str, optional): The predictor, see :func:`~narformer_pyg.nn.models.list_models`.
            (default: :obj:`"narformer_v2"`)
        device (str, optional): Where predictors are trained. (default: :obj:`"cpu"`, which is
            the fastest for their small batches)
        seed (int, optional): Seed of all draws and trainings. (default: :obj:`0`)

    Raises:
        ImportError: If Lightning, of the extra :obj:`train`, is missing.
        TypeError: If :obj:`space` is not a search space.
        ValueError: If another argument is wrong.
    """

    def __init__(
        self,
        space: SearchSpace[Arch],
        objectives: dict[str, Direction],
        *,
        initial: int,
        batch_size: int,
        num_members: int,
        recipe: Recipe | None = None,
        token_encoder: CellTokenEncoder | None = None,
        model: str = "narformer_v2",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__(space, objectives, seed)
        self.initial = check_integer("initial", initial, 2)
        self.batch_size = check_integer("batch_size", batch_size)
        self.num_members = check_integer("num_members", num_members)
        self.recipe = search_recipe() if recipe is None else recipe
        self.predictor = EnsemblePredictor(
            self.num_members,
            len(objectives),
            self.recipe,
            CellTokenEncoder() if token_encoder is None else token_encoder,
            model,
            device,
        )
        self._graphs: dict[str, Data] = {}

    @property
    def least_budget(self) -> tuple[int, str]:
        """The random start and one batch."""
        return (
            self.initial + self.batch_size,
            "the random start of 'initial' and one batch of 'batch_size'",
        )

    def batch_size_at(self, start: int) -> int:
        """The random start first, then the batches."""
        return self.initial if start < self.initial else self.batch_size

    def settings(self) -> dict[str, Any]:
        """Returns all that determines the proposals."""
        return {
            **super().settings(),
            "initial": self.initial,
            "batch_size": self.batch_size,
            "num_members": self.num_members,
            "model": self.predictor.model,
            "token_encoder": repr(self.predictor.token_encoder),
            "recipe": self.recipe.to_dict(),
        }

    def fit_predictor(
        self, evaluated: Sequence[Evaluation], labels: np.ndarray, rng: np.random.Generator
    ) -> None:
        """Trains the ensemble on what has been evaluated."""
        graphs = [self.graph(self.architecture(item)) for item in evaluated]
        seeds = rng.integers(2**31, size=self.num_members).tolist()
        self.predictor.fit(graphs, labels, seeds)

    def predict(self, architectures: Sequence[Arch]) -> np.ndarray:
        """Returns the predictions of each member: float32, [members, n, num_objectives]."""
        return self.predictor.predict([self.graph(a) for a in architectures]).numpy()

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
        # Without two different values there is nothing to be learnt.
        if len(history) < self.initial or len(np.unique(labels)) < 2:
            return self.draw_random(seen, count, rng)
        return self.propose_by_predictor(good, labels, seen, count, rng)

    @abstractmethod
    def propose_by_predictor(
        self,
        good: Sequence[Evaluation],
        labels: np.ndarray,
        seen: set[str],
        count: int,
        rng: np.random.Generator,
    ) -> list[Arch]:
        r"""Returns what to evaluate next.

        Args:
            good (sequence of Evaluation): The evaluations that did not fail.
            labels (numpy.ndarray): Their ranks in each objective, :math:`(n, T)`.
            seen (set): The keys of all evaluated architectures.
            count (int): How many to return; fewer end the search.
            rng (numpy.random.Generator): The source of randomness.
        """


class PredictorSearch(PredictorSearcher[Arch]):
    r"""Evaluates what an ensemble of predictors takes for the best.

    After a random start, every round trains NAR-Former V2 on the ranks of all evaluations, ranks
    candidates by it, and evaluates the best of them. Candidates are the neighbours and mutations of
    the best evaluated architectures, and random ones. A batch takes turns between the mean of the
    ensemble and each of its members (Thompson sampling with an ensemble), so that where the members
    disagree their different favourites are tried. No architecture is evaluated twice, nor one that
    is the same network as another (:meth:`SearchSpace.key`).

    .. code-block:: python

        search = PredictorSearch(CellSpace(NASBench201Cell), seed=0)
        result = search.run(train_and_validate, budget=100, log="search.jsonl")
        result.best.architecture

    Args:
        space (SearchSpace): Where to search.
        objective (str, optional): The name of the value to optimise. (default: :obj:`"value"`, a
            plain number)
        maximize (bool, optional): Whether more is better. (default: :obj:`True`)
        initial (int, optional): The number of random architectures at the start, at least 2.
            (default: :obj:`20`)
        batch_size (int, optional): Evaluations between two trainings. (default: :obj:`10`)
        num_parents (int, optional): The number of best architectures whose neighbours and
            mutations are candidates. (default: :obj:`10`)
        num_mutations (int, optional): The number of candidates two or three mutations away from
            those; also the most neighbours of each. (default: :obj:`250`)
        num_random (int, optional): The number of random candidates of a round. They let the search
            leave a region where it is stuck. (default: :obj:`1500`)
        num_members (int, optional): The number of predictors. (default: :obj:`2`)
        **kwargs (optional): Recipe, token encoder, model, device and seed, see
            :class:`PredictorSearcher`.

    Raises:
        ImportError: If Lightning, of the extra :obj:`train`, is missing.
        TypeError: If :obj:`space` is not a search space.
        ValueError: If another argument is wrong.
    """

    def __init__(
        self,
        space: SearchSpace[Arch],
        *,
        objective: str = VALUE,
        maximize: bool = True,
        initial: int = 20,
        batch_size: int = 10,
        num_parents: int = 10,
        num_mutations: int = 250,
        num_random: int = 1500,
        num_members: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            space,
            single_objective(objective, maximize),
            initial=initial,
            batch_size=batch_size,
            num_members=num_members,
            **kwargs,
        )
        self.num_parents = check_integer("num_parents", num_parents)
        self.num_mutations = check_integer("num_mutations", num_mutations)
        self.num_random = check_integer("num_random", num_random, 0)

    def settings(self) -> dict[str, Any]:
        """Returns all that determines the proposals."""
        return {
            **super().settings(),
            "num_parents": self.num_parents,
            "num_mutations": self.num_mutations,
            "num_random": self.num_random,
        }

    def propose_by_predictor(
        self,
        good: Sequence[Evaluation],
        labels: np.ndarray,
        seen: set[str],
        count: int,
        rng: np.random.Generator,
    ) -> list[Arch]:
        """Trains the predictors and returns the favourites of the ensemble and its members."""
        candidates = self._candidates(good, labels[:, 0], seen, rng)
        if len(candidates) <= count:
            return candidates
        self.fit_predictor(good, labels, rng)
        return [candidates[i] for i in _take_turns(self.predict(candidates)[:, :, 0], count)]

    def _candidates(
        self,
        good: Sequence[Evaluation],
        labels: np.ndarray,
        seen: set[str],
        rng: np.random.Generator,
    ) -> list[Arch]:
        order = np.argsort(-labels, kind="stable")[: self.num_parents]
        parents = [self.architecture(good[i]) for i in order]
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
        known = set(seen)
        new = (self.draw_new(lambda a=a: a, known, 1) for a in pool)  # type: ignore[misc]
        return [architecture for architecture in new if architecture is not None]


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
