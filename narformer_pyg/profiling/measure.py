"""Latency of ONNX models, measured with ONNX Runtime."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg._files import Journal, check_folder
from narformer_pyg.profiling.labels import LatencyLabel, write_labels
from narformer_pyg.profiling.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# Passes on a quiet machine differ by a few percent.
_LARGE_SPREAD = 0.3
# The columns that a worker reports of a model, the same in every pass.
_MODEL_COLUMNS = ("file", "family", "batch", "precision", "weights", "input_shapes")


@dataclass(frozen=True, slots=True)
class Measurements:
    r"""The outcome of measuring some models.

    Args:
        labels (list of LatencyLabel): The labels of the measured models, in the order of models.
        failures (dict): The reason for every model that could not be measured, by file.
    """

    labels: list[LatencyLabel]
    failures: dict[str, str]


def measure_models(
    files: Sequence[str | os.PathLike[str]],
    *,
    root: str | os.PathLike[str] | None = None,
    journal: str | os.PathLike[str] | None = None,
    provider: str = "CPUExecutionProvider",
    threads: int = 1,
    passes: int = 3,
    seconds: float = 0.2,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    processor: str | None = None,
    timeout: float = 300.0,
    seed: int = 0,
    progress: bool = True,
) -> Measurements:
    r"""Measures the latency of ONNX models with ONNX Runtime.

    The label of a model is its fastest run in several short passes. Each pass is a new process with
    a new order of models, so that neither the memory layout of one process nor one busy minute
    decides a label. Loading and two warm-up runs are not timed. Weights without data become random;
    floating-point inputs are random, integer inputs are ones.

    A model that fails, ends the process or takes too long does not stop the others.

    Args:
        files (sequence of str or os.PathLike): The models.
        root (str or os.PathLike, optional): The folder that names in labels are relative to;
            by default names are the paths as passed. (default: :obj:`None`)
        journal (str or os.PathLike, optional): A file that receives every measurement, from which
            the same call resumes. The caller removes it. (default: :obj:`None`)
        provider (str, optional): The execution provider. (default: :obj:`"CPUExecutionProvider"`)
        threads (int, optional): The threads within an operator. More than one make labels
            noisier, on shared machines several times. (default: :obj:`1`)
        passes (int, optional): The number of passes. (default: :obj:`3`)
        seconds (float, optional): The seconds of timed runs per model and pass; at least three
            runs are timed. (default: :obj:`0.2`)
        input_shapes (mapping, optional): Shapes of inputs with open dimensions, by name, as
            :obj:`{"input": (1, 3, 224, 224)}`. (default: :obj:`None`)
        processor (str, optional): The name of the processor in labels; by default that of the
            system. (default: :obj:`None`)
        timeout (float, optional): The seconds that one model may take in one pass.
            (default: :obj:`300.0`)
        seed (int, optional): Seeds the orders of models. (default: :obj:`0`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)

    Raises:
        ImportError: If ONNX Runtime is not installed.
        RuntimeError: If a process to measure in cannot be started.
        ValueError: If an argument is wrong, or the journal is damaged or has other settings.
    """
    check_integer("threads", threads)
    check_integer("passes", passes)
    check_seed(seed)
    for name, value in (("seconds", seconds), ("timeout", timeout)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"Expected '{name}' to be a positive number (got {value!r})")
    if not isinstance(input_shapes or {}, Mapping):
        raise ValueError(
            "Expected 'input_shapes' to map names of inputs to shapes, as "
            f"{{'input': (1, 3, 224, 224)}} (got {input_shapes!r})"
        )
    shapes = {
        str(name): [check_integer("input_shapes", size) for size in shape]
        for name, shape in (input_shapes or {}).items()
    }
    version = _check_runtime(provider)
    paths = _named_paths(files, root)
    shared = {"provider": provider, "threads": int(threads)}
    settings = {**shared, "seconds": float(seconds), "input_shapes": shapes}
    columns = {
        **shared,
        "onnxruntime": version,
        "processor": processor_name(provider) if processor is None else processor,
    }
    header = {**settings, **columns, "passes": int(passes), "seed": int(seed)}
    # The entries of each pass, by file.
    done: list[dict[str, dict[str, Any]]] = [{} for _ in range(passes)]
    names = list(paths)
    failures: dict[str, str] = {}
    with nullcontext() if journal is None else Journal(journal, "measurement", header) as kept:
        if kept is not None:
            _resume(kept, paths, columns, done, failures)
        total, initial = len(names) * passes, sum(map(len, done))
        with tqdm(
            desc="Measuring", total=total, initial=initial, unit="model", disable=not progress
        ) as bar:
            for number, entries in enumerate(done):
                order = np.random.default_rng([seed, number]).permutation(len(names))
                missing = [names[i] for i in order if names[i] not in entries]
                with WorkerProcess(settings, float(timeout)) as worker:
                    for name in missing:
                        bar.update()
                        if name in failures:
                            continue
                        entry = {"file": name, "pass": number, "sha256": _digest(paths[name])}
                        entry |= worker.measure(paths[name])
                        if kept is not None:
                            kept.write(entry)
                        if "error" in entry:
                            failures[name] = entry["error"]
                            log.warning("%s was not measured: %s", name, entry["error"])
                        else:
                            entries[name] = entry
    measured = [name for name in names if name not in failures]
    labels = [_label([entries[name] for entries in done], columns) for name in measured]
    return Measurements(labels, {name: failures[name] for name in names if name in failures})


def profile_folder(
    folder: str | os.PathLike[str],
    out_csv: str | os.PathLike[str],
    files: Sequence[Path] | None = None,
    **settings: Any,
) -> Measurements:
    r"""Measures the ONNX models in a folder and writes their latencies to a CSV file.

    The columns are those of :class:`~narformer_pyg.profiling.LatencyLabel`. After a kill, the same
    call continues from a journal beside the CSV file, with :obj:`.journal` appended to its name.

    Args:
        folder (str or os.PathLike): The folder.
        out_csv (str or os.PathLike): The table to write; an old one is replaced.
        files (sequence of Path, optional): The models, inside the folder; by default every
            :obj:`*.onnx` in it and below. (default: :obj:`None`)
        **settings (optional): The arguments of :func:`measure_models` except :obj:`root` and
            :obj:`journal`.

    Raises:
        FileNotFoundError: If the folder does not exist or has no ONNX model.
        OSError: If the table could not be written.
        ValueError: If an argument is wrong, or no model could be measured.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected 'folder' to be a folder (got {str(folder)!r})")
    if files is None:
        files = sorted(path for path in folder.rglob("*.onnx") if path.is_file())
    if not files:
        raise FileNotFoundError(f"Expected 'folder' to hold *.onnx files (got {str(folder)!r})")
    check_folder(out_csv)
    journal = Path(f"{os.fspath(out_csv)}.journal")
    measured = measure_models(files, root=folder, journal=journal, **settings)
    if not measured.labels:
        name, reason = next(iter(measured.failures.items()))
        journal.unlink(missing_ok=True)  # so that repaired models are measured
        raise ValueError(
            f"Expected at least one of {len(files)} models to be measured (got {name}: {reason})"
        )
    noisy = sum(label.pass_spread > _LARGE_SPREAD for label in measured.labels)
    if noisy > len(measured.labels) // 10:
        log.warning(
            f"{noisy} of {len(measured.labels)} latencies differ by more than {_LARGE_SPREAD:.0%} "
            "between passes: the machine is busy, and even the fastest runs may be too slow"
        )
    write_labels(measured.labels, out_csv)
    journal.unlink(missing_ok=True)
    return measured


