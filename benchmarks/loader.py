"""Batches a second of DeviceLoader and of PyG's DataLoader.

Both cut the same shuffled batches out of the cells of NAS-Bench-201 on the CPU, in turn, so that
whatever else the machine does hits both alike. Each repeat is one epoch of each:

    python benchmarks/loader.py --out benchmarks/results/loader.csv
"""

from __future__ import annotations

import argparse
import logging
from collections import deque
from functools import partial

import common
from torch_geometric.loader import DataLoader

from narformer_pyg.datasets import NASBench201
from narformer_pyg.loader import DeviceLoader

log = logging.getLogger("loader")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = common.create_parser(
        __doc__, repeats=10, threads=1, repeats_help="epochs of each loader"
    )
    parser.add_argument("--dataset_size", type=int, default=15625, help="cells (default: all)")
    parser.add_argument("--batch_size", type=int, default=128, help="graphs in a batch")
    return common.parse_args(parser, {"dataset_size": 256, "batch_size": 32, "repeats": 2})


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
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
    # An epoch of each before: PyG's dataset keeps single graphs from its first epoch on.
    epochs = {name: partial(deque, loader, maxlen=0) for name, loader in loaders.items()}
    seconds = common.interleave(epochs, args.repeats, warmup=1)
    rates = {name: [len(loaders[name]) / s for s in values] for name, values in seconds.items()}

    ratio = common.ratio(rates["DeviceLoader"], rates["DataLoader"], digits=1)
    results = {
        "settings": {"dataset": "NASBench201", **common.settings(args)},
        "batches_per_second": {
            name: common.summary(values, digits=1) for name, values in rates.items()
        },
        "ratio": ratio,
    }
    for name, values in results["batches_per_second"].items():
        log.info("%-13s %9.1f batches/s (%.1f .. %.1f)", name, *values.values())
    log.info(
        "ratio         %9.1f of the medians (%.1f .. %.1f a repeat)",
        *(ratio[name] for name in ("of_medians", "min", "max")),
    )
    common.write_results(args.out, results)


if __name__ == "__main__":
    main()
