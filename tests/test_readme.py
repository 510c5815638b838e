"""The README's snippets run, and its commands are those of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from narformer_pyg.datasets import NASBench201

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_every_snippet_is_tested_here() -> None:
    assert len(SNIPPETS) == 5


def test_layer_snippet() -> None:
    namespace: dict = {}
    exec(SNIPPETS[0], namespace)
    dataset = NASBench201()
    batch = Batch.from_data_list([dataset[i] for i in range(4)])
    net = namespace["Net"](7, 16, 3)
    out = net(torch.nn.functional.one_hot(batch.op, 7).float(), batch.edge_index, batch.batch)
    assert out.shape == (4, 3)
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_predict_snippet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(SNIPPETS[1], namespace)
    assert "('cifar10_estimated_acc',) ('percent',)" in capsys.readouterr().out
    logits = namespace["network"](torch.randn(2, 3, 32, 32))
    assert logits.shape[0] == 2


def test_torch_module_snippet() -> None:
    namespace: dict = {}
    exec(SNIPPETS[2], namespace)
    assert namespace["graph"].number_of_nodes() == 4
    assert namespace["flops"] == 2 * 8 * 30 * 30 * 27
    assert namespace["parameters"] == 8 * 28


def test_timm_snippet() -> None:
    namespace: dict = {}
    exec(SNIPPETS[3], namespace)
    assert len(namespace["dataset"]) > 1_500
    assert namespace["split"].test.numel() > 50


def test_darts_snippet() -> None:
    namespace: dict = {}
    exec(SNIPPETS[4], namespace)
    assert (namespace["data"].num_nodes, namespace["data"].num_edges) == (29, 42)
    network = namespace["network"]
    auxiliary = {id(p) for p in network.auxiliary_head.parameters()}
    assert sum(p.numel() for p in network.parameters() if id(p) not in auxiliary) == 3_349_342
