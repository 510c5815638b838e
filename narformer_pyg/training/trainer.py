"""Trains a predictor on the labels of a dataset."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg.errors import CheckpointError
from narformer_pyg.loader import DeviceLoader, PairedBatchSampler
from narformer_pyg.nn.models import ArchitecturePredictor
from narformer_pyg.training.callbacks import EpochProgressBar, ResumableCheckpoint
from narformer_pyg.training.module import PredictorModule
from narformer_pyg.training.recipes import Recipe
from narformer_pyg.transforms import augment

Graphs: TypeAlias = InMemoryDataset | Sequence[Data]


@dataclass(frozen=True)
class FitResult:
    r"""What a training did.

    Args:
        history (list): One entry per epoch: :obj:`epoch`, :obj:`loss` and, where validated,
            :obj:`val_kendall_tau` and :obj:`val_mape`.
        seconds (float): Seconds of training, validation and checkpoints included.
        epochs (int): Epochs trained.
        selected_epoch (int): The epoch whose parameters the predictor now has.
    """

    history: list[dict[str, float]]
    seconds: float
    epochs: int
    selected_epoch: int


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
    precision: str = "32-true",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every_seconds: float = 30.0,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    **trainer_kwargs: Any,
) -> FitResult:
    r"""Trains a predictor in place.

    Args:
        predictor (ArchitecturePredictor): What is trained. Its initial parameters are the
            caller's: seed before it is built.
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
        precision (str, optional): A precision of Lightning, for instance :obj:`"bf16-mixed"`.
            (default: :obj:`"32-true"`)
        checkpoint (str or os.PathLike, optional): A file that always holds a complete state to
            resume from. (default: :obj:`None`)
        checkpoint_every_seconds (float, optional): Seconds between two such states.
            (default: :obj:`30.0`)
        resume (str or os.PathLike, optional): Such a file to go on from. The result is that of an
            undisturbed run. (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        callbacks (sequence of Callback, optional): Additional callbacks of Lightning.
            (default: :obj:`()`)
        **trainer_kwargs (optional): Additional arguments of
            :class:`lightning.pytorch.Trainer`.

    Raises:
        ValueError: If labels are missing, not finite or not positive, or an argument is wrong.
        CheckpointError: If :obj:`resume` is damaged or of another recipe.
        FloatingPointError: If the loss is no longer a number.
    """
    if select not in ("last", "best"):
        raise ValueError(f"Expected 'select' to be 'last' or 'best' (got {select!r})")
    if select == "best" and val_set is None:
        raise ValueError(
            "Expected 'val_set' to be given with select='best': epochs are chosen on validation "
            "labels (got None)"
        )
    check_labels("train_set", train_set, predictor.model.out_channels)
    if val_set is not None:
        check_labels("val_set", val_set, predictor.model.out_channels)

    target_device = resolve_device(device)
    torch.manual_seed(seed)
    module = PredictorModule(
        predictor,
        recipe,
        _training_loader(train_set, recipe, seed, target_device),
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
    state_file = None if resume is None else _check_resume(resume, recipe)

    with _quiet_lightning():
        trainer = Trainer(
            accelerator="gpu" if target_device.type == "cuda" else "cpu",
            devices=1 if target_device.index is None else [target_device.index],
            precision=precision,
            max_epochs=recipe.epochs,
            check_val_every_n_epoch=validate_every,
            gradient_clip_val=recipe.gradient_clip or None,
            callbacks=all_callbacks,
            logger=trainer_kwargs.pop("logger", False),
            enable_checkpointing=checkpoint is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **trainer_kwargs,
        )
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
    selected = len(module.history) - 1
    if module.best_state is not None:
        predictor.load_state_dict(module.best_state)
        taus = [entry.get("val_kendall_tau", -float("inf")) for entry in module.history]
        selected = taus.index(module.best_tau)
    predictor.to("cpu").eval()
    return FitResult(module.history, module.seconds, len(module.history), selected)


def resolve_device(device: str) -> torch.device:
    """Returns the device called ``device``; ``"auto"`` is the first GPU, or the CPU without one.

    Raises:
        ValueError: If there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = torch.device("meta")
    if parsed.type not in ("cpu", "cuda"):
        raise ValueError(
            f"Expected 'device' to be 'auto', 'cpu', 'cuda' or 'cuda:N' (got {device!r})"
        )
    if parsed.type == "cpu":
        return parsed
    index = parsed.index or 0
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"Expected 'device' to be available (got {device!r}, but PyTorch {torch.__version__} "
            f"sees {torch.cuda.device_count()} CUDA devices); use 'cpu'"
        )
    return torch.device("cuda", index)


