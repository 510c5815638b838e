"""Interleaved timing, memory of fresh processes, flags and output of the benchmarks."""

from __future__ import annotations

import argparse
import csv
import fcntl
import gc
import importlib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from narformer_pyg._files import atomic_write
from narformer_pyg.training.report import environment

#: Between the parts of the name of a figure.
SEPARATOR = " > "
FOLDER = Path(__file__).resolve().parent
# Where the package is, so that new processes measure the same one.
PACKAGE_PARENT = Path(sys.modules["narformer_pyg"].__file__ or "").resolve().parents[1]

# ---------------------------------------------------------------------------------------- flags


def create_parser(
    doc: str | None, *, repeats: int, threads: int, repeats_help: str = "measurements of each"
) -> argparse.ArgumentParser:
    """Returns a parser with the flags that all benchmarks have.

    Args:
        doc: The docstring of the benchmark.
        repeats: The default of ``--repeats``.
        threads: The default of ``--threads``.
        repeats_help: What ``--repeats`` counts.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=repeats, help=f"{repeats_help} (default: {repeats})"
    )
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"threads of PyTorch (default: {threads})"
    )
    parser.add_argument("--out", type=Path, help="CSV file for the results")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes unless given, to see that the script works; not for numbers",
    )
    return parser


def parse_args(
    parser: argparse.ArgumentParser, quick: Mapping[str, Any] | None = None
) -> argparse.Namespace:
    """Reads the command line, and sets the threads of PyTorch.

    Args:
        parser: The parser; numbers must come out positive.
        quick: Defaults that replace the others if ``--quick`` is given.
    """
    args = parser.parse_args()
    if args.quick:
        parser.set_defaults(**(quick or {}))
        args = parser.parse_args()
    for name, value in vars(args).items():
        for number in value if isinstance(value, list) else [value]:
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if is_number and not number > 0:
                parser.error(f"Expected '--{name}' to be positive (got {number})")
    torch.set_num_threads(args.threads)
    return args


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags that say what was measured; ``quick`` only where it was given."""
    left_out = {"out", "plot"} if args.quick else {"out", "plot", "quick"}
    return {key: value for key, value in vars(args).items() if key not in left_out}


# --------------------------------------------------------------------------------------- timing


def interleave(
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    min_seconds: float = 0.0,
) -> dict[str, list[float]]:
    """Times functions in turn, so that whatever else the machine does hits all alike.

    Every repeat starts with another function, so that none always runs in the wake of the same one.

    Args:
        functions: What is timed, by name.
        repeats: The measurements of each.
        warmup: Calls of each before the first measurement.
        min_seconds: A measurement consists of as many calls as last about this long.

    Returns:
        The seconds of a call, one for each repeat, by name.
    """
    names = list(functions)
    calls = dict.fromkeys(names, 1)
    for name in names:
        seconds = math.inf
        for _ in range(warmup):
            seconds = min(seconds, _seconds(functions[name], 1))
        if warmup > 0 and min_seconds > 0.0:
            calls[name] = max(1, math.ceil(min_seconds / max(seconds, 1e-9)))
    out: dict[str, list[float]] = {name: [] for name in names}
    for i in range(repeats):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            out[name].append(_seconds(functions[name], calls[name]))
    return out


def _seconds(function: Callable[[], object], calls: int) -> float:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls
    finally:
        if enabled:
            gc.enable()


def summary(values: Sequence[float], digits: int | None = None) -> dict[str, float]:
    """Returns the median and the spread of repeated measurements.

    Args:
        values: The measurements.
        digits: Digits behind the point; five significant digits if not given.
    """
    return {
        "median": _rounded(statistics.median(values), digits),
        "min": _rounded(min(values), digits),
        "max": _rounded(max(values), digits),
    }


