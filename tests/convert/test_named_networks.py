from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from narformer_pyg.cli import main
from narformer_pyg.convert import is_named, named_network, named_networks, to_data
from narformer_pyg.errors import ConversionError


def small() -> nn.Module:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    module.pretrained_cfg = {"input_size": (3, 8, 8)}
    return module


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in of timm with one network."""
    timm: Any = ModuleType("timm")
    timm.__version__ = "1.0"
    timm.is_model = lambda name: name == "small"
    timm.list_models = lambda pattern: ["small"]
    timm.create_model = lambda name, pretrained: small()
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


def test_timm(library: ModuleType, capsys: pytest.CaptureFixture) -> None:
    assert is_named("timm:small")
    assert not is_named("small.onnx")
    module, (example,) = named_network("timm:small", batch_size=2)
    assert example.shape == (2, 3, 8, 8)
    assert all(weight.is_meta for weight in module.parameters())
    assert to_data("timm:small").static[0, 2] == 112 + 8
    arguments = ["convert", "timm:small", "--batch_size", "4"]
    assert main(arguments) == 0
    assert "Conv 1, BatchNormalization 1, Flatten 1" in capsys.readouterr().out
    assert main([*arguments, "--fold_batch_norm", "--input_shape", "x=1,3,16,16"]) == 0
    out = capsys.readouterr().out
    assert "Conv 1, Flatten 1" in out
    assert "[1, 3, 16, 16]" in out


def test_torchvision_of_another_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: ModuleType
) -> None:
    """As beside a CPU build of torch: only the schemas of its operators let it be imported."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\ntry:\n    torch.ops.torchvision.nms\nexcept AttributeError:\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n",
        "utf-8",
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(named_networks, "_SCHEMAS", [])
    assert to_data("timm:small").num_nodes == 4
    assert "torchvision" in sys.modules
    assert len(named_networks._SCHEMAS) == 1
    monkeypatch.delitem(sys.modules, "torchvision")


def test_networks_that_compute_while_they_are_built(library: Any) -> None:
    def create(name: str, pretrained: bool) -> nn.Module:
        torch.linspace(0, 1, 3).tolist()
        return small()

    library.create_model = create
    module, _ = named_network("timm:small")
    assert not next(module.parameters()).is_meta


def test_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(nn.Module):
        main_input_name = "input_ids"

        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config = config
            self.tokens = nn.Embedding(10, 4)

        def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"last_hidden_state": self.tokens(input_ids)}

    class Configurations:
        @staticmethod
        def from_pretrained(path: str, trust_remote_code: bool) -> Any:
            assert trust_remote_code is False
            content = json.loads((Path(path) / "config.json").read_text("utf-8"))
            if "auto_map" in content:
                raise ValueError("contains custom code")
            return SimpleNamespace(**content)

    transformers: Any = ModuleType("transformers")
    transformers.AutoConfig, transformers.Model = Configurations, Model
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architectures": ["Model"], "pad_token_id": 0}), "utf-8")
    _, inputs = named_network(f"hf:{config}", batch_size=3)
    assert {name: list(value.shape) for name, value in inputs.items()} == {"input_ids": [3, 128]}
    assert to_data(f"hf:{tmp_path}").num_nodes == 2
    config.write_text(json.dumps({"auto_map": {}}), "utf-8")
    with pytest.raises(ConversionError, match=r"without code from the hub .*custom code"):
        named_network(f"hf:{tmp_path}")


def test_wrong_names(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConversionError, match=r"timm 1.0 \(got 'other'; near: small\)"):
        named_network("timm:other")
    with pytest.raises(ConversionError, match="timm:NAME or torchvision:NAME or hf:NAME"):
        named_network("keras:small")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match='"pip install timm"'):
        named_network("timm:small")
