"""Training on a GPU by whole steps: one CUDA graph does all the work of a step.

A step of a small model is hundreds of short programs, and to start them takes longer than to run
them. Here a GPU records all of a step once for each shape of a batch, and repeats it on one call:
cutting the batch, forward and backward pass, clipping, optimizer and learning rate. Batch order,
losses and the number of the step are on the GPU, so that no step waits for it.

Lightning runs the training as ever, but sees an epoch as one batch: its own work around a batch
takes 0.1 ms, a tenth of a step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from narformer_pyg._cuda_graphs import RecordedCalls
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.loader.padded_batches import BatchShape, PaddedBatches
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training.module import PredictorModule

_LOG = logging.getLogger(__name__)

#: Values of the argument :obj:`engine` of :func:`~narformer_pyg.training.fit`.
ENGINES = ("auto", "eager", "captured", "compiled")

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Compiling takes about half a minute, and saves about a millisecond a step.
_MIN_COMPILED_STEPS = 40_000
# Arguments of Lightning's trainer that mean single batches.
_BATCHWISE = frozenset(
    {"accumulate_grad_batches", "barebones", "detect_anomaly", "fast_dev_run", "max_steps",
     "limit_train_batches", "overfit_batches", "plugins", "val_check_interval"}
)  # fmt: skip
_BATCH_HOOKS = (
    "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward",
    "on_after_backward", "on_before_optimizer_step",
)  # fmt: skip


def choose_engine(
    engine: str,
    predictor: ArchitecturePredictor,
    loader: DeviceLoader,
    num_steps: int,
    *,
    precision: str,
    num_processes: int,
    callbacks: Sequence[Callback],
    trainer_kwargs: Mapping[str, Any],
) -> str:
    r"""Returns the engine of a training: :obj:`"eager"`, :obj:`"captured"` or :obj:`"compiled"`.

    On the CPU, :obj:`"auto"` is :obj:`"eager"`. Where a GPU can't take whole steps, a log line says
    why.

    Args:
        engine (str): One of :obj:`ENGINES`.
        predictor (ArchitecturePredictor): The predictor.
        loader (DeviceLoader): The training batches.
        num_steps (int): Steps of the whole training.
        precision (str): As Lightning takes it.
        num_processes (int): Processes that train together.
        callbacks (sequence of Callback): Callbacks of the caller.
        trainer_kwargs (dict): Further arguments of Lightning's trainer.
    """
    if engine not in ENGINES:
        raise ValueError(f"Expected 'engine' to be among {', '.join(ENGINES)} (got {engine!r})")
    device = loader.device
    if engine == "eager" or (engine == "auto" and device.type == "cpu"):
        return "eager"
    reason = None
    batchwise = sorted(_BATCHWISE.intersection(trainer_kwargs))
    batchwise += [type(callback).__name__ for callback in callbacks if _sees_batches(callback)]
    if num_processes > 1:
        reason = "several processes train together"
    elif precision not in _AUTOCAST:
        reason = f"precision {precision!r} is none of {', '.join(_AUTOCAST)}"
    elif batchwise:
        reason = f"{', '.join(batchwise)} would need single batches"
    elif device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        reason = f"{torch.cuda.get_device_name(device)} is too old"
    else:
        try:
            pads = PaddedBatches(loader, batch_attributes(predictor)).pads
        except ValueError as error:
            reason = str(error)
        else:
            if pads and any(isinstance(m, _BatchNorm) for m in predictor.modules()):
                reason = "batch norms would see the padding"
    if reason is not None:
        _LOG.warning("Training goes step by step, not by whole steps on the GPU: %s", reason)
        return "eager"
    if engine == "auto":
        engine = "compiled" if num_steps >= _MIN_COMPILED_STEPS and not pads else "captured"
    if engine == "compiled" and (reason := _reason_against_compiling(device)) is not None:
        _LOG.warning("The model is not compiled: %s", reason)
        engine = "captured"
    return engine


def _sees_batches(callback: Callback) -> bool:
    """Whether a callback that is not Lightning's own wants to be called for single batches."""
    cls = type(callback)
    return not cls.__module__.startswith("lightning.") and any(
        getattr(cls, name) is not getattr(Callback, name) for name in _BATCH_HOOKS
    )


def _reason_against_compiling(device: torch.device) -> str | None:
    """Returns the error of the compiler on a small function, or nothing."""
    try:
        torch.compile(lambda x: x.sin() + 1.0)(torch.zeros(8, device=device))
    except Exception as error:  # each compiler fails in its own way
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def batch_attributes(predictor: ArchitecturePredictor) -> list[str]:
    """Returns the attributes of graphs that a training step reads, the edges aside."""
    return [*predictor.token_encoder.tokens, "y"]


