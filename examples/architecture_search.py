r"""Searches NAS-Bench-201 with a predictor, by regularised evolution and at random.

    python examples/architecture_search.py                   # 20 seeds, 100 evaluations each
    python examples/architecture_search.py --pareto --seeds 3
    python examples/architecture_search.py --seeds 1         # a first look

A search sees the CIFAR-10 validation accuracy of the cells that it evaluates. Its result is the
best of them, and what is reported is the test accuracy of that cell, which no search sees. With
--pareto, cells are searched for the best trade-offs between validation accuracy and the latency on
a phone and on a GPU. The labels are inside the package, so an evaluation costs nothing here, and
the seconds are those of the search itself. benchmarks/README.md holds the results.

An interrupted run goes on where it was with the same command and --out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.search import (
    CellSpace,
    NASBench201Evaluation,
    ParetoSearch,
    PredictorSearch,
    RandomSearch,
    RegularizedEvolution,
    Searcher,
    SearchResult,
    hypervolume,
    non_dominated,
)
from narformer_pyg.search.report import best_so_far, plot_front, plot_progress
from narformer_pyg.spaces import NASBench201Cell
from narformer_pyg.training.report import environment, write_json

VALID = "cifar10valid_valid_acc"
TEST = "cifar10_test_acc"


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Search NAS-Bench-201 and compare searches.")
    parser.add_argument(
        "--seeds", type=int, default=20, help="searches of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--first_seed", type=int, default=0, help="seed of the first one (default: %(default)s)"
    )
    parser.add_argument("--budget", type=int, help="evaluations (default: 100, with --pareto 200)")
    parser.add_argument(
        "--evolution_budget", type=int, default=300,
        help="evaluations of the evolution to compare with (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--random_budget", type=int, default=1000,
        help="evaluations of the random search to compare with (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pareto", action=argparse.BooleanOptionalAction, default=False,
        help="search for trade-offs of accuracy and latency instead (default: no)",
    )  # fmt: skip
    latencies = [name for name in NASBench201.targets if name.startswith("latency_")]
    parser.add_argument(
        "--latency", nargs="+", choices=latencies, metavar="TARGET",
        default=["latency_pixel3", "latency_1080ti_1"],
        help=f"latencies for --pareto, of {', '.join(latencies)} (default: a phone and a GPU)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default: runs/architecture_search, or "
        "runs/pareto_search with --pareto)",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    """Runs all searches and writes the results."""
    args = parse_args()
    for name in ("seeds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"Expected '--{name}' to be a positive integer (got {value})")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    args.budget = args.budget or (200 if args.pareto else 100)
    args.out = args.out or Path("runs/pareto_search" if args.pareto else "runs/architecture_search")
    args.out.mkdir(parents=True, exist_ok=True)
    results = pareto(args) if args.pareto else compare(args)
    write_json(args.out / "results.json", {**results, "environment": environment()})
    print(f"\nResults: {args.out}/")


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Searches for the highest validation accuracy in three ways."""
    space = CellSpace(NASBench201Cell)
    methods = {
        "predictor": (PredictorSearch, args.budget),
        "evolution": (RegularizedEvolution, args.evolution_budget),
        "random": (RandomSearch, args.random_budget),
    }
    dataset = NASBench201()
    valid, test = dataset.labels(VALID), dataset.labels(TEST).tolist()
    optimum = test[int(valid.argmax())]
    results, curves = {}, {}
    for name, (method, budget) in methods.items():
        rows, progress = [], []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            search = method(space, objective=VALID, seed=seed)
            log = args.out / "logs" / f"{name}_seed{seed}.jsonl" if name == "predictor" else None
            result = search.run(NASBench201Evaluation([VALID]), budget, log=log)
            scores = [item.values[VALID] for item in result.history]
            shown = [test[index_of(item.architecture)] for item in result.history]
            progress.append(best_so_far(scores, shown))
            row = describe(result, test)
            rows.append({"seed": seed, **row})
            print(f"{name}, seed {seed}: test accuracy {row['test_accuracy']:.3f} % after "
                  f"{budget} evaluations; the search took {row['search_seconds']:.1f} s",
                  flush=True)  # fmt: skip
        curves[f"{name}, {budget} evaluations"] = np.stack(progress)
        results[name] = {
            "budget": budget,
            "settings": search.settings(),
            **summary("test_accuracy", rows),
            **summary("valid_accuracy", rows),
            **summary("search_seconds", rows),
            "mean_best_so_far": np.stack(progress).mean(axis=0).round(4).tolist(),
            "seeds": rows,
        }

    plot_progress(
        args.out / "progress.png",
        curves,
        ylabel="CIFAR-10 test accuracy of the chosen cell (%)",
        title=f"NAS-Bench-201, mean of {args.seeds} seeds, 10 % to 90 % quantile",
        optimum=optimum,
    )
    print(f"\n{'':12}  budget  test accuracy (mean ± std, lowest)  search seconds")
    for name, entry in results.items():
        print(f"{name:12}  {entry['budget']:6}  {entry['test_accuracy_mean']:8.3f} ± "
              f"{entry['test_accuracy_std']:.3f}, {entry['test_accuracy_min']:.3f}"
              f"{entry['search_seconds_mean']:22.1f}")  # fmt: skip
    print(f"The cell with the highest validation accuracy of all has {optimum:.3f} %.")
    return {"searches": results, "test_accuracy_of_best_valid_cell": optimum}


