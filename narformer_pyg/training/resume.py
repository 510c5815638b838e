"""Checkpoints of interrupted trainings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from narformer_pyg.errors import CheckpointError
from narformer_pyg.nn.models.checkpoint_file import read_checkpoint
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training.module import PredictorModule
from narformer_pyg.training.recipes import Recipe


def training_identity(
    predictor: ArchitecturePredictor, labels: Tensor, recipe: Recipe, **settings: Any
) -> dict[str, Any]:
    """Returns the facts that must be the same for a resumed run to end as an undisturbed one."""
    return {
        **recipe.to_dict(),
        "model_arguments": predictor.model.config,
        "num_graphs": len(labels),
        "labels_sha256": hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:16],
        **settings,
    }


def check_resume(resume: str | os.PathLike[str], identity: dict[str, Any]) -> str:
    """Returns the file to resume from, or raises unless it is of the same training.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, of something else or of another training.
    """
    path = Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected 'resume' to be a checkpoint of an earlier training (got {os.fspath(path)!r})"
        )
    content = read_checkpoint(path, "resume")
    state = content.get("narformer_pyg") if isinstance(content, dict) else None
    expected = {"identity", "random_state", "loader", *PredictorModule.STATE}
    lightning = {"state_dict", "optimizer_states", "loops", "global_step", "epoch"}
    if (
        not isinstance(state, dict)
        or not state.keys() >= expected
        or not isinstance(state["identity"], dict)
        or not content.keys() >= lightning
    ):
        raise CheckpointError(
            f"Expected 'resume' to be a whole checkpoint of an earlier training (got "
            f"{os.fspath(path)!r}, which is something else); start without 'resume'"
        )
    theirs = state["identity"]
    changed = [
        f"{key}: {theirs.get(key)} there, {identity.get(key)} here"
        for key in sorted(identity.keys() | theirs.keys())
        if theirs.get(key) != identity.get(key)
    ]
    if changed:
        raise CheckpointError(
            f"Expected 'resume' to be of the same training (got {os.fspath(path)!r}, which differs "
            f"in {'; '.join(changed)})"
        )
    return os.fspath(path)
