r"""Reads CIFAR-10 as its authors give it, and augments it: what darts_cifar10.py trains on.

    from cifar10 import augment, load_cifar10

    train, test = load_cifar10(Path("cifar10"), may_download=True)
    x = augment(train.x[:96], cutout=16)  # float [96, 3, 32, 32]

Both versions of https://www.cs.toronto.edu/~kriz/cifar.html are read: the binary one, also in its
archive, and the Python one, of which nothing but arrays and plain values is unpickled.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from narformer_pyg._files import atomic_write

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as on the page of CIFAR-10
FILES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
IMAGES_PER_FILE = 10_000
# Of the channels of all training images.
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)


class Images(NamedTuple):
    """Images, uint8 [n, 3, 32, 32], and their classes, long [n]."""

    x: Tensor
    y: Tensor


def fake_cifar10(n: int) -> Images:
    """Returns random images, always the same."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(x, torch.randint(10, (n,), generator=generator))


def load_cifar10(folder: Path, may_download: bool = False) -> tuple[Images, Images]:
    """Returns the 50,000 images to train on and the 10,000 to test on.

    Args:
        folder (pathlib.Path): Where 'cifar-10-batches-bin', 'cifar-10-binary.tar.gz' or
            'cifar-10-batches-py' is; or one of these folders.
        may_download (bool, optional): Whether to download what is missing. (default: False)

    Raises:
        OSError: If a download fails.
        ValueError: If nothing is there, or it is not complete.
    """
    archive = folder / Path(URL).name
    places: list[tuple[Path, Path, Callable[[Path, str], Images]]] = [
        *((place / "test_batch.bin", place, read_binary)
          for place in (folder / "cifar-10-batches-bin", folder)),
        (archive, archive, read_archive),
        *((place / "test_batch", place, read_python)
          for place in (folder / "cifar-10-batches-py", folder)),
    ]  # fmt: skip
    found = [(place, read) for file, place, read in places if file.is_file()]
    if not found and may_download:
        download(archive)
        found = [(archive, read_archive)]
    if not found:
        raise ValueError(
            "Expected '--data' to be a folder with 'cifar-10-batches-bin', "
            f"'{archive.name}' or 'cifar-10-batches-py' (got {folder}); pass '--download', or "
            f"fetch {URL} yourself"
        )
    place, read = found[0]
    try:
        *train, test = [read(place, name) for name in FILES]
    except (
        OSError, EOFError, LookupError, AttributeError, TypeError, ValueError, tarfile.TarError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"Expected {place} to hold CIFAR-10, complete (got {type(error).__name__}: {error})"
        ) from error
    return Images(
        torch.cat([part.x for part in train]), torch.cat([part.y for part in train])
    ), test


def download(path: Path) -> None:
    """Downloads the binary version of CIFAR-10; complete and checked, or absent."""
    print(f"Downloading {URL}", flush=True)
    with atomic_write(path) as temporary:
        with urllib.request.urlopen(URL, timeout=60) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
        with temporary.open("rb") as file:
            digest = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
        if digest != MD5:
            raise ValueError(f"Expected the MD5 digest of {URL} to be {MD5} (got {digest})")


def read_binary(folder: Path, name: str) -> Images:
    """Reads a file of the binary version."""
    return decode_binary(name, (folder / f"{name}.bin").read_bytes())


def read_archive(archive: Path, name: str) -> Images:
    """Reads a file of the binary version out of its archive."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"cifar-10-batches-bin/{name}.bin")
        return decode_binary(name, b"" if file is None else file.read())


def decode_binary(name: str, content: bytes) -> Images:
    """Splits records of one byte for the class and 3,072 for the image."""
    records = np.frombuffer(content, np.uint8)
    if records.size != IMAGES_PER_FILE * 3073:
        raise ValueError(
            f"Expected '{name}' to hold {IMAGES_PER_FILE * 3073} bytes (got {records.size})"
        )
    records = records.reshape(-1, 3073)
    return as_images(name, records[:, 1:], records[:, 0])


def read_python(folder: Path, name: str) -> Images:
    """Reads a file of the Python version."""
    with (folder / name).open("rb") as file:
        content = ArrayUnpickler(file, encoding="bytes").load()
    return as_images(name, content[b"data"], content[b"labels"])


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of arrays and plain values; whatever else they ask for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns what arrays are rebuilt with."""
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of CIFAR-10")


def as_images(name: str, x: Any, y: Any) -> Images:
    """Checks images and classes, and returns them as tensors of their own."""
    x, y = np.array(x), np.array(y).astype(np.int64)
    if x.shape != (IMAGES_PER_FILE, 3072) or x.dtype != np.uint8 or y.shape != (IMAGES_PER_FILE,):
        raise ValueError(
            f"Expected '{name}' to hold {IMAGES_PER_FILE} images and classes (got "
            f"{x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)})"
        )
    if y.min() < 0 or y.max() > 9:
        raise ValueError(f"Expected '{name}' to hold classes 0 to 9 (got {y.min()} to {y.max()})")
    return Images(torch.from_numpy(x).view(-1, 3, 32, 32), torch.from_numpy(y))


def normalize(x: Tensor) -> Tensor:
    """Returns images as numbers of mean 0 and standard deviation 1 in each channel."""
    mean, std = (x.new_tensor(v, dtype=torch.float).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x.float() / 255 - mean) / std


def augment(x: Tensor, cutout: int) -> Tensor:
    """Crops images, padded by four pixels, flips half of them, and cuts a square out of each."""
    n, _, height, width = x.shape
    rows, columns = (torch.arange(size, device=x.device) for size in (height, width))
    top, left = torch.randint(9, (2, n, 1), device=x.device)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    moved = pad(x, (4, 4, 4, 4))[image, :, (rows + top).unsqueeze(2), (columns + left).unsqueeze(1)]
    x = moved.permute(0, 3, 1, 2)  # [n, 3, height, width]
    flipped = torch.rand(n, 1, 1, 1, device=x.device) < 0.5
    x = normalize(torch.where(flipped, x.flip(3), x))
    if cutout == 0:
        return x.contiguous()
    # The square is around any pixel, and ends at the edges of the image.
    middle = torch.stack([torch.randint(size, (n, 1), device=x.device) for size in (height, width)])
    low, high = middle - cutout // 2, middle + (cutout - cutout // 2)
    hit_rows, hit_columns = (
        (place >= low[i]) & (place < high[i]) for i, place in enumerate((rows, columns))
    )
    hole = hit_rows.view(n, 1, height, 1) & hit_columns.view(n, 1, 1, width)
    return x.masked_fill(hole, 0.0).contiguous()
