"""The arguments and the work of ``narformer profile``."""

from __future__ import annotations

import argparse
import logging
from typing import Any

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds all arguments of the command to a parser."""
    parser.description = (
        "Measure the latency of every ONNX model in a folder with ONNX Runtime and write a CSV "
        "table. The same command continues an interrupted measurement."
    )
    parser.add_argument("folder", help="folder of ONNX models, searched with its subfolders")
    parser.add_argument("-o", "--output", required=True, help="CSV file to write (required)")
    add_measuring_arguments(parser)


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how to measure."""

    def add(name: str, default: Any, text: str) -> None:
        parser.add_argument(
            name, type=type(default), default=default, help=f"{text} (default: %(default)s)"
        )

    add("--provider", "CPUExecutionProvider", "execution provider of ONNX Runtime")
    add("--threads", 1, "threads within an operator")
    add("--passes", 3, "processes that each measure every model")
    add("--seconds", 0.2, "seconds of timed runs per model and pass")
    add("--timeout", 300.0, "longest time in seconds for one model in one pass")
    parser.add_argument(
        "--processor", help="name of the processor in the table (default: ask the system)"
    )
    parser.add_argument(
        "--input_shape", action="append", default=[], metavar="NAME=D0,D1,...", type=named_shape,
        help="shape of an input with open dimensions, for example input=1,3,224,224; repeat it "
        "for several inputs (default: the shapes in the models)",
    )  # fmt: skip
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=True,
        help="show a progress bar (default: yes)",
    )  # fmt: skip


def measuring_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of the command line as those of :func:`measure_models`."""
    names = ("provider", "threads", "passes", "seconds", "timeout", "processor", "progress")
    settings = {name: getattr(args, name) for name in names}
    return {**settings, "input_shapes": dict(args.input_shape)}


def run(args: argparse.Namespace) -> int:
    """Measures the folder; the exit status is 1 if a model could not be measured."""
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
    """Parses an argument such as :obj:`input=1,3,224,224` into a name and a shape."""
    # Names of inputs contain ':' and '/' in real files, but '=' ends a name.
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            f"expected NAME=D0,D1,... as in input=1,3,224,224 (got {text!r})"
        )
    return name, shape
