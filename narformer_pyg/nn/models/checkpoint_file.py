"""Opens files of :func:`torch.save` without executing what is in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from narformer_pyg.errors import CheckpointError


def read_checkpoint(path: str | os.PathLike[str], argument: str) -> Any:
    """Returns the content of a file, on the CPU.

    Args:
        path (str or os.PathLike): The file.
        argument (str): The name of the argument in error messages.

    Raises:
        OSError: If the file cannot be opened.
        CheckpointError: If it is damaged, no file of :func:`torch.save`, or holds more than
            tensors and plain Python types.
    """
    with Path(path).open("rb") as stream:
        try:
            return torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # damage raises whatever the reader stumbles over, OSError too
            reason = "it is damaged, not a checkpoint, or holds more than tensors and plain values"
            if not isinstance(error, pickle.UnpicklingError):  # that one writes pages of advice
                reason += f" ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
            raise CheckpointError(
                f"Cannot read '{argument}' (got {os.fspath(path)!r}): {reason}"
            ) from error
