"""Checkpoints: a folder with a readable configuration, weights and a model card."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from narformer_pyg import __version__
from narformer_pyg._files import atomic_write
from narformer_pyg.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
# Holds the new weights while a checkpoint is being replaced.
_NEXT_WEIGHTS_FILE = "model.next.safetensors"
_FORMAT = "narformer_pyg.predictor"
_FORMAT_VERSION = 1
_MAX_CONFIG_BYTES = 2**24
# Tables that are computed rather than saved, such as the codes of operations.
_MAX_TABLE_BYTES = 2**28


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], card: str
) -> Path:
    """Writes a checkpoint; a process killed at any moment leaves the old one or the new one.

    The configuration holds the SHA-256 of the weights, and its rename is the moment of change:
    before it the new weights lie ready under another name, under which :func:`read_weights` finds
    them until they have replaced the old ones.
    """
    weights = save({key: value.detach().cpu().clone() for key, value in state.items()})
    content = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "package_version": __version__,
        **config,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    try:
        content = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected the 'config' of encoder and model to hold JSON values (got {error})"
        ) from error
    content["config_sha256"] = _digest(content)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / _NEXT_WEIGHTS_FILE) as temporary:
        temporary.write_bytes(weights)
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    (folder / _NEXT_WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_text(card, "utf-8")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """Reads and checks the configuration of a checkpoint."""
    file = folder / CONFIG_FILE
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {_MAX_CONFIG_BYTES} bytes")
        config = json.loads(file.read_text("utf-8"))
        digest = config.pop("config_sha256", None) if isinstance(config, dict) else None
        if digest not in (None, _digest(config)):
            raise ValueError(
                "it was changed or damaged after it was written. If you edited it on purpose, "
                "delete its line 'config_sha256'"
            )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Cannot read 'path' (got {os.fspath(file)!r}): {error}") from error
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise CheckpointError(
            "Expected 'path' to be a folder written by 'ArchitecturePredictor.save_pretrained' "
            f"(got {os.fspath(file)!r}). For a file of the authors' code use "
            "'NARFormerV2.from_released_checkpoint'; to continue a training, its 'resume' argument"
        )
    version = config.get("format_version")
    if not isinstance(version, int) or version > _FORMAT_VERSION:
        raise CheckpointError(
            f"Expected 'path' to have format version {_FORMAT_VERSION} or lower (got {version!r} "
            f"in {os.fspath(file)!r}, written by narformer_pyg {config.get('package_version')}); "
            "update with 'pip install -U narformer-pyg'"
        )
    return config


def read_weights(folder: Path, config: Mapping[str, Any], build: Callable[[], Any]) -> Any:
    """Calls ``build`` for the predictor that the configuration describes, and loads its weights.

    Nothing is allocated before the sizes in the configuration agree with the file.
    """
    file = _find_weights(folder, config.get("weights_sha256"))
    try:
        with safe_open(file, framework="pt") as weights:
            keys = weights.keys()
            shapes = {key: tuple(weights.get_slice(key).get_shape()) for key in keys}
            _check_sizes(config, build, shapes)
            predictor = build()
            predictor.load_state_dict({key: weights.get_tensor(key) for key in keys})
        for key, value in predictor.state_dict().items():
            if not bool(value.isfinite().all()):
                raise ValueError(f"the weights {key!r} are not finite")
        predictor.check()
    except Exception as error:  # constructors of any class stumble over any nonsense
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"Cannot rebuild the predictor in {os.fspath(folder)!r} ({reason})"
        ) from error
    return predictor


def _find_weights(folder: Path, digest: Any) -> Path:
    """Returns the weights that the configuration belongs to."""
    files = [folder / name for name in (WEIGHTS_FILE, _NEXT_WEIGHTS_FILE)]
    existing = [file for file in files if file.is_file()]
    for file in existing:
        found = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                found.update(block)
        if found.hexdigest() == digest:
            return file
    if not existing:
        raise CheckpointError(f"Expected 'path' to hold '{WEIGHTS_FILE}' (got {str(folder)!r})")
    raise CheckpointError(
        f"Cannot read 'path' (got {str(existing[0])!r}): it is damaged, or does not belong to "
        f"the '{CONFIG_FILE}' beside it (their SHA-256 differ)"
    )


def _check_sizes(
    config: Mapping[str, Any], build: Callable[[], Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises unless the module that is to be built is as large as the weights are."""
    num_blocks = config["model"]["config"].get("num_blocks", 0)
    if num_blocks > len(shapes):
        raise ValueError(f"its configuration has {num_blocks} blocks, its file fewer weights")
    try:
        with torch.device("meta"):
            sketch = build()
    except (RuntimeError, NotImplementedError) as error:
        if "meta" in str(error):  # a class of the user that reads values when it is built
            return
        raise
    expected = {key: tuple(value.shape) for key, value in sketch.state_dict().items()}
    for key in sorted(expected.keys() | shapes.keys()):
        if expected.get(key) != shapes.get(key):
            raise ValueError(
                f"by its configuration, the shape of {key!r} is {expected.get(key)}, in its file "
                f"{shapes.get(key)}"
            )
    tables = [value for name, value in sketch.named_buffers() if name not in expected]
    num_bytes = sum(table.numel() * table.element_size() for table in tables)
    if num_bytes > _MAX_TABLE_BYTES:
        raise ValueError(f"its configuration asks for tables of {num_bytes:,} bytes")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
