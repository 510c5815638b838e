"""A whole run: trains on a task, tests, and leaves a folder of results."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training.fit import FitResult, fit
from narformer_pyg.training.labels import label_scale
from narformer_pyg.training.metrics import all_metrics
from narformer_pyg.training.recipes import Recipe
from narformer_pyg.training.report import (
    environment,
    format_table,
    plot_history,
    plot_predictions,
    write_json,
    write_predictions,
)
from narformer_pyg.training.task import Task, task_settings

log = logging.getLogger(__name__)

CHECKPOINT = "training.ckpt"
METRICS = "metrics.json"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class RunResult:
    r"""The results of a run.

    Args:
        folder (pathlib.Path): The folder of the run: :obj:`settings.json`, :obj:`split.json`,
            :obj:`metrics.json`, :obj:`predictions.csv`, plots, and the predictor.
        metrics (dict): Metrics by what was tested, see :func:`~narformer_pyg.training.all_metrics`.
        num_parameters (int): The size of the predictor.
        train_seconds (float): Seconds of training.
    """

    folder: Path
    metrics: dict[str, dict[str, float]]
    num_parameters: int
    train_seconds: float

    def table(self) -> str:
        """Lays the metrics out as a table."""
        return format_table(
            self.metrics,
            training_seconds=f"{self.train_seconds:.1f}",
            parameters=f"{self.num_parameters:,}",
        )

    def predictor(self) -> ArchitecturePredictor:
        """Loads the predictor."""
        return ArchitecturePredictor.from_pretrained(self.folder)


def train(
    task: Task,
    recipe: Recipe,
    model: str = "narformer_v2",
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    seed: int = 0,
    precision: str = "32-true",
    **fit_arguments: Any,
) -> RunResult | None:
    r"""Trains on a task, tests, and writes a folder of results.

    Args:
        task (Task): The task, for instance of :func:`~narformer_pyg.training.nasbench201_task`.
        recipe (Recipe): The settings of the training.
        model (str, optional): A name that :func:`~narformer_pyg.nn.models.create_model` knows.
            (default: :obj:`"narformer_v2"`)
        out (str or os.PathLike): The folder. It must not hold a run, unless :obj:`resume` is set.
        resume (bool, optional): If set to :obj:`True`, goes on with the interrupted run in
            :obj:`out`, and only reads the results of a finished one. (default: :obj:`False`)
        seed (int, optional): Seed of the parameters and of the training. (default: :obj:`0`)
        precision (str, optional): As :func:`fit` takes it. (default: :obj:`"32-true"`)
        **fit_arguments (optional): Additional arguments of :func:`fit`.

    Returns:
        RunResult: The results; nothing in all but the first of several processes.

    Raises:
        ValueError: If the folder holds another run, or an argument is wrong.
    """
    if recipe.augmentation == "equivalent" and task.kind in ("latency", "time"):
        raise ValueError(
            f"Expected a recipe other than {recipe.name!r} for {task.target!r}: cells that compute "
            f"the same function do not have the same {task.kind}"
        )
    folder = Path(out)
    settings = {
        **task_settings(task),
        "recipe": recipe.to_dict(),
        "model": model,
        "seed": seed,
        "select": fit_arguments.get("select", "last"),
        "precision": precision,
    }
    is_first = all(int(os.environ.get(name) or 0) == 0 for name in ("RANK", "LOCAL_RANK"))
    if is_first:
        _prepare(folder, settings, resume)
        task.split.save(folder / "split.json")
    if resume and (folder / METRICS).is_file():
        return _read(folder)
    predictor = _create_predictor(task, recipe, model, seed)
    num_parameters = sum(p.numel() for p in predictor.parameters())
    log.info(
        "Training %s (%s parameters) on %s of %d graphs, recipe '%s'.",
        *(model, f"{num_parameters:,}", task.target, len(task.split.train), recipe.name),
    )
    checkpoint = folder / CHECKPOINT
    val = task.split.val
    result = fit(
        predictor,
        task.dataset[task.split.train],
        recipe,
        val_set=task.dataset[val] if val.numel() > 1 else None,
        seed=seed,
        precision=precision,
        checkpoint=checkpoint,
        resume=checkpoint if resume and checkpoint.is_file() else None,
        **fit_arguments,
    )
    if result.rank > 0:
        return None  # the first process goes on with the same parameters
    return _report(folder, task, recipe, settings, result, fit_arguments.get("device", "auto"))


def _create_predictor(task: Task, recipe: Recipe, model: str, seed: int) -> ArchitecturePredictor:
    torch.manual_seed(seed)
    encoder = task.create_token_encoder()
    return ArchitecturePredictor(
        encoder,
        create_model(
            model,
            encoder.out_channels,
            static_channels=encoder.static_channels,
            **recipe.model,
        ),
        [task.target],
        [task.unit],
        recipe.label_scale or label_scale(task.kind, task.train_labels),
        space=task.space,
        metadata={"dataset": task.name, "recipe": recipe.name, "seed": seed},
    )


def _report(
    folder: Path,
    task: Task,
    recipe: Recipe,
    settings: Mapping[str, Any],
    result: FitResult,
    device: str,
) -> RunResult:
    """Tests the predictor and writes everything, the metrics last."""
    predictor = result.predictor
    device = str(torch.device("cuda" if torch.cuda.is_available() else "cpu")
                 if device == "auto" else device)  # fmt: skip
    test = next(iter(task.tested.values()))
    prediction = torch.full_like(task.test_labels, float("nan"))
    prediction[test] = predictor.predict(task.dataset[test], device=device)[:, 0]
    metrics = {
        name: all_metrics(prediction[part], task.test_labels[part])
        for name, part in task.tested.items()
        if part.numel() > 1
    }
    name, first = next(iter(metrics.items()))
    predictor.metadata["metrics"] = {
        f"Kendall's tau, {name}, {task.test_target}": round(first["kendall_tau"], 4),
        f"MAPE (%), {name}, {task.test_target}": round(first["mape"], 2),
    }
    predictor.save_pretrained(folder)
    in_training = torch.zeros(len(task.test_labels), dtype=torch.bool)
    in_training[task.split.train] = True
    write_predictions(
        folder / "predictions.csv",
        [task.describe(i) for i in test.tolist()],
        prediction[test],
        task.test_labels[test],
        in_training[test],
    )
    plot_predictions(
        folder / "predictions.png",
        prediction[test],
        task.test_labels[test],
        label=task.test_target,
        predicted_label=task.target,
        unit=task.unit,
        title=f"{settings['model']}, {len(task.split.train)} training graphs, "
        f"tau {first['kendall_tau']:.3f}",
        log=task.log_scale,
    )
    plot_history(folder / "history.png", result.history)
    num_parameters = sum(p.numel() for p in predictor.parameters())
    content = {
        "metrics": metrics,
        "num_parameters": num_parameters,
        "train_target": task.target,
        "test_target": task.test_target,
        "model": settings["model"],
        "seed": settings["seed"],
        "precision": settings["precision"],
        "train_size": len(task.split.train),
        "val_size": len(task.split.val),
        "selected": f"{settings['select']} epoch ({result.selected_epoch + 1})",
        "train_seconds": result.seconds,
        "recipe": recipe.to_dict(),
        "environment": environment(),
        "history": result.history,
    }
    write_json(folder / METRICS, content)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return RunResult(folder, metrics, num_parameters, result.seconds)


def _prepare(folder: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Makes the folder, or checks that it holds the run to go on with."""
    file = folder / SETTINGS
    holds_run = any((folder / name).exists() for name in (CHECKPOINT, METRICS))
    if not resume and holds_run:
        raise ValueError(
            f"Expected '--out' to be a new folder (got {folder}, which holds an earlier run); pass "
            "'--resume' to go on with it, or another folder"
        )
    if not resume or not file.exists():
        try:
            write_json(file, settings)
        except OSError as error:
            raise ValueError(
                f"Expected '--out' to be a folder that can be written (got {folder}: "
                f"{error.strerror})"
            ) from error
        return
    try:
        earlier = json.loads(file.read_text("utf-8"))
        changed = [
            name for name in settings.keys() | earlier.keys()
            if earlier.get(name) != json.loads(json.dumps(settings.get(name)))
        ]  # fmt: skip
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Expected '--out' to hold the '{SETTINGS}' of an interrupted run (got {folder}: "
            f"{type(error).__name__}); start without '--resume'"
        ) from error
    if changed:
        raise ValueError(
            f"Expected '--resume' to have the settings of the run in {folder} (got another "
            f"{', '.join(sorted(changed))}); pass another folder"
        )


