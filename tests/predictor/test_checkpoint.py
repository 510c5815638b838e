from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from predictors import ARCH, small_predictor
from safetensors.torch import load_file, save_file

from narformer_pyg import __version__
from narformer_pyg.errors import CheckpointError
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor, checkpoint

FILES = ["README.md", "config.json", "model.safetensors"]
load = ArchitecturePredictor.from_pretrained


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edits a configuration as a user may, who deletes the line with its hash."""
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    del config["config_sha256"]
    change(config)
    file.write_text(json.dumps(config), "utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Replaces weights as an attacker may, who makes the hashes fit."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    digest = checkpoint.hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder, lambda config: config.update(weights_sha256=digest))


class TestRoundTrip:
    def test_everything(self, tmp_path: Path) -> None:
        metadata = {"recipe": "quick", "metrics": {"tau": 0.9}, "devices": ["a", "b"], "n": None}
        predictor = small_predictor(
            [93.7, 0.25],
            num_targets=2,
            target_names=["accuracy", "latency"],
            units=["percent", "ms"],
            space="nasbench201",
            metadata=metadata,
            model={"normalize": False, "undirected": False},
        )
        folder = predictor.save_pretrained(str(tmp_path / "new" / "folder"))
        assert folder == tmp_path / "new" / "folder"
        assert sorted(file.name for file in folder.iterdir()) == FILES
        loaded = load(folder)
        for name in ("target_names", "units", "space", "metadata", "conventions"):
            assert getattr(loaded, name) == getattr(predictor, name)
        assert loaded.token_encoder.config == predictor.token_encoder.config
        assert loaded.model.config == predictor.model.config
        assert not loaded.training
        state = loaded.state_dict()
        assert state.keys() == predictor.state_dict().keys()
        assert all(torch.equal(w, state[k]) for k, w in predictor.state_dict().items())
        assert {"scale", "calibration.knots", "calibration.slopes"} < state.keys()
        assert torch.equal(loaded.predict(ARCH), predictor.predict(ARCH))

    def test_config_is_readable(self, tmp_path: Path) -> None:
        small_predictor(units=["ms"]).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text("utf-8"))
        assert config["package_version"] == __version__
        assert config["model"]["name"] == "narformer_v2"
        edit(tmp_path, lambda config: config.update(units=["s"]))
        assert load(tmp_path).units == ("s",)


class TestModelCard:
    def test_content(self, tmp_path: Path) -> None:
        yaml = pytest.importorskip("yaml")
        metadata = {
            "license": "mit",
            "description": "Latency on a phone.",
            "device": "Pixel 3: cpu\nbig cores",
            "metrics": {"MAPE": "4 %"},
        }
        predictor = small_predictor(2.5, target_names=["a|b"], units=["ms"], metadata=metadata)
        card = (predictor.save_pretrained(tmp_path / "phone") / "README.md").read_text("utf-8")
        _, front, text = card.split("---\n", 2)
        assert yaml.safe_load(front)["license"] == "mit"
        assert yaml.safe_load(front)["library_name"] == "narformer_pyg"
        for part in (
            "# phone\n\nLatency on a phone.",
            r"| a\|b | ms | 2.5 |",
            "| device | Pixel 3: cpu big cores |",
            "| MAPE | 4 % |",
            'from_pretrained("phone")',
        ):
            assert part in text
        assert "device: Pixel 3" in repr(predictor)

    @pytest.mark.parametrize("metadata", [{"x": {1, 2}}, {"x": float("nan")}, [1], "text"])
    def test_metadata_is_json(self, metadata: Any) -> None:
        with pytest.raises(ValueError, match="'metadata' to be a dictionary of JSON values"):
            small_predictor(metadata=metadata)


OUTSIDE = """
import sys, torch
from narformer_pyg.nn import CellTokenEncoder, register_encoder, register_readout
from narformer_pyg.nn.models import GraphRegressor, create_model, register_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces import NASBench201Cell

@register_encoder("mine")
class Encoder(CellTokenEncoder):
    def __init__(self, name, factor=1.0):
        super().__init__(7, 8, 2)
        self.config = {"name": name, "factor": factor}
        self.factor = factor
    out_channels = 8
    def forward(self, data):
        return self.factor * super().forward(data)

