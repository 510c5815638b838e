"""The arguments and the work of ``narformer profile``."""

from __future__ import annotations

import argparse
import logging
from typing import Any

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds all arguments of the command to a parser."""
    parser.add_argument("folder", help="folder of ONNX models, searched through all levels")
    parser.add_argument("-o", "--output", required=True, help="CSV file of labels to write")
    add_measuring_arguments(parser)


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how to measure."""
    parser.add_argument("--provider", default="CPUExecutionProvider", help="execution provider")
    parser.add_argument("--threads", type=int, default=1, help="threads within an operator")
    parser.add_argument("--passes", type=int, default=3, help="processes that measure each model")
    parser.add_argument("--seconds", type=float, default=0.2, help="time a model in each pass")
    parser.add_argument("--timeout", type=float, default=300.0, help="most seconds a model, a pass")
    parser.add_argument("--processor", help="name of the processor in labels (default: ask it)")
    parser.add_argument(
        "--input_shape",
        action="append",
        default=[],
        metavar="NAME=D0,D1,...",
        type=named_shape,
        help="shape of an input with open dimensions, as input=1,3,224,224; can be repeated",
    )
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bar"
    )


def measuring_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of :func:`measure_models` that were given on the command line."""
    return {
        "provider": args.provider,
        "threads": args.threads,
        "passes": args.passes,
        "seconds": args.seconds,
        "timeout": args.timeout,
        "processor": args.processor,
        "input_shapes": dict(args.input_shape),
        "progress": args.progress,
    }


def run(args: argparse.Namespace) -> int:
    """Measures the folder; the exit status is 1 if some model could not be measured."""
    # Imported here, so that '--help' of any command is quick.
    from narformer_pyg.profiling.measure import profile_folder

    measured = profile_folder(args.folder, args.output, **measuring_settings(args))
    log.info("Wrote %d latencies (ms) to %s", len(measured.labels), args.output)
    return report_failures(measured.failures)


def report_failures(failures: dict[str, str]) -> int:
    """Logs the models that failed with their reasons and returns the exit status."""
    if failures:
        log.error("%d model(s) could not be measured:", len(failures))
    for name, reason in failures.items():
        log.error("  %s: %s", name, reason)
    return 1 if failures else 0


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parses an argument as :obj:`input=1,3,224,224` into a name and a shape."""
    # Names of inputs contain ':' and '/' in real files, but a '=' ends a name.
    name, separator, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not separator or not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            f"expected NAME=D0,D1,... as in input=1,3,224,224 (got {text!r})"
        )
    return name, shape