def check_labels(argument: str, graphs: Graphs, num_targets: int) -> None:
    """Raises a :class:`ValueError` unless every graph has ``num_targets`` positive labels."""
    if len(graphs) == 0:
        raise ValueError(f"Expected '{argument}' to hold at least one graph (got none)")
    missing = [i for i, data in enumerate(graphs) if "y" not in data]
    if missing:
        raise ValueError(
            f"Expected every graph of '{argument}' to have labels 'y' (got none in graph "
            f"{missing[0]}, and {len(missing)} such graphs in total)"
        )
    labels = torch.cat([data.y for data in graphs])
    if labels.shape != (len(graphs), num_targets):
        raise ValueError(
            f"Expected the labels 'y' of '{argument}' to have shape [1, {num_targets}] in every "
            f"graph, one label for each output of the model (got {list(labels.shape)} in total)"
        )
    wrong = ~(labels.isfinite() & (labels > 0)).all(dim=1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"Expected the labels 'y' of '{argument}' to be finite and positive, since errors are "
            f"relative (got {labels[first].tolist()} in graph {first}, and {int(wrong.sum())} such "
            "graphs in total); leave out graphs without a label"
        )


def _training_loader(
    graphs: Graphs, recipe: Recipe, seed: int, device: torch.device
) -> DeviceLoader:
    if recipe.augmentation is None:
        return DeviceLoader(graphs, recipe.batch_size, shuffle=True, device=device, seed=seed)
    originals = [graphs[i] for i in range(len(graphs))]
    num_copies = recipe.num_copies if recipe.augmentation == "random" else 1
    copies = augment(originals, num_copies, mode=recipe.augmentation, seed=seed)
    sampler = PairedBatchSampler(len(originals), recipe.batch_size, num_copies, seed=seed)
    return DeviceLoader(originals + copies, batch_sampler=sampler, device=device)


def _check_resume(resume: str | os.PathLike[str], recipe: Recipe) -> str:
    path = Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected 'resume' to be a checkpoint of an earlier training (got {os.fspath(path)!r})"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise whatever the unpickler stumbles over
        raise CheckpointError(
            f"Cannot read 'resume' (got {os.fspath(path)!r}): it is damaged or not a checkpoint "
            f"({type(error).__name__}); start without 'resume'"
        ) from error
    state = content.get("narformer_pyg") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "recipe" not in state:
        raise CheckpointError(
            f"Expected 'resume' to be a checkpoint of an earlier training (got "
            f"{os.fspath(path)!r}, which is something else); start without 'resume'"
        )
    theirs, ours = state["recipe"], recipe.to_dict()
    changed = [f"{key}: {theirs.get(key)} there, {ours[key]} here" for key in ours
               if theirs.get(key) != ours[key]]  # fmt: skip
    if changed:
        raise CheckpointError(
            f"Expected 'resume' to be of the same recipe (got {os.fspath(path)!r}, which differs "
            f"in {'; '.join(changed)})"
        )
    return os.fspath(path)


class _quiet_lightning(warnings.catch_warnings):
    """Silences advice of Lightning that does not apply: data on the device needs no workers."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*but have no `val_dataloader`.*")
        warnings.filterwarnings("ignore", ".*number of training batches.*logging interval.*")
        warnings.filterwarnings("ignore", ".*treespec.*", FutureWarning)
        self._logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        self._level = self._logger.level
        self._logger.setLevel(logging.WARNING)

    def __exit__(self, *exc_info: object) -> None:
        self._logger.setLevel(self._level)
        super().__exit__(*exc_info)  # type: ignore[arg-type]
