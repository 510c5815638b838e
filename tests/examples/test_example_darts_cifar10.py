from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_examples import EXAMPLES, assert_one_paragraph_error, run

from narformer_pyg.spaces import DARTS_GENOTYPES

TRAINING = "darts_cifar10.py"
READING = "cifar10.py"
SMALL = ["--fake_data", "--batch_size=6", "--C=4", "--layers=3", "--device=cpu", "--out=run"]


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that reads CIFAR-10, made for files of 20 images."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(READING.removesuffix(".py"))
    monkeypatch.setattr(module, "IMAGES_PER_FILE", 20)
    return module


def images(k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    return rng.integers(256, size=(20, 3072), dtype=np.uint8), rng.integers(10, size=20)


def binary(k: int) -> bytes:
    x, y = images(k)
    return np.concatenate([y.astype(np.uint8)[:, None], x], axis=1).tobytes()


def python2_pickle(k: int) -> bytes:
    """A batch as Python 2 pickled it for the Python version, opcode by opcode."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    x, y = images(k)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|")
    dtype += b"NNN" + 2 * (b"J" + struct.pack("<i", -1)) + b"K\0tb"
    shape = b"K\x14M" + struct.pack("<H", 3072) + b"\x86"
    content = b"T" + struct.pack("<i", x.size) + x.tobytes()
    array += b"(K\1" + shape + dtype + b"\x89" + content + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in y.tolist()) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def python3_pickle(k: int) -> bytes:
    x, y = images(k)
    return pickle.dumps({b"data": x, b"labels": y.tolist(), b"batch_label": b"a batch"})


def write(folder: Path, make: Any, ending: str = "") -> Path:
    folder.mkdir(parents=True)
    for k in range(6):
        name = "test_batch" if k == 5 else f"data_batch_{k + 1}"
        (folder / f"{name}{ending}").write_bytes(make(k))
    return folder


def write_archive(root: Path) -> Path:
    folder = write(root / "cifar-10-batches-bin", binary, ".bin")
    archive = root / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return archive


class TestReading:
    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("version", ["binary", "archive", "python2", "python3"])
    def test_versions(
        self, cifar10: ModuleType, version: str, nested: bool, tmp_path: Path
    ) -> None:
        root = tmp_path
        if version == "archive":
            write_archive(root)
        elif version == "binary":
            folder = write(root / "cifar-10-batches-bin", binary, ".bin")
            root = root if nested else folder
        else:
            make = python2_pickle if version == "python2" else python3_pickle
            folder = write(root / "cifar-10-batches-py", make)
            root = root if nested else folder
        train, test = cifar10.load_cifar10(root)
        assert train.x.shape == (100, 3, 32, 32)
        assert train.x.dtype == torch.uint8
        assert train.y.dtype == torch.long
        x = np.concatenate([images(k)[0] for k in range(5)])
        assert torch.equal(train.x.flatten(1), torch.from_numpy(x))
        assert train.y.tolist() == [label for k in range(5) for label in images(k)[1].tolist()]
        assert torch.equal(test.x.flatten(1), torch.from_numpy(images(5)[0]))
        # An image is a plane of 1,024 for each colour.
        assert test.x[3, 1, 0, 5] == images(5)[0][3, 1024 + 5]

    def test_real_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        assert importlib.import_module("cifar10").IMAGES_PER_FILE == 10_000

    def test_code_in_pickles_is_not_run(self, cifar10: ModuleType, tmp_path: Path) -> None:
        folder = write(tmp_path / "cifar-10-batches-py", python2_pickle)
        for name in ("os\nsystem", "numpy\nload", "builtins\neval"):
            (folder / "data_batch_2").write_bytes(f"c{name}\n(S'touch here'\ntR.".encode())
            with pytest.raises(ValueError, match=rf"UnpicklingError: {name.split()[0]}.*no part"):
                cifar10.load_cifar10(tmp_path)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda k: binary(k)[:-1], r"'data_batch_1' to hold 61460 bytes \(got 61459\)"),
            (lambda k: b"", r"got 0\)"),
            (
                lambda k: b"\x0a" + binary(k)[1:],
                r"'data_batch_1' to hold classes 0 to 9 \(got",
            ),
        ],
    )
    def test_damaged_binary(
        self, cifar10: ModuleType, make: Any, message: str, tmp_path: Path
    ) -> None:
        write(tmp_path / "cifar-10-batches-bin", make, ".bin")
        with pytest.raises(ValueError, match=message):
            cifar10.load_cifar10(tmp_path)

    @pytest.mark.parametrize(
        "make",
        [
            lambda k: python3_pickle(k)[:-100],
            lambda k: b"",
            lambda k: pickle.dumps({b"data": images(k)[0]}),
            lambda k: pickle.dumps(
                {b"data": images(k)[0][:, 1:], b"labels": images(k)[1].tolist()}
            ),
        ],
    )
    def test_damaged_python(self, cifar10: ModuleType, make: Any, tmp_path: Path) -> None:
        write(tmp_path / "cifar-10-batches-py", make)
        with pytest.raises(ValueError, match=r"^Expected .*(CIFAR-10, complete|20 images)"):
            cifar10.load_cifar10(tmp_path)

    def test_missing_files(self, cifar10: ModuleType, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"'--data' to be a folder with 'cifar-10-batch"):
            cifar10.load_cifar10(tmp_path)
        folder = write(tmp_path / "cifar-10-batches-bin", binary, ".bin")
        (folder / "data_batch_4.bin").unlink()
        with pytest.raises(ValueError, match=r"complete \(got FileNotFoundError.*data_batch_4"):
            cifar10.load_cifar10(tmp_path)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
        with pytest.raises(ValueError, match=r"complete \(got ReadError"):
            cifar10.load_cifar10(tmp_path / "other")

    def test_download(
        self, cifar10: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "server").mkdir()
        archive = write_archive(tmp_path / "server")
        monkeypatch.setattr(cifar10, "URL", archive.as_uri())
        folder = tmp_path / "data"
        with pytest.raises(ValueError, match=rf"MD5 digest of .* to be {cifar10.MD5} \(got"):
            cifar10.load_cifar10(folder, may_download=True)
        assert list(folder.iterdir()) == []
        digest = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(cifar10, "MD5", digest)
        train, _ = cifar10.load_cifar10(folder, may_download=True)
        assert len(train.y) == 100
        assert [path.name for path in folder.iterdir()] == [archive.name]
        # What is there is not downloaded again.
        archive.unlink()
        cifar10.load_cifar10(folder, may_download=True)


class TestAugmentation:
    def test_normalize(self, cifar10: ModuleType) -> None:
        x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
        expected = (x[1, 2, 3, 4].item() / 255 - cifar10.MEAN[2]) / cifar10.STD[2]
        assert cifar10.normalize(x)[1, 2, 3, 4].item() == pytest.approx(expected, abs=1e-6)

    def test_crops_and_flips(self, cifar10: ModuleType) -> None:
        torch.manual_seed(0)
        x = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
        padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
        windows = {}
        for top in range(9):
            for left in range(9):
                window = padded[:, :, top : top + 32, left : left + 32]
                for flip in (False, True):
                    image = cifar10.normalize(window.flip(3) if flip else window)
                    windows[image.numpy().tobytes()] = (top, left, flip)
        drawn = cifar10.augment(x.expand(3000, -1, -1, -1), cutout=0)
        found = [windows[image.numpy().tobytes()] for image in drawn]
        assert {f[0] for f in found} == {f[1] for f in found} == set(range(9))
        flips = sum(f[2] for f in found)
        assert 1400 < flips < 1600

    def test_cutout(self, cifar10: ModuleType) -> None:
        torch.manual_seed(0)
        x = torch.full((3000, 3, 32, 32), 255, dtype=torch.uint8)
        holes = (cifar10.augment(x, cutout=16) == 0).all(dim=1)  # [3000, 32, 32]
        heights, widths = holes.any(dim=2).sum(dim=1), holes.any(dim=1).sum(dim=1)
        assert torch.equal(heights * widths, holes.sum(dim=(1, 2)))  # rectangles
        # Around a pixel at the edge, half of the square is left; around those from 8 to 24, all.
        for sizes in (heights, widths):
            assert sizes.min() == 8
            assert sizes.max() == 16
            assert 0.48 < (sizes == 16).float().mean() < 0.58  # 17 of 32
        assert not (cifar10.augment(x[:50], cutout=0)[:, :, 8:24, 8:24] == 0).any()


class TestTraining:
    def test_trains_and_logs(self, tmp_path: Path) -> None:
        done = run(TRAINING, *SMALL, "--epochs=2", "--max_steps=3", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
        rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open(encoding="utf-8")))
        assert [row["epoch"] for row in rows] == ["1", "2"]
        # The cosine at its beginning and in its middle; drop path grows to 0.2.
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.025, 0.0125])
        assert [float(row["drop_path"]) for row in rows] == [0.0, 0.1]
        assert [float(row["train_loss"]) for row in rows] == [
            entry["train_loss"] for entry in results["history"]
        ]
        assert results["settings"]["genotype"] == str(DARTS_GENOTYPES["DARTS_V2"])
        assert f"Test error {results['test_error']:.2f} %" in done.stdout
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
            "history.csv", "results.json", "training.pt",
        ]  # fmt: skip

    def test_resumed_run_ends_with_the_same_numbers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def history(folder: str) -> list[dict[str, float]]:
            content = json.loads((tmp_path / folder / "results.json").read_text("utf-8"))
            return [{k: v for k, v in row.items() if k != "seconds"} for row in content["history"]]

        def stop(path: Path, history: list[dict[str, float]]) -> None:
            if len(history) == 3:
                raise KeyboardInterrupt
            write_history(path, history)

        arguments = [*SMALL, "--epochs=3", "--max_steps=2", "--drop_path=0.5"]
        assert run(TRAINING, *arguments, cwd=tmp_path).returncode == 0
        # Interrupted when the third epoch is trained, but not written yet.
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        example = importlib.import_module(TRAINING.removesuffix(".py"))
        write_history = example.write_history
        monkeypatch.setattr(example, "write_history", stop)
        monkeypatch.setattr("sys.argv", [TRAINING, *arguments, "--out=cut"])
        with pytest.raises(KeyboardInterrupt):
            example.main()
        assert not (tmp_path / "cut" / "results.json").exists()
        done = run(TRAINING, *arguments, "--out=cut", "--resume", cwd=tmp_path)
        assert "epochs 3 to 3" in done.stdout
        assert history("cut") == history("run")

    def test_learns(self, tmp_path: Path) -> None:
        # 24 random images, without anything that keeps the network from memorising them.
        plain = ["--cutout=0", "--drop_path=0", "--auxiliary_weight=0", "--epochs=20"]
        arguments = [*SMALL, *plain, "--C=8", "--learning_rate=0.1", "--genotype=PDARTS"]
        assert run(TRAINING, *arguments, cwd=tmp_path).returncode == 0
        results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
        losses = [row["train_loss"] for row in results["history"]]
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])

    def test_second_classifier_and_clipping(self, tmp_path: Path) -> None:
        def change(*args: str) -> dict[str, torch.Tensor]:
            """What one step of plain gradient descent changes."""
            plain = ["--epochs=1", "--max_steps=1", "--momentum=0", "--weight_decay=0"]
            out = f"--out={len(list(tmp_path.iterdir()))}"
            assert run(TRAINING, *SMALL, *plain, *args, out, cwd=tmp_path).returncode == 0
            state = torch.load(tmp_path / out.removeprefix("--out=") / "training.pt")["network"]
            torch.manual_seed(0)
            network = DARTS_GENOTYPES["DARTS_V2"].to_module(C=4, layers=3, auxiliary=True)
            return {name: state[name] - p.detach() for name, p in network.named_parameters()}

        name = "auxiliary_head.classifier.bias"
        free = change("--grad_clip=1e9")
        # The gradient of the second classifier is proportional to the weight of its loss.
        double = change("--grad_clip=1e9", "--auxiliary_weight=0.8")
        torch.testing.assert_close(double[name], 2 * free[name])
        clipped = change("--grad_clip=0.01")
        norm = torch.cat([value.flatten() for value in clipped.values()]).norm()
        assert norm.item() == pytest.approx(0.025 * 0.01, rel=1e-3)
        ratio = norm / torch.cat([value.flatten() for value in free.values()]).norm()
        torch.testing.assert_close(clipped[name], free[name] * ratio, rtol=1e-3, atol=1e-7)

    def test_genotype_as_text_and_mixed_precision(self, tmp_path: Path) -> None:
        genotype = str(DARTS_GENOTYPES["PC_DARTS_cifar"])
        arguments = [*SMALL, "--epochs=1", "--max_steps=1", f"--genotype={genotype}"]
        done = run(TRAINING, *arguments, "--precision=bf16", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
        assert results["settings"]["genotype"] == genotype
        assert results["settings"]["precision"] == "bf16"

    def test_defaults_are_the_protocol(self, tmp_path: Path) -> None:
        done = run(TRAINING, "--help", cwd=tmp_path)
        for name, value in {
            "epochs": 600, "batch_size": 96, "C": 36, "layers": 20, "learning_rate": 0.025,
            "momentum": 0.9, "weight_decay": 0.0003, "grad_clip": 5.0, "cutout": 16,
            "auxiliary_weight": 0.4, "drop_path": 0.2,
        }.items():  # fmt: skip
            help_text = done.stdout.split(f"--{name} ")[-1].split("--")[0]
            assert f"(default: {value})" in " ".join(help_text.split()), name

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            (["--epochs=0"], ["'--epochs'", "0"]),
            (["--cutout=-1"], ["'--cutout'", "-1"]),
            (["--learning_rate=nan"], ["'--learning_rate'", "nan"]),
            (["--grad_clip=0"], ["'--grad_clip'", "0"]),
            (["--weight_decay=-1"], ["'--weight_decay'", "-1"]),
            (["--drop_path=1"], ["'--drop_path'", "[0, 1)"]),
            (["--layers=0"], ["'layers'", "0"]),
            (["--threads=0"], ["'--threads'", "0"]),
            (["--seed=-1"], ["'--seed'", "-1"]),
            (["--device=tpu"], ["'device'", "tpu"]),
            (["--precision=16"], ["'--precision 16'", "GPU"]),
            (["--genotype=NASNet"], ["'text'", "Genotype(normal=", "NASNet"]),
            (["--data=."], ["either '--data'", "both"]),
            (["--no-fake_data"], ["either '--data'", "neither"]),
            (["--no-fake_data", "--data=."], ["'cifar-10-batches-bin'", "--download"]),
            (["--out=file/run"], ["file"]),
            (["--out=earlier"], ["'--out'", "earlier run", "'--resume'"]),
            (["--out=earlier", "--resume"], ["'--out'", "training.pt"]),
        ],
    )
    def test_errors(self, args: list[str], expected: list[str], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "earlier").mkdir()
        (tmp_path / "earlier" / "training.pt").write_bytes(b"no checkpoint")
        assert_one_paragraph_error(run(TRAINING, *SMALL, *args, cwd=tmp_path), *expected)

    def test_resuming_with_other_arguments(self, tmp_path: Path) -> None:
        arguments = [*SMALL, "--epochs=1", "--max_steps=1"]
        assert run(TRAINING, *arguments, cwd=tmp_path).returncode == 0
        done = run(TRAINING, *arguments, "--resume", "--momentum=0.5", cwd=tmp_path)
        assert_one_paragraph_error(done, "'--resume'", "momentum: 0.9 there, 0.5 here")
        state = torch.load(io.BytesIO((tmp_path / "run" / "training.pt").read_bytes()))
        assert len(state["history"]) == 1