def describe(result: SearchResult, test: list[float]) -> dict[str, Any]:
    """Returns what a search has chosen and what it cost."""
    assert result.best is not None  # the table has a label for every cell
    return {
        "architecture": result.best.architecture,
        "valid_accuracy": result.best.values[VALID],
        "test_accuracy": test[index_of(result.best.architecture)],
        "found_after": result.best.number + 1,
        "search_seconds": result.search_seconds,
    }


def pareto(args: argparse.Namespace) -> dict[str, Any]:
    """Searches for trade-offs of accuracy and latency."""
    space = CellSpace(NASBench201Cell)
    dataset = NASBench201()
    results = {}
    for latency in args.latency:
        table = np.stack([dataset.labels(VALID).numpy(), -dataset.labels(latency).numpy()], axis=1)
        table = table[np.isfinite(table).all(axis=1)].astype(np.float64)
        front = table[non_dominated(table)]
        # The volume above the worst values of the true front, and the part of it that matters.
        references = {"whole front": front.min(axis=0)}
        references["above 80 %"] = np.array([80.0, front[:, 1].min()])
        rows = []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            objectives = {VALID: "max", latency: "min"}
            evaluate = NASBench201Evaluation([VALID, latency])
            searches: dict[str, Searcher[Any]] = {
                "predictor": ParetoSearch(space, objectives, seed=seed),
                "random": RandomSearch(space, objective=VALID, seed=seed),
            }
            row: dict[str, Any] = {"seed": seed}
            for name, search in searches.items():
                is_predictor = name == "predictor"
                log = args.out / "logs" / f"{latency}_seed{seed}.jsonl" if is_predictor else None
                result = search.run(evaluate, args.budget, log=log)
                points = searches["predictor"].scores(
                    [item for item in result.history if np.isfinite(item.values[latency])
                     and item.ok]
                )  # fmt: skip
                row[name] = {
                    key: hypervolume(points, ref) / hypervolume(front, ref)
                    for key, ref in references.items()
                }
                if is_predictor:
                    row["search_seconds"] = result.search_seconds
                    row["failed"] = result.num_failed
                    row["front_size"] = len(result.front)
                    if not rows:
                        plot(args, latency, result, front)
            rows.append(row)
            print(f"{latency}, seed {seed}: share of the hypervolume "
                  + ", ".join(f"{100 * row['predictor'][key]:.2f} % ({key}; random "
                              f"{100 * row['random'][key]:.2f} %)" for key in references)
                  + f"; the search took {row['search_seconds']:.1f} s", flush=True)  # fmt: skip
        flat = [
            {
                f"{name} {key}": row[name][key]
                for name in ("predictor", "random")
                for key in row[name]
            }
            | {"search_seconds": row["search_seconds"]}
            for row in rows
        ]
        results[latency] = {
            "references": {key: [ref[0], -ref[1]] for key, ref in references.items()},
            "true_front_size": len(front),
            **{k: v for name in flat[0] for k, v in summary(name, flat).items()},
            "seeds": rows,
        }
        print(f"{latency}: mean share {100 * results[latency]['predictor whole front_mean']:.2f} %")
    settings = searches["predictor"].settings()
    return {"budget": args.budget, "settings": settings, "latencies": results}


def plot(args: argparse.Namespace, latency: str, result: SearchResult, front: np.ndarray) -> None:
    """Draws the front that a search has found, and the true one."""
    target = NASBench201.targets[latency]
    plot_front(
        args.out / f"front_{latency}.png",
        result.history,
        result.front,
        x=latency,
        y=VALID,
        xlabel=f"{target.description} ({target.unit})",
        ylabel="CIFAR-10 validation accuracy (%)",
        title=f"{args.budget} evaluations, seed {args.first_seed}",
        true_front=np.stack([-front[:, 1], front[:, 0]], axis=1),
        bottom=80.0,
    )


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns mean, standard deviation and lowest value over the seeds."""
    values = np.array([row[name] for row in rows])
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_std": std,
        f"{name}_min": float(values.min()),
    }


def index_of(architecture: str) -> int:
    """Returns the official index of a cell."""
    return NASBench201Cell.from_str(architecture).index


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command goes on.")
