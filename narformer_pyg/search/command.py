"""The command ``narformer search``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from narformer_pyg.search.evaluation import Evaluation, SearchResult
    from narformer_pyg.search.searcher import Direction

#: The spaces and methods that can be named on the command line, with the names of their classes.
SPACES = {"nasbench201": "NASBench201Cell", "darts": "DARTSGenotype"}
METHODS = {
    "predictor": "PredictorSearch",
    "evolution": "RegularizedEvolution",
    "random": "RandomSearch",
    "pareto": "ParetoSearch",
}
_DEFAULT_LABEL = "cifar10valid_valid_acc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``narformer search`` to a parser."""
    parser.description = (
        "Search a space of architectures for the best label of a benchmark, or for the best value "
        "of a function of yours."
    )
    parser.add_argument(
        "--space", choices=tuple(SPACES), default="nasbench201",
        help="the space; darts has no table of labels and needs --evaluate (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=int, default=100, help="number of evaluations (default: %(default)s)"
    )
    parser.add_argument(
        "--method", choices=tuple(METHODS), default="predictor",
        help="the search; pareto finds the best trade-offs of several objectives "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--objective", action="append", metavar="NAME",
        help="label of the benchmark to optimise, or value of your function with --evaluate; "
        "repeat it for several. A name after '-' is minimised, as in "
        "--objective=-latency_pixel3, and so is every label that is no accuracy "
        f"(default: {_DEFAULT_LABEL}, or 'value' with --evaluate)",
    )  # fmt: skip
    parser.add_argument(
        "--evaluate", metavar="MODULE:FUNCTION",
        help="function of yours that maps a cell to a number or a dictionary of numbers "
        "(default: look labels up in the table of the benchmark)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the search (default: %(default)s)"
    )
    parser.add_argument(
        "--log", type=Path,
        help="JSON lines file for the evaluations; if it exists, the search resumes from it "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="JSON file for the result (default: none)")


def run(args: argparse.Namespace) -> SearchResult:
    """Searches as the arguments say, and prints the result."""
    # Imported here, so that '--help' of any command is quick.
    from narformer_pyg import search as searches
    from narformer_pyg import spaces

    if args.space != "nasbench201" and not args.evaluate:
        raise ValueError(
            f"Expected '--evaluate' with '--space {args.space}', which has no table of labels (got "
            "none); name a function of yours that trains or measures an architecture"
        )
    objectives = _objectives(args)
    space: Any = searches.CellSpace(getattr(spaces, SPACES[args.space]))
    evaluate = _evaluate(args, list(objectives))
    method: Any = getattr(searches, METHODS[args.method])
    first, direction = next(iter(objectives.items()))
    if args.method == "pareto":
        search = method(space, objectives, seed=args.seed)
    elif len(objectives) > 1:
        raise ValueError(
            f"Expected '--objective' once with '--method {args.method}' (got {len(objectives)} "
            "names); use '--method pareto' for several"
        )
    else:
        search = method(space, objective=first, maximize=direction == "max", seed=args.seed)
    with tqdm(total=args.budget, desc="Searching", unit="evaluation") as bar:

        def advance(evaluation: Evaluation) -> None:  # the first new one need not be the first
            bar.update(evaluation.number + 1 - bar.n)

        result = search.run(evaluate, args.budget, log=args.log, callback=advance)
    _print_result(result, first)
    if args.out is not None:
        from narformer_pyg.training.report import environment, write_json

        write_json(args.out, {
            "settings": search.settings(),
            "budget": args.budget,
            "evaluated": len(result.history),
            "failed": result.num_failed,
            "exhausted": result.exhausted,
            "search_seconds": result.search_seconds,
            "best": None if result.best is None else _row(result.best),
            "front": [_row(item) for item in result.front],
            "environment": environment(),
        })  # fmt: skip
    return result


def _objectives(args: argparse.Namespace) -> dict[str, Direction]:
    from narformer_pyg.datasets import NASBench201

    objectives: dict[str, Direction] = {}
    for text in args.objective or ["value" if args.evaluate else _DEFAULT_LABEL]:
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
    from narformer_pyg.search.benchmark import NASBench201Evaluation

    if not args.evaluate:
        return NASBench201Evaluation(names)
    module_name, _, function_name = args.evaluate.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules of the working folder, as with python -m
    try:
        function = getattr(import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "Expected '--evaluate' to name a function that can be imported, as 'module:function' "
            f"(got {args.evaluate!r}: {error})"
        ) from error
    if not callable(function):
        raise ValueError(f"Expected '--evaluate' to name a function (got {function!r})")
    return function


def _print_result(result: SearchResult, first: str) -> None:
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
        print(f"Front of {len(result.history)} evaluations:")
        for item in sorted(result.front, key=lambda item: item.values[first]):
            print(f"{_values(item)}  {item.architecture}")
    print(f"The search itself took {result.search_seconds:.1f} s.")


def _values(item: Evaluation) -> str:
    return "  ".join(f"{name} {value:.6g}" for name, value in item.values.items())


def _row(item: Evaluation) -> dict[str, Any]:
    return {"number": item.number, "architecture": item.architecture, "values": item.values}
