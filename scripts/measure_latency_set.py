r"""Draws random networks of eleven families and measures their latency with ONNX Runtime.

Writes a folder of ONNX models without the data of their weights and a CSV file of labels::

    python scripts/measure_latency_set.py --num 1500 --folder networks --output labels.csv

The same command resumes an interrupted run. A second measurement of some of the networks shows how
far the labels can be trusted::

    python scripts/measure_latency_set.py --repeat_of labels.csv --num 100 --folder networks \
        --output labels_again.csv

Needs ``pip install "narformer-pyg[runtime]"`` and a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import logging
import sys

import numpy as np

from narformer_pyg.profiling.command import (
    add_measuring_arguments,
    measuring_settings,
    report_failures,
)
from narformer_pyg.profiling.families import FAMILIES
from narformer_pyg.profiling.latency_set import measure_again, write_networks
from narformer_pyg.profiling.measure import Measurements, profile_folder

log = logging.getLogger("measure_latency_set")


def main() -> int:
    """Measures a set, or some of a set again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, required=True, help="how many networks")
    parser.add_argument("--folder", required=True, help="folder of the networks")
    parser.add_argument("-o", "--output", required=True, help="CSV file of labels to write")
    parser.add_argument("--repeat_of", help="CSV file of labels: measure some of its models again")
    parser.add_argument("--seed", type=int, default=0, help="seed of networks and orders")
    parser.add_argument(
        "--families", nargs="+", choices=list(FAMILIES), help="families to draw from (default: all)"
    )
    add_measuring_arguments(parser)
    args = parser.parse_args()
    if args.repeat_of and args.families:
        parser.error("--families does not go with --repeat_of, which draws from its own labels")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = measuring_settings(args)

    if args.repeat_of:
        result = measure_again(
            args.repeat_of, args.folder, args.output, args.num, args.seed, **settings
        )
        log.info(
            "%d networks measured again: MAPE %.2f %%, median %.2f %%, bias %+.2f %%; "
            "%.1f %% of them within 10 %%",
            result.num_models,
            result.mape,
            result.median,
            result.bias,
            result.within_10_percent,
        )
        if result.different_settings:
            log.warning("The two differ in %s", ", ".join(result.different_settings))
        return 0
    networks = write_networks(args.folder, args.num, args.seed, args.families)
    measured = profile_folder(args.folder, args.output, networks, seed=args.seed, **settings)
    _log_families(measured)
    log.info("Wrote %d latencies to %s", len(measured.labels), args.output)
    return report_failures(measured.failures)


def _log_families(measured: Measurements) -> None:
    log.info("%-14s %6s %9s %9s %9s  (ms)", "family", "models", "least", "median", "largest")
    for family in FAMILIES:
        times = [label.latency_ms for label in measured.labels if label.family == family]
        if times:
            log.info(
                "%-14s %6d %9.2f %9.2f %9.2f",
                family,
                len(times),
                min(times),
                np.median(times),
                max(times),
            )


if __name__ == "__main__":
    sys.exit(main())
