"""Conversion of many ONNX models in several processes, in spite of failures."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch_geometric.data import Data
from tqdm.auto import tqdm

from narformer_pyg import convert
from narformer_pyg._processes import end_with_parent
from narformer_pyg.datasets._latency_labels import LatencyRow

# Starting a process takes seconds, converting a model a fraction of one.
_MODELS_PER_WORKER = 64

Task: TypeAlias = tuple[str, int | None, dict[str, tuple[int, ...]] | None, str, str]
#: The attributes of a graph, or why there is none.
Outcome: TypeAlias = dict[str, Any] | str


def convert_models(
    rows: Sequence[LatencyRow],
    folder: Path,
    vocabulary: str,
    counting: str,
    num_workers: int | None = None,
    progress: bool = True,
) -> tuple[dict[int, Data], dict[int, str]]:
    """Converts models to graphs, and goes on after a failure.

    Returns:
        tuple: The graphs, and the reasons of the failures, by row.
    """
    tasks: list[Task] = [
        (str(folder / row.file), row.batch_size, dict(row.input_shapes) or None, vocabulary,
         counting)
        for row in rows
    ]  # fmt: skip
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, len(tasks) // _MODELS_PER_WORKER)
    outcomes = _in_processes(tasks, num_workers) if num_workers > 0 else _here(tasks)
    graphs: dict[int, Data] = {}
    failures: dict[int, str] = {}
    with tqdm(total=len(tasks), desc="Converting", unit="model", disable=not progress) as bar:
        for i, outcome in outcomes:
            if isinstance(outcome, str):
                failures[i] = outcome
            else:
                graphs[i] = Data(**{
                    key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                    for key, value in outcome.items()
                })  # fmt: skip
            bar.update()
    return graphs, failures


def _here(tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
    for i, task in enumerate(tasks):
        yield i, _convert(task)


def _in_processes(tasks: Sequence[Task], num_workers: int) -> Iterator[tuple[int, Outcome]]:
    """Yields outcomes as they come; a model that kills its process is found and named."""
    waiting = list(reversed(range(len(tasks))))
    while waiting:
        running: dict[Future[Outcome], int] = {}
        suspects: list[int] = []
        with _pool(num_workers) as pool:
            try:
                while waiting or running:
                    # Few at a time, so that few are suspects when a process dies.
                    while waiting and len(running) < 2 * num_workers:
                        i = waiting.pop()
                        try:
                            running[pool.submit(_convert, tasks[i])] = i
                        except BrokenProcessPool:
                            waiting.append(i)
                            raise
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        yield running.pop(future), outcome
            except BrokenProcessPool:
                suspects = sorted(running.values())
        for i in suspects:
            with _pool(1) as single:
                try:
                    yield i, single.submit(_convert, tasks[i]).result()
                except BrokenProcessPool:
                    yield i, "the process that converted it died (out of memory, or a crash)"


def _pool(num_workers: int) -> ProcessPoolExecutor:
    """Returns running processes, or raises if they cannot even start."""
    # Spawned: a fork would copy PyTorch's threads in an undefined state.
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(os.getpid(),),
    )
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise RuntimeError(
            "Expected processes for the conversion to start (got an error, shown above); put the "
            "code of the script under \"if __name__ == '__main__':\", or pass 'num_workers=0'"
        ) from None
    return pool


def _start(parent: int) -> None:
    end_with_parent(parent)
    torch.set_num_threads(1)


def _convert(task: Task) -> Outcome:
    """Converts one model. Arrays travel between processes, for tensors would share memory."""
    path, batch_size, input_shapes, vocabulary, counting = task
    try:
        data = convert.from_onnx(  # loads onnx, which datasets of cells do without
            path,
            batch_size=batch_size,
            input_shapes=input_shapes,
            vocabulary=vocabulary,
            counting=counting,
        )
    except Exception as error:  # a damaged file can make the libraries raise anything
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return {
        key: value.numpy() if isinstance(value, torch.Tensor) else value
        for key, value in data.to_dict().items()
    }
