"""Trains a predictor on the labels of a dataset."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg._checks import check_integer, check_seed, resolve_device
from narformer_pyg._files import check_folder
from narformer_pyg.errors import CheckpointError
from narformer_pyg.loader import DeviceLoader, PairedBatchSampler, VariantBatchSampler
from narformer_pyg.nn.models.checkpoint_file import read_checkpoint
from narformer_pyg.predictor import ArchitecturePredictor, AveragedPredictor
from narformer_pyg.training.callbacks import EpochProgressBar, ResumableCheckpoint
from narformer_pyg.training.memory import keep_freed_memory
from narformer_pyg.training.module import PredictorModule
from narformer_pyg.training.processes import process_arguments, quiet_lightning
from narformer_pyg.training.recipes import Recipe
from narformer_pyg.transforms import augment, equivalent_graphs

# Of Lightning's trainer; the others can be passed on.
_OWN_ARGUMENTS = frozenset(
    {
        "accelerator",
        "check_val_every_n_epoch",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "gradient_clip_val",
        "max_epochs",
        "num_sanity_val_steps",
        "strategy",
    }
)

Graphs: TypeAlias = InMemoryDataset | Sequence[Data]

# Arguments of models that came later, as they were before.
_LATER_ARGUMENTS = {"attention": "linear", "layer_scale": 1e-4, "norm": "unit"}


@dataclass(frozen=True)
class FitResult:
    r"""What a training did.

    Args:
        history (list): One entry per epoch: :obj:`epoch`, :obj:`loss` and, where validated,
            :obj:`val_kendall_tau` and :obj:`val_mape`.
        seconds (float): Seconds of training, validation and checkpoints included.
        epochs (int): Epochs trained.
        selected_epoch (int): The epoch whose parameters the predictor now has.
        rank (int): The number of this process among those that trained; the first one, :obj:`0`,
            writes results.
    """

    history: list[dict[str, float]]
    seconds: float
    epochs: int
    selected_epoch: int
    rank: int = 0


def label_scale(kind: str, labels: Tensor) -> float:
    """Returns what to divide labels by in training: 100 for percentages, else their mean.

    Accuracies become fractions, as in the paper, whose loss weights belong to that scale.

    Args:
        kind (str): :obj:`"accuracy"` or another kind of label.
        labels (torch.Tensor): The training labels.
    """
    return 100.0 if kind == "accuracy" else float(labels.mean())


def fit(
    predictor: ArchitecturePredictor,
    train_set: Graphs,
    recipe: Recipe,
    *,
    val_set: Graphs | None = None,
    select: str = "last",
    validate_every: int = 10,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "32-true",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every_seconds: float = 30.0,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    **trainer_kwargs: Any,
) -> FitResult:
    r"""Trains a predictor in place.

    On the CPU, under glibc, the process keeps the memory that a step has freed, see
    :func:`~narformer_pyg.training.memory.keep_freed_memory`.

    Args:
        predictor (ArchitecturePredictor): What is trained. Its initial parameters are the
            caller's: seed before it is built. With :obj:`recipe.augmentation="equivalent"` it
            averages over equivalent cells from then on.
        train_set (InMemoryDataset or list of Data): Labelled graphs.
        recipe (Recipe): How to train.
        val_set (InMemoryDataset or list of Data, optional): Labelled graphs outside the training
            set, for the curve and for :obj:`select="best"`. (default: :obj:`None`)
        select (str, optional): :obj:`"last"` keeps the parameters of the last epoch,
            :obj:`"best"` those with the best Kendall's tau on :obj:`val_set`. Test labels are
            never looked at. (default: :obj:`"last"`)
        validate_every (int, optional): Epochs between two validations. (default: :obj:`10`)
        seed (int, optional): Seed of the order of the batches, of the augmentation and of dropout.
            (default: :obj:`0`)
        device (str, optional): :obj:`"auto"`, :obj:`"cpu"`, :obj:`"cuda"` or :obj:`"cuda:1"`.
            (default: :obj:`"auto"`)
        devices (int, optional): GPUs of this machine to train on, or processes on the CPU. Each
            takes batches of :obj:`recipe.batch_size` graphs, and their gradients are averaged: one
            step is that of a batch as large as all of them (losses that compare graphs do so
            within the part of a process). The script is started once for each, by Lightning or by
            :obj:`torchrun`; all end with the same parameters. (default: :obj:`1`)
        num_nodes (int, optional): Machines with as many devices each. (default: :obj:`1`)
        precision (str, optional): A precision of Lightning, for instance :obj:`"bf16-mixed"`.
            (default: :obj:`"32-true"`)
        checkpoint (str or os.PathLike, optional): A file that always holds a complete state to
            resume from. (default: :obj:`None`)
        checkpoint_every_seconds (float, optional): Seconds between two such states.
            (default: :obj:`30.0`)
        resume (str or os.PathLike, optional): Such a file to go on from. The result is that of an
            undisturbed run, where one process trains. (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        callbacks (sequence of Callback, optional): Additional callbacks of Lightning.
            (default: :obj:`()`)
        **trainer_kwargs (optional): Additional arguments of
            :class:`lightning.pytorch.Trainer`.

    Raises:
        ValueError: If labels are missing, not finite or not positive, or an argument is wrong.
        CheckpointError: If :obj:`resume` is damaged or of another training.
        FloatingPointError: If the loss is no longer a number, or no epoch can be selected.
        OSError: If :obj:`checkpoint` cannot be written.
    """
    if select not in ("last", "best"):
        raise ValueError(f"Expected 'select' to be 'last' or 'best' (got {select!r})")
    if select == "best" and val_set is None:
        raise ValueError(
            "Expected 'val_set' to be given with select='best': epochs are chosen on validation "
            "labels (got None)"
        )
    check_integer("validate_every", validate_every)
    check_seed(seed)
    for name, graphs in (("train_set", train_set), ("val_set", val_set)):
        for item in [graphs] if isinstance(graphs, InMemoryDataset) else graphs or ():
            predictor.check_conventions(item, f" of '{name}'")
    labels = check_labels("train_set", train_set, predictor.model.out_channels)
    if val_set is not None:
        val_labels = check_labels("val_set", val_set, predictor.model.out_channels)
        if (val_labels == val_labels[0]).all(dim=0).any():
            raise ValueError(
                "Expected 'val_set' to have at least two different labels of each target, since "
                f"their order is what is validated (got {len(val_labels)} equal ones)"
            )
    owned = _OWN_ARGUMENTS.intersection(trainer_kwargs)
    if owned:
        raise TypeError(
            f"Expected no arguments of Lightning's trainer that 'fit' sets itself (got "
            f"{', '.join(sorted(owned))}); the recipe and the arguments of 'fit' say them"
        )
    target_device = resolve_device(device)
    processes = process_arguments(target_device, devices, num_nodes)
    num_processes = devices * num_nodes
    if precision == "16-mixed" and target_device.type == "cpu":
        raise ValueError(
            "Expected 'precision' to be '32-true' or 'bf16-mixed' on the CPU (got '16-mixed')"
        )
    if checkpoint is not None:
        check_folder(checkpoint)
    if recipe.augmentation == "equivalent":
        predictor = AveragedPredictor(predictor)
    if target_device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(seed)
    identity = _identity(predictor, labels, recipe, seed, precision)
    if num_processes > 1:
        identity["num_processes"] = num_processes
    module = PredictorModule(
        predictor,
        recipe,
        _training_loader(train_set, recipe, seed, target_device),
        identity,
        select_best=select == "best",
    )
    # Seeded, since a loader without a seed draws one and would shift the dropout of the training.
    val_loader = (
        None if val_set is None else DeviceLoader(val_set, 512, device=target_device, seed=seed)
    )
    all_callbacks = list(callbacks)
    if progress:
        all_callbacks.append(EpochProgressBar())
    if checkpoint is not None:
        all_callbacks.append(ResumableCheckpoint(checkpoint, checkpoint_every_seconds))
    state_file = None if resume is None else _check_resume(resume, identity)

    num_epochs = recipe.num_epochs(-(-len(module.loader) // num_processes))
    with quiet_lightning():
        trainer = Trainer(
            **processes,
            precision=precision,
            max_epochs=num_epochs,
            check_val_every_n_epoch=min(validate_every, num_epochs),
            gradient_clip_val=recipe.gradient_clip or None,
            callbacks=all_callbacks,
            logger=trainer_kwargs.pop("logger", False),
            enable_checkpointing=checkpoint is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **trainer_kwargs,
        )
        # A precision such as '64-true' converts the parameters; they come back as they were.
        dtype, was_training = predictor.scale.dtype, predictor.training
        predictor.train()
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, module.loader, val_loader, ckpt_path=state_file, weights_only=True)
        except SystemExit as error:
            # Lightning turns Ctrl+C into an exit and ignores further ones: give both back.
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from error
        finally:
            predictor.to("cpu", dtype).train(was_training)
    selected = len(module.history) - 1
    if module.best_state is not None:
        predictor.load_state_dict(module.best_state)
        taus = [entry.get("val_kendall_tau", -float("inf")) for entry in module.history]
        selected = taus.index(module.best_tau)
    elif select == "best":
        raise FloatingPointError(
            "No epoch could be selected, since the predictions of 'val_set' were all equal in "
            "every one; train longer or use select='last'"
        )
    predictor.eval()
    if recipe.calibrate:
        predictor.calibrate(train_set, device=target_device)
    return FitResult(
        module.history, module.seconds, len(module.history), selected, trainer.global_rank
    )


def check_labels(argument: str, graphs: Graphs, num_targets: int) -> Tensor:
    """Returns the labels of all graphs, or raises unless each has ``num_targets`` positive ones."""
    if len(graphs) == 0:
        raise ValueError(f"Expected '{argument}' to hold at least one graph (got none)")
    rows = []
    for i, data in enumerate(graphs):
        y = data.y if "y" in data else None
        if not isinstance(y, Tensor) or y.shape != (1, num_targets):
            got = f"shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"Expected every graph of '{argument}' to have labels 'y' of shape "
                f"[1, {num_targets}], one for each output of the model (got "
                f"{'no labels' if y is None else got} in graph {i})"
            )
        rows.append(y)
    labels = torch.cat(rows)
    wrong = ~(labels.isfinite() & (labels > 0)).all(dim=1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"Expected the labels 'y' of '{argument}' to be finite and positive, since errors are "
            f"relative (got {labels[first].tolist()} in graph {first}, and {int(wrong.sum())} such "
            "graphs in total); leave out graphs without a label"
        )
    return labels


def _training_loader(
    graphs: Graphs, recipe: Recipe, seed: int, device: torch.device
) -> DeviceLoader:
    shared: dict[str, Any] = {"device": device}
    if recipe.augmentation is None:
        return DeviceLoader(graphs, recipe.batch_size, shuffle=True, seed=seed, **shared)
    originals = [graphs[i] for i in range(len(graphs))]
    if recipe.augmentation == "equivalent":
        variants = equivalent_graphs(originals)
        sizes = [len(graphs) for graphs in variants]
        drawing = VariantBatchSampler(sizes, recipe.batch_size, seed=seed)
        return DeviceLoader(list(chain(*variants)), batch_sampler=drawing, **shared)
    num_copies = recipe.num_copies if recipe.augmentation == "random" else 1
    copies = augment(originals, num_copies, mode=recipe.augmentation, seed=seed)
    sampler = PairedBatchSampler(len(originals), recipe.batch_size, num_copies, seed=seed)
    return DeviceLoader(originals + copies, batch_sampler=sampler, **shared)


def _check_resume(resume: str | os.PathLike[str], identity: dict[str, Any]) -> str:
    path = Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected 'resume' to be a checkpoint of an earlier training (got {os.fspath(path)!r})"
        )
    content = read_checkpoint(path, "resume")
    state = content.get("narformer_pyg") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state.keys() >= PredictorModule.STATE:
        raise CheckpointError(
            f"Expected 'resume' to be a checkpoint of an earlier training (got "
            f"{os.fspath(path)!r}, which is something else); start without 'resume'"
        )
    # Settings that came later were as their defaults say.
    theirs = {**_later_settings(), **state["identity"]}
    mine = identity["model_arguments"]
    later = {name: value for name, value in _LATER_ARGUMENTS.items() if name in mine}
    theirs["model_arguments"] = {**later, **theirs.get("model_arguments", {})}
    changed = [
        f"{key}: {theirs.get(key)} there, {identity[key]} here"
        for key in identity
        if theirs.get(key) != identity[key]
    ]
    if changed:
        raise CheckpointError(
            f"Expected 'resume' to be of the same training (got {os.fspath(path)!r}, which differs "
            f"in {'; '.join(changed)})"
        )
    return os.fspath(path)


def _later_settings() -> dict[str, Any]:
    defaults = Recipe("", epochs=1, batch_size=1, learning_rate=1.0).to_dict()
    return {
        name: defaults[name]
        for name in ("log_weight", "label_scale", "token_encoder", "min_steps", "calibrate")
    }


def _identity(
    predictor: ArchitecturePredictor, labels: Tensor, recipe: Recipe, seed: int, precision: str
) -> dict[str, Any]:
    """Returns what has to be the same for a resumed run to equal an undisturbed one."""
    return {
        **recipe.to_dict(),
        "model_arguments": predictor.model.config,
        "seed": seed,
        "precision": precision,
        "num_graphs": len(labels),
        "labels_sha256": hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:16],
    }
