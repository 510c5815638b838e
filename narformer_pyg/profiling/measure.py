"""Latency of ONNX models, measured with ONNX Runtime."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg._files import check_folder
from narformer_pyg.profiling.journal import Journal
from narformer_pyg.profiling.labels import LatencyLabel, write_labels
from narformer_pyg.profiling.processor import processor_name
from narformer_pyg.profiling.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# Passes on a quiet machine differ by a few percent.
_LARGE_SPREAD = 0.3


@dataclass(frozen=True, slots=True)
class Measurements:
    r"""What came of measuring some models.

    Args:
        labels (list of LatencyLabel): A label for every model that could be measured, in the order
            of the models.
        failures (dict): The reason for every model that could not, by file.
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

    The label of a model is its fastest run. Every model is measured in several short passes. Each
    pass is a process of its own and goes through the models in an order of its own, so that
    neither the memory layout of one process nor one busy minute of the machine decides a label.
    Loading and two warm-up runs come before the clock. Files without the data of their weights get
    random ones. Floating-point inputs are random, integer inputs are ones.

    A model that fails, ends the process or takes too long does not stop the others.

    Args:
        files (sequence of str or os.PathLike): The models.
        root (str or os.PathLike, optional): The folder to which the names in labels are relative;
            without it they are the paths as given. (default: :obj:`None`)
        journal (str or os.PathLike, optional): A file to which every measurement is written at
            once. If it exists, what it holds is not measured again, so a killed measurement goes
            on where it was; models that changed since are measured again. The caller removes it.
            (default: :obj:`None`)
        provider (str, optional): The execution provider. (default: :obj:`"CPUExecutionProvider"`)
        threads (int, optional): The threads within an operator. More than one make labels
            noisier, on shared machines several times. (default: :obj:`1`)
        passes (int, optional): The number of passes. (default: :obj:`3`)
        seconds (float, optional): How long a model is repeated in each pass, after warming up; at
            least three runs are timed. (default: :obj:`0.2`)
        input_shapes (mapping, optional): Shapes by the names of inputs, as
            :obj:`{"input": (1, 3, 224, 224)}`, for inputs with open dimensions.
            (default: :obj:`None`)
        processor (str, optional): The name of the processor in labels; without it the system is
            asked. (default: :obj:`None`)
        timeout (float, optional): The seconds that one model may take in one pass.
            (default: :obj:`300.0`)
        seed (int, optional): Seeds the orders of models. (default: :obj:`0`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)

    Raises:
        ImportError: If ONNX Runtime is not installed.
        RuntimeError: If a process to measure in cannot be started.
        ValueError: If an argument is wrong, or the journal has other settings.
    """
    check_integer("threads", threads)
    check_integer("passes", passes)
    check_seed(seed)
    for name, value in (("seconds", seconds), ("timeout", timeout)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"Expected '{name}' to be a positive number (got {value!r})")
    shapes = _check_shapes(input_shapes or {})
    version = _check_runtime(provider)
    paths = _named_paths(files, root)
    settings = {
        "provider": provider,
        "threads": int(threads),
        "seconds": float(seconds),
        "input_shapes": shapes,
    }
    label_settings = {
        "provider": provider,
        "threads": int(threads),
        "onnxruntime": version,
        "processor": processor if processor is not None else processor_name(provider),
    }
    header = {**settings, **label_settings, "passes": int(passes), "seed": int(seed)}
    # Entries of a pass by the file's name.
    done: list[dict[str, dict[str, Any]]] = [{} for _ in range(passes)]
    failures: dict[str, str] = {}
    with nullcontext() if journal is None else Journal(Path(journal), header) as kept:
        for entry in kept.entries if kept is not None else []:
            _take(entry, paths, done, failures)
        with tqdm(
            total=len(paths) * passes,
            initial=sum(len(entries) for entries in done),
            desc="Measuring",
            unit="model",
            disable=not progress,
        ) as bar:
            for number in range(passes):
                order = np.random.default_rng([seed, number]).permutation(len(paths))
                names = list(paths)
                with WorkerProcess(settings, float(timeout)) as worker:
                    for name in (names[i] for i in order):
                        if name in done[number]:
                            continue
                        if name in failures:
                            bar.update()
                            continue
                        entry = {
                            "file": name,
                            "pass": number,
                            "sha256": _digest(paths[name]),
                            **worker.measure(paths[name]),
                        }
                        if kept is not None:
                            kept.append(entry)
                        if "error" in entry:
                            failures[name] = entry["error"]
                            log.warning("%s was not measured: %s", name, entry["error"])
                        else:
                            done[number][name] = entry
                        bar.update()
    labels = [
        _label([entries[name] for entries in done], label_settings)
        for name in paths
        if name not in failures
    ]
    return Measurements(labels, {name: failures[name] for name in paths if name in failures})


def profile_folder(
    folder: str | os.PathLike[str], out_csv: str | os.PathLike[str], **settings: Any
) -> Measurements:
    r"""Measures all ONNX models in a folder and writes their latencies to a CSV file.

    The columns are those of :class:`~narformer_pyg.profiling.LatencyLabel`. While it runs, a
    journal stands beside the CSV file (with :obj:`.journal` behind its name): the same call after
    a kill goes on where it was. When all is measured, the CSV file is written in one step and the
    journal goes.

    Args:
        folder (str or os.PathLike): The folder; :obj:`*.onnx` in it and below are measured.
        out_csv (str or os.PathLike): The table to write; an old one is replaced.
        **settings (optional): The arguments of :func:`measure_models`, but for :obj:`root` and
            :obj:`journal`.

    Raises:
        FileNotFoundError: If the folder does not exist or has no ONNX model.
        OSError: If the table could not be written.
        ValueError: If an argument is wrong, or not one model could be measured.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected 'folder' to be a folder (got {str(folder)!r})")
    files = sorted(path for path in folder.rglob("*.onnx") if path.is_file())
    if not files:
        raise FileNotFoundError(f"Expected 'folder' to hold *.onnx files (got {str(folder)!r})")
    return measure_to_csv(files, folder, out_csv, **settings)


