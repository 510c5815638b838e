from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch_geometric.loader import DataLoader

from narformer_pyg.convert import export_onnx, from_torch
from narformer_pyg.datasets import FromTable

CELLS = [
    "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
]


def test_cells(tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    lines = [f"{cell},{acc},{family}" for cell, acc, family in zip(
        CELLS, ("91.5", "", "88"), "aab", strict=True)]  # fmt: skip
    table.write_text("\n".join(["architecture,test_acc,family", *lines]), "utf-8")
    dataset = FromTable(table)
    assert dataset.target_names == ("test_acc",)
    assert dataset.architectures == CELLS
    assert dataset.labels("test_acc").isnan().tolist() == [False, True, False]
    split = dataset.get_split(1, 1, seed=3)
    assert sorted(split.all.tolist()) == [0, 2]
    assert dataset.leave_family_out("b").test.tolist() == [2]
    part = dataset[torch.tensor([2, 0])]
    assert part.families == ["b", "a"]
    assert part.copy().labels("test_acc").tolist() == [88.0, 91.5]
    (batch,) = DataLoader(dataset, batch_size=3)
    assert batch.y.shape == (3, 1)


def test_networks_of_any_kind(tmp_path: Path) -> None:
    module, example = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)
    onnx.save(export_onnx(module, example), tmp_path / "a.onnx")
    (tmp_path / "t.csv").write_text("architecture,ms\na.onnx,2\nmissing.onnx,3\n", "utf-8")
    dataset = FromTable(tmp_path / "t.csv")
    assert dataset.architectures == ["a.onnx"]
    assert list(dataset.failures) == ["missing.onnx"]
    graph = from_torch(module, example)
    rows = [{"architecture": name, "ms": i, "other": ""} for i, name in enumerate("abc")]
    several = FromTable(
        rows, {"a": (module, example), "b": tmp_path / "a.onnx", "c": graph}, target="ms"
    )
    assert several.labels("ms").tolist() == [0, 1, 2]
    assert several[0].op.tolist() == several[1].op.tolist() == several[2].op.tolist()
    assert "y" not in graph  # what was given is not changed


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        ([], {}, "at least one row"),
        ([{"ms": 1}], {}, "column 'architecture'"),
        ([{"architecture": CELLS[0]}], {}, "no labels"),
        ([{"architecture": CELLS[0], "ms": "fast"}], {}, "'ms' in row 1 .*'fast'"),
        ([{"architecture": CELLS[0], "ms": "inf"}], {}, "finite number"),
        ([{"architecture": CELLS[0], "ms": 1}] * 2, {}, "twice"),
        ([{"architecture": CELLS[0], "ms": 1}], {"target": "acc"}, "it has ms"),
        ([{"architecture": "nothing", "ms": 1}], {}, "got none"),
        ([{"architecture": "a", "ms": 1}], {"architectures": {}}, "'architectures' to have 'a'"),
    ],
)
def test_wrong_tables(rows: list, options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FromTable(rows, **options)


def test_kinds_are_not_mixed() -> None:
    rows = [{"architecture": CELLS[0], "ms": 1}, {"architecture": "b", "ms": 2}]
    things = {CELLS[0]: CELLS[0], "b": (nn.Linear(4, 3), torch.randn(2, 4))}
    with pytest.raises(ValueError, match="graphs of one kind"):
        FromTable(rows, things)