def processor_name(provider: str) -> str:
    """Returns the name of the processor behind an execution provider."""
    if provider.startswith(("CUDA", "Tensorrt", "NvTensorRt")):
        import torch  # the name of a CPU needs no torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():  # Linux, where platform.processor() has no name
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text("utf-8", "replace"), re.M)
        if found:
            return found[1].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if name:
            return name
    return platform.processor() or platform.machine()


def _resume(
    journal: Journal,
    paths: Mapping[str, Path],
    columns: dict[str, Any],
    done: list[dict[str, dict[str, Any]]],
    failures: dict[str, str],
) -> None:
    """Takes over the entries of an earlier run, unless their files are gone or have changed."""
    for entry in journal.entries:
        try:
            name, entries = entry["file"], done[entry["pass"]]
            if name not in paths or _digest(paths[name]) != entry["sha256"]:
                continue
            if "error" in entry:
                failures[name] = str(entry["error"])
            else:
                _label([entry], columns)  # raises unless the entry is complete
                entries[name] = entry
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise journal.damaged(f"{type(error).__name__}: {error}") from error


def _digest(path: Path) -> str:
    """Returns the sha256 of a file, or nothing if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _label(entries: Sequence[dict[str, Any]], columns: dict[str, Any]) -> LatencyLabel:
    times = [entry["latency_ms"] for entry in entries]
    return LatencyLabel(
        latency_ms=round(min(times), 6),
        unit="ms",
        statistic="minimum",
        passes=len(times),
        runs=sum(entry["runs"] for entry in entries),
        pass_spread=round(max(times) / min(times) - 1, 4),
        **{name: entries[0][name] for name in _MODEL_COLUMNS},
        **columns,
    )


def _named_paths(
    files: Sequence[str | os.PathLike[str]], root: str | os.PathLike[str] | None
) -> dict[str, Path]:
    if isinstance(files, (str, os.PathLike)) or not files:
        raise ValueError(f"Expected 'files' to be a sequence of paths (got {files!r})")
    paths: dict[str, Path] = {}
    for path in map(Path, files):
        name = (path if root is None else path.relative_to(root)).as_posix()
        if name in paths:
            raise ValueError(f"Expected 'files' to name each model once (got {name!r} twice)")
        paths[name] = path
    return paths


def _check_runtime(provider: str) -> str:
    """Returns the version of ONNX Runtime, or raises if it or the provider is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "Measuring latency needs ONNX Runtime: 'pip install \"narformer-pyg[runtime]\"'"
        ) from error
    available = ", ".join(onnxruntime.get_available_providers())
    if provider not in available.split(", "):
        raise ValueError(f"Expected 'provider' to be among {available} (got {provider!r})")
    return str(onnxruntime.__version__)
