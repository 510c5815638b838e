"""Lightning's arguments for several processes, in training and prediction."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from narformer_pyg._checks import check_integer


def process_arguments(device: torch.device, devices: int, num_nodes: int) -> dict[str, Any]:
    """Returns the arguments of Lightning's trainer that say where it runs.

    Args:
        device (torch.device): The kind of device, or the one GPU that was asked for.
        devices (int): GPUs of this machine, or processes on the CPU.
        num_nodes (int): Machines with as many devices each.

    Raises:
        ValueError: If there are fewer GPUs, or a number is not positive.
    """
    check_integer("devices", devices)
    check_integer("num_nodes", num_nodes)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"Expected 'devices' to be at most {torch.cuda.device_count()}, the GPUs of this "
            f"machine (got {devices})"
        )
    return {
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "devices": devices if devices > 1 or device.index is None else [device.index],
        "num_nodes": num_nodes,
        "strategy": "auto" if devices * num_nodes == 1 else "ddp",
    }


class quiet_lightning(warnings.catch_warnings):
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
