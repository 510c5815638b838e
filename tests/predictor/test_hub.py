from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from predictors import ARCH, small_predictor

from narformer_pyg.predictor import ArchitecturePredictor

huggingface_hub = pytest.importorskip("huggingface_hub")


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = small_predictor()
    predictor.save_pretrained(tmp_path)
    calls: list[tuple[str, Any, list[str]]] = []

    def download(repo_id: str, *, revision: Any, allow_patterns: list[str]) -> str:
        calls.append((repo_id, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for revision in (None, "v1.0"):
        loaded = ArchitecturePredictor.from_pretrained("some-one/my.predictor", revision=revision)
        assert torch.equal(loaded.predict(ARCH), predictor.predict(ARCH))
    files = ["config.json", "model.safetensors", "README.md"]
    assert calls == [("some-one/my.predictor", revision, files) for revision in (None, "v1.0")]


def test_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, predictor = "0123456789" * 4, small_predictor()
    repo = tmp_path / "models--someone--predictor"
    predictor.save_pretrained(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    loaded = ArchitecturePredictor.from_pretrained("someone/predictor")
    assert torch.equal(loaded.predict(ARCH), predictor.predict(ARCH))
    with pytest.raises(FileNotFoundError, match=r"on Hugging Face's hub .*someone/other"):
        ArchitecturePredictor.from_pretrained("someone/other")


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    small_predictor().save_pretrained("runs/predictor")
    ArchitecturePredictor.from_pretrained("runs/predictor")
    with pytest.raises(FileNotFoundError, match="'path' to be a folder"):
        ArchitecturePredictor.from_pretrained("runs/predictor", revision="main")
    with pytest.raises(ImportError, match=r'pip install "narformer-pyg\[hub\]"'):
        ArchitecturePredictor.from_pretrained("someone/predictor")
