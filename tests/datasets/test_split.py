from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from narformer_pyg.datasets import Split
from narformer_pyg.datasets.split import draw_split


def make(**parts: object) -> Split:
    default = {
        "train": torch.tensor([4, 1]),
        "val": torch.tensor([0]),
        "test": torch.tensor([2, 3, 5]),
        "seed": 7,
    }
    return Split(**{**default, **parts})  # type: ignore[arg-type]


def test_all() -> None:
    assert make().all.tolist() == list(range(6))
    assert make(val=torch.empty(0, dtype=torch.long)).all.tolist() == [1, 2, 3, 4, 5]


def test_draw_split_draws_from_the_candidates() -> None:
    candidates = torch.tensor([3, 5, 8, 13, 21])
    split = draw_split(candidates, 2, 1, seed=0)
    assert split.all.tolist() == candidates.tolist()
    # The draw is part of every published result: it may not change with the library's version.
    assert split.train.tolist() == [8, 21]


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "new" / "split.json"
    split = make()
    split.save(path)
    loaded = Split.load(str(path))
    for name in ("train", "val", "test"):
        assert torch.equal(getattr(loaded, name), getattr(split, name))
        assert getattr(loaded, name).dtype == torch.long
    assert loaded.seed == 7
    assert json.loads(path.read_text())["train"] == [4, 1]
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"seed": 0, "train": [0], "val": []}',
        b'{"seed": 0, "train": [0.5], "val": [], "test": [0]}',
        b'{"seed": 0, "train": [true], "val": [], "test": [0]}',
        b'{"seed": "a", "train": [0], "val": [], "test": [0]}',
        b'{"seed": 0, "train": [0], "val": [0], "test": [0]}',
        b'{"seed": 0, "train": [99999999999999999999], "val": [], "test": [0]}',
    ],
)
def test_load_rejects(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'path' to be a split written by 'Split.save' \(got '.*"):
        Split.load(path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": torch.tensor([0.0])}, r"'train' to be a vector of long integers"),
        ({"val": torch.zeros(1, 1, dtype=torch.long)}, r"'val' to be a vector of long integers"),
        ({"train": torch.tensor([2, -1])}, r"'train' to hold no negative position \(got -1\)"),
        ({"train": torch.tensor([2, 2])}, r"'train' to hold no position twice"),
        ({"val": torch.tensor([1])}, r"'train' and 'val' to be disjoint \(got \[1\] in both\)"),
        ({"test": torch.tensor([2, 1])}, r"'train' and 'test' to be disjoint \(got \[1\] in both"),
    ],
)
def test_split_rejects(parts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**parts)
