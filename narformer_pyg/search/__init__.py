"""Search for architectures: at random, by evolution, or guided by a predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narformer_pyg._lazy import lazy_names

if TYPE_CHECKING:
    from narformer_pyg.search.benchmark import NASBench201Evaluation
    from narformer_pyg.search.evaluation import Evaluation, SearchResult
    from narformer_pyg.search.evolution import RegularizedEvolution
    from narformer_pyg.search.log import EvaluationLog
    from narformer_pyg.search.pareto_front import hypervolume, non_dominated
    from narformer_pyg.search.pareto_search import ParetoSearch
    from narformer_pyg.search.predictor_search import PredictorSearch
    from narformer_pyg.search.random_search import RandomSearch
    from narformer_pyg.search.searcher import Searcher
    from narformer_pyg.search.space import CellSpace, SearchSpace
    from narformer_pyg.search.surrogate import search_recipe

__all__ = [
    "CellSpace",
    "Evaluation",
    "EvaluationLog",
    "NASBench201Evaluation",
    "ParetoSearch",
    "PredictorSearch",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchResult",
    "SearchSpace",
    "Searcher",
    "hypervolume",
    "non_dominated",
    "search_recipe",
]

__getattr__, __dir__ = lazy_names(__name__, {
    "benchmark": ["NASBench201Evaluation"],
    "evaluation": ["Evaluation", "SearchResult"],
    "evolution": ["RegularizedEvolution"],
    "log": ["EvaluationLog"],
    "pareto_front": ["hypervolume", "non_dominated"],
    "pareto_search": ["ParetoSearch"],
    "predictor_search": ["PredictorSearch"],
    "random_search": ["RandomSearch"],
    "searcher": ["Searcher"],
    "space": ["CellSpace", "SearchSpace"],
    "surrogate": ["search_recipe"],
})  # fmt: skip
