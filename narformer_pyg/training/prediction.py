"""Prediction of many architectures by several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from narformer_pyg._checks import check_integer, resolve_device
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training.processes import process_arguments, quiet_lightning


def predict(
    predictor: ArchitecturePredictor,
    architectures: Sequence[Any],
    batch_size: int = 512,
    *,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    progress: bool = False,
) -> Tensor:
    r"""Predicts the targets of architectures, a share of them in each of several processes.

    The script is started once for each process, by Lightning or by :obj:`torchrun`, as in
    :func:`~narformer_pyg.training.fit`; all end with all predictions. With one process it is
    :meth:`~narformer_pyg.predictor.ArchitecturePredictor.predict`.

    Args:
        predictor (ArchitecturePredictor): What predicts.
        architectures (sequence): Architectures as :meth:`ArchitecturePredictor.predict` takes them:
            a list, or an in-memory dataset.
        batch_size (int, optional): Graphs in a batch of one process. (default: :obj:`512`)
        device (str, optional): :obj:`"auto"`, :obj:`"cpu"`, :obj:`"cuda"` or :obj:`"cuda:1"`.
            (default: :obj:`"auto"`)
        devices (int, optional): GPUs of this machine, or processes on the CPU.
            (default: :obj:`1`)
        num_nodes (int, optional): Machines with as many devices each. (default: :obj:`1`)
        progress (bool, optional): Whether the first process shows a progress bar, of its share.
            (default: :obj:`False`)

    Returns:
        torch.Tensor: Predictions :math:`(n, T)` on the CPU.

    Raises:
        TypeError: If :obj:`architectures` cannot be divided.
        ConversionError: If an architecture is malformed.
        ValueError: If a graph or an argument is not as stated.
    """
    if isinstance(architectures, str) or not hasattr(architectures, "__getitem__"):
        raise TypeError(
            "Expected 'architectures' to be a list or an in-memory dataset, which processes can "
            f"share (got {type(architectures).__name__})"
        )
    check_integer("batch_size", batch_size)
    target = resolve_device(device)
    processes = process_arguments(target, devices, num_nodes)
    if devices * num_nodes == 1:
        return predictor.predict(architectures, batch_size, target, progress)
    module = _Shares(predictor, architectures, batch_size, progress)
    home = predictor.device
    with quiet_lightning():
        trainer = Trainer(
            **processes,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            # Every process has one step, which is its share.
            trainer.predict(module, [torch.zeros(1)], return_predictions=False)
        finally:
            predictor.to(home)
    return module.prediction.clone()


class _Shares(LightningModule):
    """Predicts the share of a process and collects those of all."""

    prediction: Tensor

    def __init__(
        self,
        predictor: ArchitecturePredictor,
        architectures: Sequence[Any],
        batch_size: int,
        progress: bool,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.architectures = architectures
        self.batch_size = batch_size
        self.progress = progress

    def predict_step(self, batch: Tensor, batch_idx: int) -> None:
        """Predicts; ``batch`` is of no concern."""
        rank, num_processes = self.trainer.global_rank, self.trainer.world_size
        num_all = len(self.architectures)
        size = -(-num_all // num_processes)
        share = self.architectures[rank * size : (rank + 1) * size]
        # Shares are gathered at the same size; the last may be shorter.
        padded = torch.zeros(size, len(self.predictor.target_names), device=self.device)
        if len(share) > 0:
            own = self.predictor.predict(
                share, self.batch_size, self.device, self.progress and rank == 0
            )
            padded[: len(own)] = own.to(padded)
        self.prediction = self.all_gather(padded).flatten(0, 1)[:num_all].cpu()
