"""Search for architectures: at random, by evolution, or guided by a predictor."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_LAZY = {
    **dict.fromkeys(("Evaluation", "SearchResult"), "evaluation"),
    **dict.fromkeys(("CellSpace", "SearchSpace"), "space"),
    **dict.fromkeys(("hypervolume", "non_dominated"), "pareto_front"),
    "EvaluationLog": "log",
    "NASBench201Evaluation": "benchmark",
    "ParetoSearch": "pareto_search",
    "PredictorSearch": "predictor_search",
    "RandomSearch": "random_search",
    "RegularizedEvolution": "evolution",
    "Searcher": "searcher",
    "search_recipe": "surrogate",
}

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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