def ratio(
    numerator: Sequence[float], denominator: Sequence[float], digits: int | None = None
) -> dict[str, float]:
    """Returns the ratio of the medians, and the spread of the ratios of the repeats.

    Args:
        numerator: Measurements; seconds of the slower one give "times as fast".
        denominator: As many, taken in turn with the others.
        digits: Digits behind the point; five significant digits if not given.
    """
    each = [a / b for a, b in zip(numerator, denominator, strict=True)]
    of_medians = statistics.median(numerator) / statistics.median(denominator)
    return {**summary(each, digits), "of_medians": _rounded(of_medians, digits)}


def _rounded(value: float, digits: int | None) -> float:
    return float(f"{value:.5g}") if digits is None else round(value, digits)


def fitted_exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Returns the slope of a line through logarithms; nothing for fewer than two points."""
    points = [(math.log(s), math.log(v)) for s, v in zip(sizes, values, strict=True) if v > 0]
    if len({s for s, _ in points}) < 2:
        return None
    return _rounded(statistics.linear_regression(*zip(*points, strict=True)).slope, 3)


# --------------------------------------------------------------------------------------- memory


def peak_memory(function: Callable[[], object]) -> int:
    """Returns by how many bytes the resident memory grew at most during a call.

    Memory that was freed before may be used again unseen: call it in a fresh process, see
    :func:`in_fresh_processes`. On Linux the peak is the high-water mark of this very process, set
    back before the call. (``ru_maxrss`` starts with that of the process that started this one.)
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        before, peak = _max_rss, _max_rss
    else:
        before, peak = lambda: _status("VmRSS"), lambda: _status("VmHWM")
    start = before()
    function()
    return max(peak() - start, 0)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _max_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory() -> int:
    """Returns the bytes that can be allocated without swapping, as far as the system tells."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found += [int(s.split()[1]) * 1024 for s in lines if s.startswith("MemAvailable:")]
    except OSError:
        pass
    try:  # a container's own limit
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text("ascii").strip()
        if limit != "max":
            found.append(int(limit) - int(used))
    except (OSError, ValueError):
        pass
    return min(found, default=4 * 2**30)


def in_fresh_processes(
    module: str, function: str, jobs: Sequence[Mapping[str, Any]], threads: int
) -> list[Any]:
    """Calls a function of a module of this folder once per job, each in a process of its own.

    One process does the imports and forks for each job, before any thread or tensor exists.

    Args:
        module: The name of the module.
        function: The name of the function; its result must be JSON.
        jobs: The arguments of each call.
        threads: The threads of PyTorch in each process.

    Returns:
        The results; :obj:`None` where the process died, for instance for want of memory.
    """
    request = {"module": module, "function": function, "jobs": list(jobs), "threads": threads}
    paths = [str(FOLDER), str(PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", "import common; common.serve()"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def serve() -> None:
    """Runs the jobs of :func:`in_fresh_processes`, in the process that it starts."""
    request = json.load(sys.stdin)
    function = getattr(importlib.import_module(request["module"]), request["function"])
    results = []
    for job in request["jobs"]:
        read, write = os.pipe()
        process = os.fork()
        if process == 0:
            status = 1
            try:
                torch.set_num_threads(request["threads"])
                content = json.dumps(function(**job)).encode()
                with os.fdopen(write, "wb") as stream:
                    stream.write(content)
                status = 0
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            content = stream.read()
        os.waitpid(process, 0)
        results.append(json.loads(content) if content else None)
    print(json.dumps(results))


# --------------------------------------------------------------------------------------- output


def write_results(path: Path | None, results: Mapping[str, Any]) -> None:
    """Writes results next to the versions and the machine that they depend on.

    Args:
        path: The CSV file: a line for each figure, named by its place; nothing is written without.
        results: The figures, in nested dictionaries and lists.
    """
    if path is None:
        return
    figures = flatten({**results, "date": date.today().isoformat(), "environment": environment()})
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("figure", "value"), *figures.items()])


def read_results(path: Path) -> dict[str, Any]:
    """Reads the results that :func:`write_results` wrote; lists become dictionaries by position."""
    with path.open(newline="", encoding="utf-8") as file:
        return unflatten({row["figure"]: row["value"] for row in csv.DictReader(file)})


def write_row(path: Path, key: str, content: Mapping[str, Any]) -> None:
    """Writes the row of one run to a CSV file of many, in place of an older row of the same key."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = _read_rows(path)
        rows[key] = {"key": key, **flatten(content)}
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))
    path.with_suffix(".lock").unlink(missing_ok=True)


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the rows that :func:`write_row` wrote, by key, nested as they were."""
    rows = {}
    for key, row in _read_rows(path).items():
        rows[key] = unflatten({name: v for name, v in row.items() if v != "" and name != "key"})
    return rows


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def flatten(content: Any, prefix: str = "") -> dict[str, str]:
    """Returns the figures of nested dictionaries and lists as text, by dotted names."""
    if isinstance(content, Mapping):
        items: Any = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    else:
        if isinstance(content, str):
            return {prefix: content}
        is_float = isinstance(content, float)
        return {prefix: json.dumps(float(f"{content:.7g}") if is_float else content)}
    flat: dict[str, str] = {}
    for name, value in items:
        flat |= flatten(value, f"{prefix}{SEPARATOR}{name}" if prefix else str(name))
    return flat


def unflatten(figures: Mapping[str, str]) -> dict[str, Any]:
    """Undoes :func:`flatten`."""
    nested: dict[str, Any] = {}
    for name, text in figures.items():
        *places, last = name.split(SEPARATOR)
        inner = nested
        for place in places:
            inner = inner.setdefault(place, {})
        try:
            inner[last] = json.loads(text)
        except ValueError:  # text that is no number
            inner[last] = text
    return nested


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Lays rows out in columns, the first row being the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def format_ratio(values: Mapping[str, float]) -> str:
    """Writes a result of :func:`ratio`."""
    return f"{values['of_medians']:.2f}x [{values['min']:.2f} .. {values['max']:.2f}]"


def format_spread(values: Mapping[str, float], scale: float = 1.0, digits: int = 1) -> str:
    """Writes a result of :func:`summary`, multiplied by a number."""
    low, mid, high = (values[key] * scale for key in ("min", "median", "max"))
    return f"{mid:,.{digits}f} [{low:,.{digits}f} .. {high:,.{digits}f}]"


@dataclass
class Panel:
    """One pair of axes of :func:`plot_loglog`.

    Args:
        title: What is above it.
        x_label: What is along it.
        y_label: What is up it.
        lines: Points ``(x, y)`` or ``(x, y, lowest, highest)`` by the name of the line.
    """

    title: str
    x_label: str
    y_label: str
    lines: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)


def plot_loglog(path: Path, panels: Sequence[Sequence[Panel]], emphasis: str | None = None) -> None:
    """Draws lines on logarithmic axes, with their spread as a band.

    Args:
        path: The PNG file.
        panels: Rows of axes.
        emphasis: The line that is drawn thicker.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    num_rows, num_columns = len(panels), max(len(row) for row in panels)
    figure, grid = plt.subplots(
        num_rows,
        num_columns,
        figsize=(5.4 * num_columns, 3.9 * num_rows),
        squeeze=False,
        constrained_layout=True,
    )
    names = list(dict.fromkeys(name for row in panels for panel in row for name in panel.lines))
    for row, axes_row in zip(panels, grid, strict=True):
        for panel, axes in zip(row, axes_row, strict=True):
            for name, points in panel.lines.items():
                points = sorted(point for point in points if point[1] > 0)
                if not points:
                    continue
                number = names.index(name)
                strong = name == emphasis
                x, y = [p[0] for p in points], [p[1] for p in points]
                axes.loglog(
                    x,
                    y,
                    marker="osv^DP*X"[number % 8],
                    markersize=4,
                    linewidth=2.4 if strong else 1.2,
                    color=f"C{number % 10}",
                    label=name,
                    zorder=3 if strong else 2,
                )
                if all(len(p) == 4 for p in points):
                    low, high = [p[2] for p in points], [p[3] for p in points]
                    axes.fill_between(x, low, high, color=f"C{number % 10}", alpha=0.15)
            axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
            axes.grid(True, which="major", linewidth=0.4, alpha=0.6)
    grid[0][0].legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)