def _read(folder: Path) -> RunResult:
    try:
        content = json.loads((folder / METRICS).read_text("utf-8"))
        numbers = content["num_parameters"], content["train_seconds"]
        nan = float("nan")  # was written as null
        metrics = {
            part: {k: nan if v is None else v for k, v in values.items()}
            for part, values in content["metrics"].items()
        }
        return RunResult(folder, metrics, *numbers)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"Expected '{METRICS}' in {folder} to hold the results of a run (got "
            f"{type(error).__name__}: {error}); remove the folder"
        ) from error


def free_folder(name: str, base: str | os.PathLike[str] = "runs") -> Path:
    """Returns a folder that does not exist yet, ``base/name`` or with a number behind it."""
    first = Path(base) / name
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}_{number}")
    return folder


def interrupted_folder(name: str, base: str | os.PathLike[str] = "runs") -> Path:
    """Returns the last folder of such a name that holds an interrupted run.

    Raises:
        ValueError: If there is none.
    """
    first = Path(base) / name
    folder, number, found = first, 1, []
    while folder.exists():
        if not (folder / METRICS).exists():
            found.append(folder)
        number += 1
        folder = first.with_name(f"{first.name}_{number}")
    if not found:
        raise ValueError(
            f"Expected '--out' to name the folder of an interrupted run (got none, and {first} "
            "holds no such run); start without '--resume'"
        )
    return found[-1]
