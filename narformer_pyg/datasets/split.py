"""Training, validation and test graphs of a dataset."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg._files import atomic_write

_PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    r"""Disjoint sets of graphs that train, validate and test a predictor.

    .. code-block:: python

        train_dataset = dataset[split.train]
        unseen_dataset = dataset[split.test]

    Args:
        train (Tensor): Positions of the training graphs: long, :obj:`[train_size]`.
        val (Tensor): Positions of the validation graphs: long, :obj:`[val_size]`.
        test (Tensor): Positions of the test graphs, which neither train nor validate: long,
            :obj:`[test_size]`, in ascending order.
        seed (int): The seed of the draw.

    Raises:
        ValueError: If a set is not a vector of non-negative integers, or a position occurs twice.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    seed: int

    def __post_init__(self) -> None:
        for name in _PARTS:
            part = getattr(self, name)
            if not isinstance(part, Tensor) or part.dtype != torch.long or part.dim() != 1:
                raise ValueError(f"Expected '{name}' to be a vector of long integers (got {part})")
            if part.numel() and int(part.min()) < 0:
                raise ValueError(
                    f"Expected '{name}' to hold no negative position (got {int(part.min())})"
                )
            if part.unique().numel() < part.numel():
                raise ValueError(f"Expected '{name}' to hold no position twice (got {part})")
        for first, second in combinations(_PARTS, 2):
            part = getattr(self, first)
            shared = part[torch.isin(part, getattr(self, second))]
            if shared.numel():
                raise ValueError(
                    f"Expected '{first}' and '{second}' to be disjoint (got "
                    f"{shared.tolist()[:5]} in both)"
                )

    @property
    def all(self) -> Tensor:
        """The graphs of all three sets, which papers on cells test on: long, in ascending order."""
        return torch.cat([self.train, self.val, self.test]).sort().values

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the split as JSON; the file is complete or absent."""
        content = {name: getattr(self, name).tolist() for name in _PARTS}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"seed": self.seed, **content}) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Reads what :meth:`save` wrote.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is not a split.
        """
        text = Path(path).read_bytes()
        try:
            content = json.loads(text)
            seed = content["seed"]
            if isinstance(seed, bool) or not isinstance(seed, int):
                raise TypeError(f"'seed' is {seed!r}")
            parts = {}
            for name in _PARTS:
                values = content[name]
                if not isinstance(values, list) or any(type(v) is not int for v in values):
                    raise TypeError(f"'{name}' is not a list of integers")
                parts[name] = torch.tensor(values, dtype=torch.long)
            return cls(seed=seed, **parts)
        except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected 'path' to be a split written by 'Split.save' (got {os.fspath(path)!r}: "
                f"{type(error).__name__}: {error}); draw the split again and save it"
            ) from error

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={getattr(self, name).numel()}" for name in _PARTS)
        return f"Split({sizes}, seed={self.seed})"


def draw_split(candidates: Tensor, train_size: int, val_size: int, seed: int) -> Split:
    """Draws training and validation sets; the other candidates are the test set."""
    check_integer("train_size", train_size)
    check_integer("val_size", val_size, least=0)
    check_seed(seed)
    num = candidates.numel()
    if train_size > num:
        raise ValueError(
            f"Expected 'train_size' to be between 1 and {num}, the number of graphs with labels "
            f"(got {train_size})"
        )
    if val_size > num - train_size:
        raise ValueError(
            f"Expected 'val_size' to be between 0 and {num - train_size}, the graphs that "
            f"'train_size' leaves (got {val_size})"
        )
    # One permutation for both sets: the training set does not depend on the validation set.
    order = torch.from_numpy(np.random.default_rng(seed).permutation(num))
    return Split(
        train=candidates[order[:train_size]],
        val=candidates[order[train_size : train_size + val_size]],
        test=candidates[order[train_size + val_size :].sort().values],
        seed=int(seed),
    )


def draw_in_groups(
    groups: Mapping[str, Tensor],
    test_share: float,
    val_share: float,
    seed: int,
    units: Sequence[str] | None = None,
) -> Split:
    r"""Draws disjoint training, validation and test sets with the same share of every group.

    Groups hold the positions of their graphs, in ascending order. Graphs of a group with the same
    unit (by position; by default each is its own) stay together. The test set does not depend on
    :obj:`val_share`. A group with two units or more has at least one in training and, where
    :obj:`test_share` is positive, one in test; a single unit trains.

    Raises:
        ValueError: If a number is out of range, or there is nothing to draw from.
    """
    for name, share in (("test_share", test_share), ("val_share", val_share)):
        if not 0.0 <= share < 1.0:
            raise ValueError(f"Expected '{name}' to be at least 0 and below 1 (got {share})")
    if test_share + val_share >= 1.0:
        raise ValueError(
            "Expected 'test_share' and 'val_share' to leave graphs to train on "
            f"(got {test_share} and {val_share})"
        )
    check_seed(seed)
    if not groups:
        raise ValueError("Expected at least one graph to draw a split from (got none)")
    # Groups of the same size would be drawn alike with the same seed.
    seeds = np.random.default_rng(seed).integers(2**63, size=len(groups)).tolist()
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for members, group_seed in zip(groups.values(), seeds, strict=True):
        together: dict[str | int, list[int]] = {}
        for i in members.tolist():
            together.setdefault(i if units is None else units[i], []).append(i)
        parts = list(together.values())
        num = len(parts)
        num_test = min(max(round(test_share * num), int(test_share > 0)), num - 1)
        num_val = min(round(val_share * num), num - num_test - 1)
        drawn = draw_split(torch.arange(num), num - num_test - num_val, num_val, group_seed)
        for out, chosen in ((train, drawn.train), (val, drawn.val), (test, drawn.test)):
            out.extend(i for part in chosen.tolist() for i in parts[part])
    return Split(
        train=torch.tensor(train),
        val=torch.tensor(val, dtype=torch.long),
        test=torch.tensor(sorted(test), dtype=torch.long),
        seed=seed,
    )
