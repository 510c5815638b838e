"""Checkpoints by name: local folders, predictors inside the package, Hugging Face's hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from narformer_pyg.predictor.checkpoint import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

PRETRAINED = Path(__file__).with_name("pretrained")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def list_pretrained() -> list[str]:
    """Returns the names of the predictors inside the package."""
    return sorted(file.parent.name for file in PRETRAINED.glob(f"*/{CONFIG_FILE}"))


def find_folder(path: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Returns the first that exists: a folder, a predictor inside the package, one on the hub."""
    name = os.fspath(path)
    if revision is None:
        for folder in (Path(name), PRETRAINED / name):
            if (folder / CONFIG_FILE).is_file():
                return folder
    if isinstance(path, str) and _HUB_NAME.fullmatch(name) and not Path(name).exists():
        return _download(name, revision)
    raise FileNotFoundError(
        f"Expected 'path' to be a folder with '{CONFIG_FILE}', a name 'user/name' on Hugging "
        f"Face's hub, or a predictor inside the package: {', '.join(list_pretrained())} "
        f"(got {name!r})"
    )


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"Loading {name!r} from Hugging Face's hub needs the package 'huggingface_hub': "
            'pip install "narformer-pyg[hub]"'
        ) from error
    files = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:  # what the hub raises: not found, no access, offline
        raise FileNotFoundError(
            f"Expected 'path' to be an existing folder, or a repository on Hugging Face's hub (got "
            f"{name!r}; {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]})"
        ) from error
