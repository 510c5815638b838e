"""Folders of ONNX models, and archives of such folders."""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def open_models(path: Path) -> Iterator[Path]:
    """Yields the folder of the models; an archive is unpacked for as long as the context lasts.

    Raises:
        ValueError: If it is a file but not a whole archive, or one that writes elsewhere.
    """
    if path.is_dir():
        yield path
        return
    with TemporaryDirectory() as folder:
        try:
            with tarfile.open(path) as archive:
                _extract(archive, folder)
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
            raise ValueError(
                f"Expected 'models' to be a folder or a tar archive of ONNX models (got "
                f"{str(path)!r}, which cannot be unpacked: {error})"
            ) from error
        yield Path(folder)


def _extract(archive: tarfile.TarFile, folder: str) -> None:
    """Unpacks an archive: nothing outside the folder, no links out of it, no devices."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    # Python before 3.10.12 and 3.11.4, for instance that of Debian 12.
    root = Path(folder).resolve()
    for member in archive.getmembers():
        if not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")
        if not (root / member.name).resolve().is_relative_to(root):
            raise tarfile.TarError(f"{member.name!r} would be outside the destination")
    archive.extractall(folder)
