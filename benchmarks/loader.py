"""Batches a second of DeviceLoader and of PyG's DataLoader.

Both cut the same shuffled batches out of the cells of NAS-Bench-201 on the CPU, in turn, so that
whatever else the machine does hits both alike. Each repeat is one epoch of each:

    python benchmarks/loader.py --out benchmarks/results/loader.json
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch_geometric.loader import DataLoader

from narformer_pyg.datasets import NASBench201
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.training.report import environment, write_json

log = logging.getLogger("loader")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset_size", type=int, default=15625, help="cells (default: all)")
    parser.add_argument("--batch_size", type=int, default=128, help="graphs in a batch")
    parser.add_argument("--repeats", type=int, default=10, help="epochs of each loader")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    for name in ("dataset_size", "batch_size", "repeats", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"Expected '--{name}' to be positive (got {getattr(args, name)})")
    return args


def batches_per_second(loader: Iterable[Any]) -> float:
    """Times one epoch."""
    num_batches = 0
    start = time.perf_counter()
    for _ in loader:
        num_batches += 1
    return num_batches / (time.perf_counter() - start)


def summary(values: list[float]) -> dict[str, float]:
    """Returns the median and the spread of repeated measurements."""
    return {
        "median": round(statistics.median(values), 1),
        "min": round(min(values), 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    dataset = NASBench201()
    if args.dataset_size > len(dataset):
        raise SystemExit(
            f"Expected '--dataset_size' to be at most {len(dataset)} (got {args.dataset_size})"
        )
    if args.dataset_size < len(dataset):
        dataset = dataset[: args.dataset_size]

    loaders = {
        "DeviceLoader": DeviceLoader(dataset, args.batch_size, shuffle=True),
        "DataLoader": DataLoader(dataset, args.batch_size, shuffle=True),
    }
    for loader in loaders.values():  # PyG's dataset keeps single graphs from its first epoch on
        batches_per_second(loader)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(args.repeats):
        for name, loader in loaders.items():
            rates[name].append(batches_per_second(loader))

    device, pyg = rates["DeviceLoader"], rates["DataLoader"]
    ratios = [a / b for a, b in zip(device, pyg, strict=True)]
    ratio = summary(ratios)
    ratio["of_medians"] = round(statistics.median(device) / statistics.median(pyg), 1)
    results = {
        "settings": {
            "dataset": "NASBench201",
            "dataset_size": len(dataset),
            "batch_size": args.batch_size,
            "repeats": args.repeats,
            "threads": args.threads,
        },
        "batches_per_second": {name: summary(values) for name, values in rates.items()},
        "ratio": ratio,
        "environment": environment(),
    }
    for name, values in results["batches_per_second"].items():
        log.info("%-13s %9.1f batches/s (%.1f .. %.1f)", name, *values.values())
    log.info(
        "ratio         %9.1f of the medians (%.1f .. %.1f a repeat)",
        *(ratio[name] for name in ("of_medians", "min", "max")),
    )
    if args.out is not None:
        write_json(args.out, results)


if __name__ == "__main__":
    main()
