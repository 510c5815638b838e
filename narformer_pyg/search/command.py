"""The command ``narformer search``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from narformer_pyg.datasets import NASBench201
from narformer_pyg.search.benchmark import NASBench201Evaluation
from narformer_pyg.search.evaluation import VALUE, Evaluation, SearchResult
from narformer_pyg.search.evolution import RegularizedEvolution
from narformer_pyg.search.pareto_search import ParetoSearch
from narformer_pyg.search.predictor_search import PredictorSearch
from narformer_pyg.search.random_search import RandomSearch
from narformer_pyg.search.searcher import Direction, Searcher
from narformer_pyg.search.space import CellSpace
from narformer_pyg.spaces import DARTSGenotype, NASBench201Cell

#: The spaces that can be named on the command line.
SPACES: dict[str, type] = {"nasbench201": NASBench201Cell, "darts": DARTSGenotype}
#: Those with a table of labels; the others need a function to evaluate.
_TABULAR = {"nasbench201"}

_SINGLE = {
    "predictor": PredictorSearch,
    "evolution": RegularizedEvolution,
    "random": RandomSearch,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``narformer search`` to a parser."""
    parser.add_argument(
        "--space", choices=tuple(SPACES), default="nasbench201",
        help="where to search; darts has no table and needs --evaluate (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=int, default=100, help="evaluations (default: %(default)s)"
    )
    parser.add_argument(
        "--method", choices=(*_SINGLE, "pareto"), default="predictor",
        help="how to search; pareto finds the best trade-offs of several objectives "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--objective", action="append", metavar="NAME",
        help="what to optimise, once for each objective: a label of the benchmark, or with "
        "--evaluate a value of your function. A name after '-' is minimised, as in "
        "--objective=-latency_pixel3; labels other than accuracies are minimised anyway "
        "(default: cifar10valid_valid_acc, or 'value' with --evaluate)",
    )  # fmt: skip
    parser.add_argument(
        "--evaluate", metavar="MODULE:FUNCTION",
        help="a function of yours that maps a cell to a number or a dictionary of numbers "
        "(default: look labels up in the benchmark's table)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the search (default: %(default)s)"
    )
    parser.add_argument(
        "--log", type=Path,
        help="a file for the evaluations, as JSON lines; if it exists, the search goes on from it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")


def run(args: argparse.Namespace) -> SearchResult:
    """Searches as the arguments say, and prints what was found.

    Raises:
        ValueError: If an argument is wrong.
    """
    if args.space not in _TABULAR and not args.evaluate:
        raise ValueError(
            f"Expected '--evaluate' with '--space {args.space}', of which there is no table of "
            "labels (got none); name a function of yours that trains or measures an architecture"
        )
    objectives = _objectives(args)
    space: Any = CellSpace(SPACES[args.space])
    evaluate = _evaluate(args, list(objectives))
    search: Searcher[Any]
    if args.method == "pareto":
        search = ParetoSearch(space, objectives, seed=args.seed)
    else:
        if len(objectives) > 1:
            raise ValueError(
                f"Expected '--objective' once with '--method {args.method}' (got "
                f"{len(objectives)} names); use '--method pareto' for several"
            )
        ((name, direction),) = objectives.items()
        search = _SINGLE[args.method](
            space, objective=name, maximize=direction == "max", seed=args.seed
        )
    with tqdm(total=args.budget, desc="Searching", unit="evaluation") as bar:
        result = search.run(
            evaluate,
            args.budget,
            log=args.log,
            # From a log that is there already, the first new evaluation is not the first one.
            callback=lambda evaluation: bar.update(evaluation.number + 1 - bar.n),
        )
    _print_result(result, objectives)
    if args.out is not None:
        # Versions and machine are read by the training's report, which needs Lightning.
        from narformer_pyg.training.report import environment, write_json

        content = {
            "settings": search.settings(),
            "budget": args.budget,
            "evaluated": len(result.history),
            "failed": result.num_failed,
            "exhausted": result.exhausted,
            "search_seconds": result.search_seconds,
            "best": None if result.best is None else _row(result.best),
            "front": [_row(item) for item in result.front],
            "environment": environment(),
        }
        write_json(args.out, content)
    return result


def _objectives(args: argparse.Namespace) -> dict[str, Direction]:
    default = VALUE if args.evaluate else "cifar10valid_valid_acc"
    objectives: dict[str, Direction] = {}
    for text in args.objective or [default]:
        name = text.removeprefix("-")
        if name in objectives:
            raise ValueError(f"Expected '--objective' to name each value once (got {name!r} twice)")
        minimize = text.startswith("-")
        if not args.evaluate:
            if name not in NASBench201.targets:
                raise ValueError(
                    "Expected '--objective' to be a label of the benchmark, or of your own with "
                    f"'--evaluate' (got {name!r}); labels are {', '.join(NASBench201.targets)}"
                )
            minimize = minimize or not NASBench201.targets[name].higher_is_better
        objectives[name] = "min" if minimize else "max"
    return objectives


def _evaluate(args: argparse.Namespace, names: list[str]) -> Callable[[Any], Any]:
    if not args.evaluate:
        return NASBench201Evaluation(names)
    module_name, _, function_name = args.evaluate.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules of the working folder, as with python -m
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "Expected '--evaluate' to name a function that can be imported, as 'module:function' "
            f"(got {args.evaluate!r}: {error})"
        ) from error
    if not callable(function):
        raise ValueError(f"Expected '--evaluate' to name a function (got {function!r})")
    return function


def _print_result(result: SearchResult, objectives: dict[str, Direction]) -> None:
    if result.num_failed:
        print(f"{result.num_failed} of {len(result.history)} evaluations failed.")
    if result.exhausted:
        print(f"Nothing new was found after {len(result.history)} evaluations.")
    if not result.front:
        print("No evaluation succeeded.")
    elif result.best is not None:
        print(f"Best of {len(result.history)} evaluations: {result.best.architecture}")
        print(_values(result.best))
    else:
        name = next(iter(objectives))
        print(f"Front of {len(result.history)} evaluations:")
        for item in sorted(result.front, key=lambda item: item.values[name]):
            print(f"{_values(item)}  {item.architecture}")
    print(f"The search itself took {result.search_seconds:.1f} s.")


def _values(item: Evaluation) -> str:
    return "  ".join(f"{name} {value:.6g}" for name, value in item.values.items())


def _row(item: Evaluation) -> dict[str, Any]:
    return {"number": item.number, "architecture": item.architecture, "values": item.values}