class CapturedModule(PredictorModule):
    r"""Trains as :class:`~narformer_pyg.training.PredictorModule`, by whole steps.

    On the CPU, steps are the same but for the recording. Lightning calls its callbacks for epochs
    as ever, and as if each epoch had one batch.

    Args:
        num_epochs (int): Epochs of the whole training.
        compiled (bool): Whether :func:`torch.compile` makes the programs of full batches.
        *args, **kwargs: Arguments of :class:`~narformer_pyg.training.PredictorModule`.
    """

    def __init__(self, *args: Any, num_epochs: int, compiled: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.batches = PaddedBatches(self.loader, batch_attributes(self.predictor))
        self.num_steps = num_epochs * len(self.loader)
        #: The shape of the last batch, for messages.
        self.shape: BatchShape | None = None
        self._compiles = compiled
        self._compiled_call: Any = None

    def train_dataloader(self) -> Any:
        """Returns the one batch that Lightning sees of an epoch."""
        return _WholeEpoch()

    def on_train_start(self) -> None:
        """Puts what steps read and write where it stays, after a checkpoint is loaded."""
        super().on_train_start()
        device = self.device
        rates = [self.learning_rate(step, self.num_steps) for step in range(self.num_steps)]
        self._rates = torch.tensor(rates, device=device)
        self._losses = torch.zeros(self.num_steps, device=device)
        first = self.current_epoch * len(self.loader)
        self._step_number = torch.tensor([first], device=device)
        # No batch holds more graphs than the dataset.
        self._index = torch.zeros(len(self.loader.dataset), dtype=torch.long, device=device)
        self._full = 0

        self._optimizer: Any = self.optimizers(use_pl_optimizer=False)
        self._rate = torch.zeros((), device=device)
        for group in self._optimizer.param_groups:
            group.update(lr=self._rate, fused=True, capturable=device.type == "cuda")
        self._trained = [p for p in self.predictor.parameters() if p.requires_grad]
        self._scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self._initialize_state()
        self._calls = RecordedCalls(self._step, device, self._state)

    def _initialize_state(self) -> None:
        """Lets optimizer and scaler allocate what they keep: no step may do so."""
        if self._scaler is not None:
            self._scaler.scale(torch.zeros((), device=self.device))
        if self._optimizer.state:
            return
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)
        self._optimizer.step()  # the learning rate is zero
        self._optimizer.zero_grad()
        for state in self._optimizer.state.values():
            state["step"].zero_()

    def _state(self) -> list[Tensor]:
        """Returns everything that a step changes."""
        scaler = self._scaler
        return [
            *self.predictor.parameters(),
            *self.predictor.buffers(),
            *(v for state in self._optimizer.state.values() for v in state.values()),
            *((scaler._scale, scaler._growth_tracker) if scaler is not None else ()),
            *(self._step_number, self._losses, self._rate),
        ]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Trains for an epoch."""
        batches = list(self.loader.batch_sampler)
        order = torch.cat(batches).to(self.device, non_blocking=True)
        self._full = max(map(len, batches))
        parts = order.split([len(batch) for batch in batches])
        # Lightning's autocast would hold for the backward pass too.
        with torch.autocast(self.device.type, enabled=False):
            for graphs, index in zip(batches, parts, strict=True):
                self.shape = self.batches.shape_of(graphs)
                self._index[: len(index)].copy_(index)
                self._calls(self.shape)
        first = self.current_epoch * len(batches)
        self._epoch_losses.append(self._losses[first : first + len(batches)].mean())
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.total.ready += len(batches)
        progress.total.completed += len(batches)  # the trainer's global step

    def _step(self, shape: BatchShape) -> None:
        """Does everything of a step; only what happens on the device is recorded."""
        optimizer, scaler = self._optimizer, self._scaler
        optimizer.zero_grad(set_to_none=True)
        dtype = _AUTOCAST[str(self.trainer.precision)]
        with (
            torch.autocast(self.device.type, dtype, dtype is not None, cache_enabled=False),
            self._compiled(shape),
        ):
            loss = self.loss(self.batches.cut(self._index[: shape.graphs], shape))
        (loss if scaler is None else scaler.scale(loss)).backward()
        if self.recipe.gradient_clip > 0:
            if scaler is not None:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained, self.recipe.gradient_clip)
        self._rate.copy_(self._rates.index_select(0, self._step_number).view(()))
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        self._losses.index_copy_(0, self._step_number, loss.detach().view(1))
        self._step_number.add_(1)

    @contextmanager
    def _compiled(self, shape: BatchShape) -> Iterator[None]:
        """Compiles the model for full batches; a last batch is not worth it."""
        model = self.predictor.model
        if not self._compiles or shape.graphs < self._full:
            yield
            return
        if self._compiled_call is None:
            self._compiled_call = torch.compile(model._call_impl, dynamic=False)
        model._compiled_call_impl = self._compiled_call
        try:
            yield
        finally:
            model._compiled_call_impl = None


class _WholeEpoch:
    """One batch in each epoch."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        return iter([0])