def measure_to_csv(
    files: Sequence[Path], root: Path, out_csv: str | os.PathLike[str], **settings: Any
) -> Measurements:
    r"""Measures some models of a folder as :func:`profile_folder` does all of them."""
    check_folder(out_csv)
    journal = Path(f"{os.fspath(out_csv)}.journal")
    measured = measure_models(files, root=root, journal=journal, **settings)
    if not measured.labels:
        name, reason = next(iter(measured.failures.items()))
        journal.unlink(missing_ok=True)  # or mending the models would change nothing
        raise ValueError(
            f"Not one of {len(files)} models could be measured; {name}, for one: {reason}"
        )
    noisy = sum(label.pass_spread > _LARGE_SPREAD for label in measured.labels)
    if noisy > len(measured.labels) // 10:
        log.warning(
            "%d of %d latencies differ by more than %.0f %% between passes: the machine is busy "
            "with other things, and even the fastest runs may be too slow",
            noisy,
            len(measured.labels),
            _LARGE_SPREAD * 100,
        )
    write_labels(measured.labels, out_csv)
    journal.unlink(missing_ok=True)
    return measured


def _take(
    entry: dict[str, Any],
    paths: dict[str, Path],
    done: list[dict[str, dict[str, Any]]],
    failures: dict[str, str],
) -> None:
    """Sorts an entry of an earlier run in, unless its file is gone or has changed."""
    path = paths.get(entry["file"])
    if path is None or _digest(path) != entry["sha256"]:
        return
    if "error" in entry:
        failures[entry["file"]] = entry["error"]
    else:
        done[entry["pass"]][entry["file"]] = entry


def _digest(path: Path) -> str:
    """Returns the sha256 of a file, or nothing if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def _label(entries: Sequence[dict[str, Any]], settings: dict[str, Any]) -> LatencyLabel:
    times = [entry["latency_ms"] for entry in entries]
    same = ("file", "family", "batch", "precision", "weights", "input_shapes")
    return LatencyLabel(
        latency_ms=round(min(times), 6),
        unit="ms",
        statistic="minimum",
        passes=len(times),
        runs=sum(entry["runs"] for entry in entries),
        pass_spread=round(max(times) / min(times) - 1, 4),
        **{name: entries[0][name] for name in same},
        **settings,
    )


def _named_paths(
    files: Sequence[str | os.PathLike[str]], root: str | os.PathLike[str] | None
) -> dict[str, Path]:
    if isinstance(files, (str, os.PathLike)):
        raise ValueError(f"Expected 'files' to be a sequence of paths (got {files!r})")
    if not files:
        raise ValueError("Expected 'files' to name at least one model (got none)")
    paths: dict[str, Path] = {}
    for file in files:
        path = Path(file)
        name = path.as_posix() if root is None else path.relative_to(root).as_posix()
        if name in paths:
            raise ValueError(f"Expected 'files' to name each model once (got {name!r} twice)")
        paths[name] = path
    return paths


def _check_shapes(input_shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    if not isinstance(input_shapes, Mapping):
        raise ValueError(
            "Expected 'input_shapes' to map names of inputs to shapes, as "
            f"{{'input': (1, 3, 224, 224)}} (got {input_shapes!r})"
        )
    return {
        str(name): [check_integer("input_shapes", size) for size in shape]
        for name, shape in input_shapes.items()
    }


def _check_runtime(provider: str) -> str:
    """Returns the version of ONNX Runtime, or raises if it or the provider is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "Measuring latency needs ONNX Runtime: 'pip install \"narformer-pyg[runtime]\"'"
        ) from error
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ValueError(
            f"Expected 'provider' to be among {', '.join(available)}, which this ONNX Runtime "
            f"has (got {provider!r})"
        )
    return str(onnxruntime.__version__)