@register_readout("first")
class First(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
    def forward(self, states, batch, num_graphs):
        return states[-1].new_zeros(num_graphs, 6).index_copy(0, batch.flip(0), states[-1].flip(0))

@register_model("deep-set")
class DeepSet(GraphRegressor):
    def __init__(self, in_channels, width=4, out_channels=1):
        super().__init__(in_channels, width, 1, out_channels, "first", 0, 0.0, True)
        self.config = {"in_channels": in_channels, "width": width, "out_channels": out_channels}
        self.lin = torch.nn.Linear(in_channels, width)
    def encode(self, x, edge_index):
        return [self.lin(x).relu()]

folder, task = sys.argv[1:]
cell = NASBench201Cell.from_index(77)
if task == "save":
    torch.manual_seed(0)
    model = create_model("deep-set", 8, width=6, out_channels=2)
    predictor = ArchitecturePredictor(Encoder("x", factor=0.5), model, scale=[2.0, 3.0]).eval()
    predictor.save_pretrained(folder)
else:
    predictor = ArchitecturePredictor.from_pretrained(folder)
    assert type(predictor.model) is DeepSet and predictor.token_encoder.factor == 0.5
print(predictor.predict(cell).tolist())
"""


class TestRegisteredClasses:
    def test_from_outside_of_the_package(self, tmp_path: Path) -> None:
        out = []
        for task in ("save", "load"):
            command = [sys.executable, "-c", OUTSIDE, str(tmp_path), task]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            out.append(done.stdout)
        assert out[0] == out[1]
        with pytest.raises(CheckpointError, match=r"'token_encoder' to be among .*\(got 'mine'\)"):
            load(tmp_path)

    def test_unregistered(self, tmp_path: Path) -> None:
        class Other(CellTokenEncoder):
            pass

        class Mine(ArchitecturePredictor):
            pass

        model = create_model("gcn", 128, hidden_channels=8)
        for predictor in (ArchitecturePredictor(Other(), model), Mine(CellTokenEncoder(), model)):
            with pytest.raises(ValueError, match=r"to be of a registered class \(got (Other|Mine)"):
                predictor.save_pretrained(tmp_path / "folder")
        assert list(tmp_path.iterdir()) == []


class TouchWhenLoaded:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class TestDamage:
    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        marker = tmp_path / "executed"
        for name in FILES[1:]:
            small_predictor().save_pretrained(tmp_path)
            (tmp_path / name).write_bytes(pickle.dumps(TouchWhenLoaded(marker)))
            with pytest.raises(CheckpointError, match="Cannot read 'path'"):
                load(tmp_path)
            torch.save(TouchWhenLoaded(marker), tmp_path / name)
            with pytest.raises(CheckpointError, match="Cannot read 'path'"):
                load(tmp_path)
        assert not marker.exists()

    @pytest.mark.parametrize("name", FILES[1:])
    def test_truncated_and_foreign_content(self, name: str, tmp_path: Path) -> None:
        small_predictor().save_pretrained(tmp_path)
        file = tmp_path / name
        content = file.read_bytes()
        damaged = [content[: len(content) * k // 9] for k in range(9)] + [content[:-2]]
        damaged += [b"some text\n", b"PK\x03\x04", os.urandom(300), b"[" * 100_000]
        damaged += [b"[1, 2]", b"{}", b'{"format": "other"}', b"NaN"]
        for content in damaged:
            file.write_bytes(content)
            with pytest.raises(CheckpointError, match="'path'"):
                load(tmp_path)

    @pytest.mark.parametrize("name", FILES[1:])
    def test_flipped_bits(self, name: str, tmp_path: Path) -> None:
        small_predictor(metadata={"recipe": "best"}).save_pretrained(tmp_path)
        file = tmp_path / name
        content = file.read_bytes()
        generator = torch.Generator().manual_seed(0)
        for place in torch.randint(8 * len(content), (60,), generator=generator).tolist():
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            file.write_bytes(flipped)
            try:
                loaded = load(tmp_path)
            except CheckpointError:
                continue
            # A flip in white space, or in the name of the hash, changes nothing.
            old, new = json.loads(content), json.loads(flipped)
            assert all(new[key] == old[key] for key in old if key != "config_sha256")
            assert loaded.metadata == {"recipe": "best"}

    def test_missing_files(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "absent"):
            with pytest.raises(FileNotFoundError, match=r"'config\.json'"):
                load(path)
        small_predictor().save_pretrained(tmp_path)
        with pytest.raises(FileNotFoundError, match="a folder with"):
            load(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"to hold 'model\.safetensors'"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": 2}, r"version 1 or lower \(got 2 .*written by .*pip install"),
            ({"format_version": None}, r"format version 1 or lower \(got None"),
            ({"model": {}}, r"Cannot rebuild the predictor.*KeyError"),
            ({"model": None}, r"Cannot rebuild the predictor.*TypeError"),
            (
                {"model": {"name": "foo", "config": {"in_channels": 16}}},
                r"Cannot rebuild.*\(got 'foo'\)",
            ),
            ({"predictor": "foo"}, r"'predictor' to be among plain, averaged \(got 'foo'\)"),
            ({"target_names": [1]}, "'target_names' to be one text"),
            ({"target_names": None}, "'target_names' to be one text"),
            ({"units": "a"}, "'units' to be one text"),
            ({"space": 3}, "'space' to be the name"),
            ({"metadata": [1]}, "'metadata' to be a dictionary"),
            ({"weights_sha256": None}, "their SHA-256 differ"),
        ],
    )
    def test_changed_config(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        small_predictor().save_pretrained(tmp_path)
        edit(tmp_path, lambda config: config.update(change))
        with pytest.raises(CheckpointError, match=f"(?s){message}"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("part", "key", "values"),
        [
            ("model", "hidden_channels", [24, "16", 10**8, 10**30]),
            ("model", "num_blocks", [1, 10**9]),
            ("model", "surplus", [1]),
            ("token_encoder", "num_frequencies", [5]),
            ("token_encoder", "num_operations", [10**9, 2**62]),
        ],
    )
    def test_sizes_that_do_not_fit(
        self, part: str, key: str, values: list[Any], tmp_path: Path
    ) -> None:
        for value in values:
            small_predictor().save_pretrained(tmp_path)
            edit(tmp_path, lambda config, value=value: config[part]["config"].update({key: value}))
            with pytest.raises(CheckpointError, match="Cannot rebuild the predictor"):
                load(tmp_path)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("model.head.lin_1.weight", float("nan"), r"'model\.head\.lin_1\.weight' are not fin"),
            ("scale", -1.0, "'scale' to be a positive number"),
            ("scale", float("inf"), "'scale' are not finite"),
            ("calibration.slopes", -1.0, "'calibration' to have positive slopes"),
        ],
    )
    def test_impossible_weights(self, key: str, value: float, message: str, tmp_path: Path) -> None:
        small_predictor().save_pretrained(tmp_path)
        edit_weights(tmp_path, lambda state: state[key].fill_(value))
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)


class TestInterruptedSave:
    # weights, configuration, weights in their place, card
    @pytest.mark.parametrize(("last", "is_new"), [(0, False), (1, False), (2, True), (3, True)])
    def test_at_every_step(
        self, last: int, is_new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, new = small_predictor(seed=0), small_predictor(seed=1)
        assert not torch.equal(old.predict(ARCH), new.predict(ARCH))
        old.save_pretrained(tmp_path)
        replace, done = Path.replace, []

        def replace_some(self: Path, target: Path) -> Path:
            if len(done) == last:
                raise OSError(28, "No space left on device")
            done.append(target)
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace_some)
            with pytest.raises(OSError, match="No space left"):
                new.save_pretrained(tmp_path)
        expected = new if is_new else old
        assert torch.equal(load(tmp_path).predict(ARCH), expected.predict(ARCH))
        new.save_pretrained(tmp_path)
        assert sorted(file.name for file in tmp_path.iterdir()) == FILES
        assert torch.equal(load(tmp_path).predict(ARCH), new.predict(ARCH))

    def test_folder_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("text")
        with pytest.raises(OSError, match="taken"):
            small_predictor().save_pretrained(tmp_path / "taken")
        assert (tmp_path / "taken").read_text() == "text"
