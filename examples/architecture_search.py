r"""Searches NAS-Bench-201 with a predictor, by regularised evolution and at random.

    python examples/architecture_search.py                   # 20 seeds, 100 evaluations each
    python examples/architecture_search.py --seeds 1         # a first look
    python examples/architecture_search.py --pareto latency_pixel3 --seeds 3

A search sees the CIFAR-10 validation accuracy of the cells that it evaluates. Its result is the
best of them, and what is reported is the test accuracy of that cell, which no search sees. With
--pareto, cells are searched for the best trade-offs between validation accuracy and a latency. The
labels are inside the package, so an evaluation costs nothing here, and the seconds are those of the
search itself. benchmarks/README.md holds the results.

An interrupted run goes on where it was with the same command and --out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from narformer_pyg.threads import wait_passively

wait_passively()  # before torch is imported: a busy neighbour then costs its share, not more

import numpy as np  # noqa: E402
import torch  # noqa: E402

from narformer_pyg.datasets import NASBench201  # noqa: E402
from narformer_pyg.search import (  # noqa: E402
    CellSpace,
    NASBench201Evaluation,
    ParetoSearch,
    PredictorSearch,
    RandomSearch,
    RegularizedEvolution,
    hypervolume,
    non_dominated,
)
from narformer_pyg.spaces import NASBench201Cell  # noqa: E402

VALID, TEST = "cifar10valid_valid_acc", "cifar10_test_acc"


def compare(args: argparse.Namespace, seeds: range) -> None:
    """Searches for the highest validation accuracy in three ways."""
    dataset = NASBench201()
    test = dataset.labels(TEST)
    for name, method, budget in (
        ("predictor", PredictorSearch, args.budget),
        ("evolution", RegularizedEvolution, 3 * args.budget),
        ("random", RandomSearch, 10 * args.budget),
    ):
        found, seconds = [], []
        for seed in seeds:
            search = method(CellSpace(NASBench201Cell), objective=VALID, seed=seed)
            log = args.out / f"{name}_seed{seed}.jsonl" if name == "predictor" else None
            result = search.run(NASBench201Evaluation([VALID]), budget, log=log)
            assert result.best is not None  # the table has a label for every cell
            cell = NASBench201Cell.from_str(result.best.architecture)
            found.append(float(test[cell.index]))
            seconds.append(result.search_seconds)
            print(f"{name}, seed {seed}: {cell}, test accuracy {found[-1]:.3f} %", flush=True)
        spread = np.std(found, ddof=1) if len(found) > 1 else 0.0
        print(f"{name}: {np.mean(found):.3f} ± {spread:.3f} %, lowest {min(found):.3f} %, after "
              f"{budget} evaluations; {np.mean(seconds):.1f} s a search")  # fmt: skip
    best = float(test[int(dataset.labels(VALID).argmax())])
    print(f"The cell with the highest validation accuracy of all has {best:.3f} %.")


def pareto(args: argparse.Namespace, seeds: range) -> None:
    """Searches for trade-offs of accuracy and latency, and compares with the true front."""
    dataset = NASBench201()
    table = torch.stack([dataset.labels(VALID), -dataset.labels(args.pareto)], dim=1).double()
    table = table[table.isfinite().all(dim=1)].numpy()
    front = table[non_dominated(table)]
    reference = front.min(axis=0)  # the worst values of the true front
    shares = []
    for seed in seeds:
        search = ParetoSearch(
            CellSpace(NASBench201Cell), {VALID: "max", args.pareto: "min"}, seed=seed
        )
        log = args.out / f"{args.pareto}_seed{seed}.jsonl"
        evaluate = NASBench201Evaluation([VALID, args.pareto])
        result = search.run(evaluate, args.budget, log=log)
        points = search.scores([item for item in result.history if item.ok])
        shares.append(100 * hypervolume(points, reference) / hypervolume(front, reference))
        print(f"seed {seed}: {len(result.front)} cells with {shares[-1]:.2f} % of the hypervolume "
              f"of the true front; {result.search_seconds:.1f} s")  # fmt: skip
    print(f"{args.pareto}: {np.mean(shares):.2f} % of the hypervolume, mean of {len(shares)}")


def main() -> None:
    """Runs all searches."""
    latencies = [name for name in NASBench201.targets if name.startswith("latency_")]
    parser = argparse.ArgumentParser(
        description="Search NAS-Bench-201 and compare searches.",
        epilog="'narformer search' searches with a function of yours.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind")
    parser.add_argument("--first_seed", type=int, default=0, help="seed of the first one")
    parser.add_argument("--budget", type=int, default=100, help="evaluations of the predictor's")
    parser.add_argument("--pareto", choices=latencies, help="search for trade-offs with it instead")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/architecture_search"), help="logs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    (pareto if args.pareto else compare)(args, seeds)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command goes on.")
