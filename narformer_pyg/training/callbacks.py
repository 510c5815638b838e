"""Lightning callbacks: a progress bar over epochs, and a checkpoint to resume from."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from tqdm.auto import tqdm

from narformer_pyg._files import atomic_write


class EpochProgressBar(ProgressBar):
    """One bar over all epochs, since an epoch of a small training set takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._clock = 0.0
        self._enabled = True

    def disable(self) -> None:
        """Shows nothing, which Lightning asks of all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar, at the epoch that a resumed run starts with."""
        self._bar = tqdm(
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            desc="Training",
            unit="epoch",
            dynamic_ncols=True,
            disable=not self._enabled,
        )
        self._clock = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Advances the bar and shows the last loss that is known."""
        # Callbacks come before the module's own hook, which adds this epoch to the history.
        history = pl_module.history
        if history:
            shown = {key: f"{v:.4g}" for key, v in history[-1].items() if key != "epoch"}
            seconds = time.perf_counter() - self._clock
            shown["it/s"] = f"{len(pl_module.loader) / seconds:.1f}"
            self._bar.set_postfix(shown, refresh=False)
        self._clock = time.perf_counter()
        self._bar.update()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        self._bar.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar, so that the error starts on a line of its own."""
        if self._bar is not None:
            self._bar.close()


class ResumableCheckpoint(Checkpoint):
    r"""Writes the state of training to one file, which is complete at any moment.

    Args:
        path (str or os.PathLike): The file.
        every_seconds (float, optional): Seconds between two states; the first and the last epoch
            are always written. (default: :obj:`30.0`)
    """

    def __init__(self, path: str | os.PathLike[str], every_seconds: float = 30.0) -> None:
        super().__init__()
        self.path = path
        self.every_seconds = every_seconds
        self._last = -math.inf

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, unless the last time was a moment ago."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        is_due = is_last or time.monotonic() - self._last >= self.every_seconds
        # All processes take part in saving, so the clock of the first one decides.
        if not trainer.strategy.broadcast(is_due):
            return
        if trainer.is_global_zero:
            with atomic_write(self.path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)
        else:
            trainer.save_checkpoint(self.path, weights_only=False)  # writes nothing
        self._last = time.monotonic()
