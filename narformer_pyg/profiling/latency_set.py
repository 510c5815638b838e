"""A data set of random networks with measured latencies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg._files import atomic_write, is_inside
from narformer_pyg.profiling.families import FAMILIES, generate
from narformer_pyg.profiling.labels import LabelComparison, compare_labels, read_labels
from narformer_pyg.profiling.measure import profile_folder


def write_networks(
    folder: str | os.PathLike[str],
    num: int,
    seed: int = 0,
    families: Sequence[str] | None = None,
) -> list[Path]:
    r"""Draws random networks and writes them as ONNX files without the data of weights.

    The families take turns, and network :obj:`i` depends on :obj:`seed`, :obj:`i` and the list of
    families alone: a larger :obj:`num` adds networks to the same ones. Existing files stay.

    Args:
        folder (str or os.PathLike): The folder for files such as :obj:`resnet_00003.onnx`.
        num (int): The number of networks.
        seed (int, optional): The seed of all networks. (default: :obj:`0`)
        families (sequence of str, optional): Names among :obj:`FAMILIES`, or all of them.
            (default: :obj:`None`)

    Returns:
        list of Path: The files, in the order of the networks.

    Raises:
        FileExistsError: If a file of that name holds another network.
        ValueError: If an argument is wrong.
    """
    num, seed = check_integer("num", num), check_seed(seed)
    names = list(FAMILIES if families is None else families)
    if not names or len(set(names)) < len(names) or not FAMILIES.keys() >= set(names):
        raise ValueError(
            f"Expected 'families' to be different names among {', '.join(FAMILIES)} "
            f"(got {families!r})"
        )
    paths = []
    for i in range(num):
        family = names[i % len(names)]
        path = Path(folder) / f"{family}_{i:05d}.onnx"
        model = generate(family, np.random.default_rng([seed, i]))
        content = model.SerializeToString(deterministic=True)
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        elif path.read_bytes() != content:
            raise FileExistsError(
                f"Expected 'folder' to be new, or to hold networks of the same 'seed' and "
                f"'families' (got another network in {str(path)!r})"
            )
        paths.append(path)
    return paths


def measure_again(
    labels_csv: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    out_csv: str | os.PathLike[str],
    num: int = 100,
    seed: int = 0,
    **settings: Any,
) -> LabelComparison:
    r"""Measures some models a second time and compares the labels.

    No predictor can be expected to come closer to labels than a second measurement does.

    Args:
        labels_csv (str or os.PathLike): The table of the first measurement.
        folder (str or os.PathLike): The folder of its models.
        out_csv (str or os.PathLike): The table of the second measurement.
        num (int, optional): The most models to draw from the table. (default: :obj:`100`)
        seed (int, optional): Seeds the draw and the order of the models. (default: :obj:`0`)
        **settings (optional): Arguments of :func:`measure_models`.

    Raises:
        FileNotFoundError: If a model is not in the folder.
        ValueError: If an argument is wrong, or both tables are the same file.
    """
    num, seed = check_integer("num", num), check_seed(seed)
    if Path(labels_csv).resolve() == Path(out_csv).resolve():
        raise ValueError(
            f"Expected 'out_csv' to be another file than 'labels_csv' (got {str(out_csv)!r})"
        )
    first = read_labels(labels_csv)
    drawn = np.random.default_rng(seed).permutation(len(first))[:num]
    names = [first[i].file for i in sorted(drawn)]
    for name in names:
        if not is_inside(name):
            raise ValueError(f"Expected 'labels_csv' to name models inside 'folder' (got {name!r})")
    paths = [Path(folder) / name for name in names]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"Expected 'folder' to hold the models of {str(labels_csv)!r} (got {len(missing)} of "
            f"{len(paths)} that do not exist, for instance {missing[0]!r})"
        )
    second = profile_folder(folder, out_csv, paths, seed=seed, **settings)
    return compare_labels(first, second.labels)
