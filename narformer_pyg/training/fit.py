"""Trains a predictor on labelled graphs."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch_geometric.data import InMemoryDataset

from narformer_pyg._checks import check_seed, resolve_device
from narformer_pyg._files import check_folder
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.predictor import ArchitecturePredictor, AveragedPredictor
from narformer_pyg.training.batches import training_loader
from narformer_pyg.training.callbacks import EpochProgressBar, ResumableCheckpoint
from narformer_pyg.training.captured import CapturedModule, choose_engine
from narformer_pyg.training.labels import Graphs, check_labels
from narformer_pyg.training.module import PredictorModule
from narformer_pyg.training.processes import process_arguments, quiet_lightning
from narformer_pyg.training.recipes import Recipe
from narformer_pyg.training.resume import check_resume, training_identity

_LOG = logging.getLogger(__name__)

# Arguments of Lightning's trainer that the recipe and the arguments of 'fit' decide.
_OWN_ARGUMENTS = frozenset(
    {"accelerator", "enable_checkpointing", "enable_progress_bar", "gradient_clip_val",
     "max_epochs", "strategy"}
)  # fmt: skip


@dataclass(frozen=True)
class FitResult:
    r"""The outcome of a training.

    Args:
        predictor (ArchitecturePredictor): The trained predictor, in evaluation mode.
        history (list): One entry per epoch: :obj:`epoch`, :obj:`loss` and, where validated,
            :obj:`val_kendall_tau` and :obj:`val_mape`.
        seconds (float): Seconds of training, validation and checkpoints included.
        epochs (int): Epochs trained.
        selected_epoch (int): The epoch whose parameters the predictor has.
        rank (int): The number of this process among those that trained; the first one, :obj:`0`,
            writes results.
    """

    predictor: ArchitecturePredictor
    history: list[dict[str, float]]
    seconds: float
    epochs: int
    selected_epoch: int
    rank: int = 0


def fit(
    predictor: ArchitecturePredictor,
    train_set: Graphs,
    recipe: Recipe,
    *,
    val_set: Graphs | None = None,
    select: str = "last",
    seed: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    engine: str = "auto",
    checkpoint: str | os.PathLike[str] | ResumableCheckpoint | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **trainer_kwargs: Any,
) -> FitResult:
    r"""Trains a predictor.

    The predictor of the result is what validation sees and what is to be saved. It is
    :obj:`predictor`, trained in place; with :obj:`recipe.augmentation="equivalent"` it is an
    :class:`~narformer_pyg.predictor.AveragedPredictor` with the same encoder and model.

    Args:
        predictor (ArchitecturePredictor): The predictor. Its initial parameters are the caller's:
            seed before it is built.
        train_set (InMemoryDataset or list of Data): Labelled graphs; labels that were not measured
            are NaN.
        recipe (Recipe): The settings.
        val_set (InMemoryDataset or list of Data, optional): Labelled graphs outside the training
            set, for the curve and for :obj:`select="best"`. (default: :obj:`None`)
        select (str, optional): :obj:`"last"` keeps the parameters of the last epoch,
            :obj:`"best"` those with the best Kendall's tau on :obj:`val_set`. Test labels are
            never looked at. (default: :obj:`"last"`)
        seed (int, optional): Seed of the order of the batches, of the augmentation and of dropout.
            (default: :obj:`0`)
        device (str, optional): :obj:`"auto"`, :obj:`"cpu"`, :obj:`"cuda"` or :obj:`"cuda:1"`.
            (default: :obj:`"auto"`)
        precision (str, optional): A precision of Lightning, for instance :obj:`"bf16-mixed"`.
            (default: :obj:`"32-true"`)
        engine (str, optional): :obj:`"eager"` trains operation by operation; :obj:`"captured"`
            lets a GPU do each step as one CUDA graph, and :obj:`"compiled"` compiles the model
            before. :obj:`"auto"` chooses. (default: :obj:`"auto"`)
        checkpoint (str, os.PathLike or ResumableCheckpoint, optional): A file that always holds a
            complete state to resume from, at most 30 seconds old. (default: :obj:`None`)
        resume (str or os.PathLike, optional): Such a file to go on from. The result is that of an
            undisturbed run, where one process trains. (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        **trainer_kwargs (optional): Additional arguments of :class:`lightning.pytorch.Trainer`, for
            instance :obj:`callbacks`, :obj:`check_val_every_n_epoch` (default: :obj:`10`), and
            :obj:`devices` and :obj:`num_nodes` for several processes: each takes batches of
            :obj:`recipe.batch_size` graphs, gradients are averaged, and losses that compare graphs
            do so within the batch of a process. Lightning or :obj:`torchrun` starts the script once
            for each; all end with the same parameters.

    Raises:
        ValueError: If labels are missing or not positive, or an argument is wrong.
        CheckpointError: If :obj:`resume` is damaged or of another training.
        FloatingPointError: If the loss is no longer a number, or no epoch can be selected.
        OSError: If :obj:`checkpoint` cannot be written.
    """
    check_seed(seed)
    _check_selection(select, val_set)
    owned = _OWN_ARGUMENTS.intersection(trainer_kwargs)
    if owned:
        raise TypeError(
            f"Expected no arguments of Lightning's trainer that 'fit' sets itself (got "
            f"{', '.join(sorted(owned))}); use the recipe and the arguments of 'fit'"
        )
    if recipe.augmentation == "equivalent" and not isinstance(predictor, AveragedPredictor):
        predictor = AveragedPredictor(predictor)
    labels = _check_graphs(predictor, "train_set", train_set)
    if val_set is not None:
        val_labels = _check_graphs(predictor, "val_set", val_set)
        if (val_labels.nan_to_num(-1).unique(dim=0).size(0)) < 2:
            raise ValueError(
                "Expected 'val_set' to have at least two different labels, since their order is "
                f"what is validated (got {len(val_labels)} equal ones)"
            )
    target_device = resolve_device(device)
    if precision == "16-mixed" and target_device.type == "cpu":
        raise ValueError(
            "Expected 'precision' to be '32-true' or 'bf16-mixed' on the CPU (got '16-mixed')"
        )
    devices, num_nodes = (trainer_kwargs.pop(name, 1) for name in ("devices", "num_nodes"))
    processes = process_arguments(target_device, devices, num_nodes)
    num_processes = devices * num_nodes
    given = list(trainer_kwargs.pop("callbacks", ()))
    callbacks = list(given)
    if progress:
        callbacks.append(EpochProgressBar())
    if checkpoint is not None:
        if not isinstance(checkpoint, ResumableCheckpoint):
            checkpoint = ResumableCheckpoint(checkpoint)
        check_folder(checkpoint.path)
        callbacks.append(checkpoint)

    torch.manual_seed(seed)
    loader = training_loader(train_set, recipe, seed, target_device)
    num_epochs = recipe.num_epochs(-(-len(loader) // num_processes))
    engine = choose_engine(
        engine, predictor, loader, num_epochs * len(loader),
        precision=precision, num_processes=num_processes, callbacks=given,
        trainer_kwargs=trainer_kwargs,
    )  # fmt: skip
    name = torch.cuda.get_device_name(target_device) if target_device.type == "cuda" else "the CPU"
    _LOG.info("Training on %s, engine '%s'.", name, engine)
    identity = training_identity(
        predictor, labels, recipe,
        seed=seed, precision=precision, num_processes=num_processes, engine=engine,
    )  # fmt: skip
    state_file = None if resume is None else check_resume(resume, identity)
    module_arguments = (predictor, recipe, loader, train_set, identity, select == "best")
    if engine == "eager":
        module = PredictorModule(*module_arguments)
    else:
        compiled = engine == "compiled"
        module = CapturedModule(*module_arguments, num_epochs=num_epochs, compiled=compiled)
    val_loader = None
    if val_set is not None:  # seeded, since a loader without a seed draws one
        val_loader = DeviceLoader(val_set, 512, device=target_device, seed=seed)
    validate_every = trainer_kwargs.pop("check_val_every_n_epoch", 10)
    with quiet_lightning():
        trainer = Trainer(
            **processes,
            precision=precision,
            max_epochs=num_epochs,
            check_val_every_n_epoch=min(validate_every, num_epochs),
            # Captured steps clip by themselves.
            gradient_clip_val=(recipe.gradient_clip or None) if engine == "eager" else None,
            callbacks=callbacks,
            enable_checkpointing=checkpoint is not None,
            enable_progress_bar=progress,
            **{**_LIGHTNING_DEFAULTS, **trainer_kwargs},
        )
        _run(trainer, module, val_loader, state_file)
    selected = _select(module, select)
    predictor.eval()
    if recipe.calibrate:
        predictor.calibrate(train_set, device=target_device)
    epochs = len(module.history)
    return FitResult(
        predictor, module.history, module.seconds, epochs, selected, trainer.global_rank
    )


_LIGHTNING_DEFAULTS = {
    "logger": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def _check_selection(select: str, val_set: Graphs | None) -> None:
    if select not in ("last", "best"):
        raise ValueError(f"Expected 'select' to be 'last' or 'best' (got {select!r})")
    if select == "best" and val_set is None:
        raise ValueError(
            "Expected 'val_set' to be given with select='best': epochs are chosen on validation "
            "labels (got None)"
        )


def _check_graphs(predictor: ArchitecturePredictor, name: str, graphs: Graphs) -> torch.Tensor:
    """Returns the labels of graphs that the predictor can be trained or validated on."""
    for item in [graphs] if isinstance(graphs, InMemoryDataset) else graphs:
        predictor.check_conventions(item, f" of '{name}'")
    return check_labels(name, graphs, predictor.model.out_channels)


def _run(
    trainer: Trainer,
    module: PredictorModule,
    val_loader: DeviceLoader | None,
    state_file: str | None,
) -> None:
    """Trains, and gives the predictor back on the CPU and in the precision that it came in."""
    predictor = module.predictor
    dtype, was_training = predictor.scale.dtype, predictor.training
    predictor.train()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, val_dataloaders=val_loader, ckpt_path=state_file, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(_out_of_memory(module)) from error
    except SystemExit as error:
        # Lightning turns Ctrl+C into an exit and ignores further ones: give both back.
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
    finally:
        predictor.zero_grad()
        predictor.to("cpu", dtype).train(was_training)


def _out_of_memory(module: PredictorModule) -> str:
    shape = getattr(module, "shape", None)
    padded = "" if shape is None else f", padded to {shape.nodes} nodes and {shape.edges} edges"
    return (
        f"The GPU has too little memory for batches of {module.recipe.batch_size} graphs{padded}; "
        "lower 'batch_size' or 'hidden_channels', use precision 'bf16-mixed', or resume on another "
        "GPU from the checkpoint"
    )


def _select(module: PredictorModule, select: str) -> int:
    """Loads the parameters of the best epoch, if one was to be selected, and returns the epoch."""
    if module.best_state is not None:
        module.predictor.load_state_dict(module.best_state)
        taus = [entry.get("val_kendall_tau", -float("inf")) for entry in module.history]
        return taus.index(module.best_tau)
    if select == "best":
        raise FloatingPointError(
            "No epoch could be selected, since the predictions of 'val_set' were all equal in "
            "every one; train longer or use select='last'"
        )
    return len(module.history) - 1
