from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from small_onnx import make_model

from narformer_pyg.profiling import generate, measure_models, profile_folder, read_labels
from narformer_pyg.profiling.measure import processor_name
from narformer_pyg.profiling.worker_process import WorkerProcess

onnxruntime = pytest.importorskip("onnxruntime")

QUICK: dict[str, Any] = {"seconds": 0.002, "passes": 2, "progress": False}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_labels_name_their_conditions(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "deep").mkdir(parents=True)
    onnx.save(generate("mobilenet_v3", 0), folder / "mobilenet_v3_00000.onnx")
    onnx.save(make_model(), folder / "deep" / "stored.onnx")
    measured = profile_folder(folder, tmp_path / "labels.csv", processor="mine", **QUICK)
    assert measured.failures == {}
    assert names(tmp_path) == {"models", "labels.csv"}  # the journal is gone
    labels = read_labels(tmp_path / "labels.csv")
    assert labels == measured.labels
    stored, network = labels
    assert (stored.file, network.file) == ("deep/stored.onnx", "mobilenet_v3_00000.onnx")
    assert (stored.family, stored.weights, stored.batch) == ("", "stored", 2)
    assert stored.input_shapes == "x:2x8"
    assert (network.family, network.weights, network.batch) == ("mobilenet_v3", "random", 1)
    assert network.latency_ms > stored.latency_ms > 0
    for label in labels:
        assert (label.unit, label.statistic, label.passes) == ("ms", "minimum", 2)
        assert label.runs >= 6
        assert label.pass_spread >= 0
        assert (label.provider, label.threads) == ("CPUExecutionProvider", 1)
        assert (label.precision, label.processor) == ("float32", "mine")
        assert label.onnxruntime == onnxruntime.__version__
    assert processor_name("CPUExecutionProvider").strip()


def test_bad_files_do_not_stop_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    onnx.save(make_model(), folder / "good.onnx")
    onnx.save(make_model(batch="batch"), folder / "open.onnx")
    (folder / "broken.onnx").write_bytes(b"no model")
    unknown = make_model()
    unknown.graph.node[0].op_type = "Frobnicate"
    onnx.save(unknown, folder / "unknown.onnx")
    measured = profile_folder(folder, tmp_path / "labels.csv", **QUICK)
    assert [label.file for label in measured.labels] == ["good.onnx"]
    assert list(measured.failures) == ["broken.onnx", "open.onnx", "unknown.onnx"]
    assert "missing: x [batch, 8]" in measured.failures["open.onnx"]
    assert "Frobnicate" in measured.failures["unknown.onnx"]
    assert caplog.text.count("was not measured") == 3  # once, not once per pass
    assert read_labels(tmp_path / "labels.csv") == measured.labels

    shapes = {"x": (5, 8)}
    measured = measure_models([folder / "open.onnx"], root=folder, input_shapes=shapes, **QUICK)
    (label,) = measured.labels
    assert (label.file, label.batch, label.input_shapes) == ("open.onnx", 5, "x:5x8")


def test_a_busy_machine_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    measure, times = WorkerProcess.measure, iter([1.2, 1.0, 1.4, 1.0])

    def slow(self: WorkerProcess, path: Path) -> dict[str, Any]:
        return {**measure(self, path), "latency_ms": next(times)}

    monkeypatch.setattr(WorkerProcess, "measure", slow)
    for spread, warnings in ((0.2, 0), (0.4, 1)):
        (label,) = profile_folder(tmp_path, tmp_path / "labels.csv", **QUICK).labels
        assert (label.latency_ms, label.pass_spread) == (1.0, pytest.approx(spread))
        assert caplog.text.count("1 of 1 latencies differ by more than 30%") == warnings


def test_no_label_is_an_error_and_no_table(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"at least one of 1 models to be .*\(got broken.onnx"):
        profile_folder(tmp_path, tmp_path / "labels.csv", **QUICK)
    assert names(tmp_path) == {"broken.onnx"}


def test_a_kill_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "models", tmp_path / "labels.csv"
    folder.mkdir()
    for i in range(4):
        onnx.save(make_model(batch=i + 1), folder / f"model{i}.onnx")
    script = (
        "import sys\n"
        "from narformer_pyg.profiling import profile_folder\n"
        "profile_folder(sys.argv[1], sys.argv[2], seconds=0.2, passes=2, progress=False)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder), str(out)]) as process:
        journal = tmp_path / "labels.csv.journal"
        deadline = time.monotonic() + 120
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 4:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert names(tmp_path) == {"models", "labels.csv.journal"}

    kept = journal.read_bytes().splitlines()[1:]
    assert 3 <= len(kept) < 8
    with journal.open("ab") as file:
        file.write(b'{"file": "model0.on')  # the power went in the middle of a line
    asked: list[str] = []
    measure = WorkerProcess.measure

    def spy(self: WorkerProcess, path: Path) -> dict[str, Any]:
        asked.append(path.name)
        return measure(self, path)

    monkeypatch.setattr(WorkerProcess, "measure", spy)
    measured = profile_folder(folder, out, seconds=0.2, passes=2, progress=False)
    assert len(asked) == 8 - len(kept)
    assert [label.file for label in measured.labels] == [f"model{i}.onnx" for i in range(4)]
    assert [label.batch for label in measured.labels] == [1, 2, 3, 4]
    assert names(tmp_path) == {"models", "labels.csv"}
    latencies = {label.file: label.latency_ms for label in measured.labels}
    for entry in map(json.loads, kept):  # the minimum knows the kept ones
        assert latencies[entry["file"]] <= round(entry["latency_ms"], 6)


def test_journal_forgets_models_that_changed(tmp_path: Path) -> None:
    path, journal = tmp_path / "model.onnx", tmp_path / "journal"
    settings = {"root": tmp_path, "journal": journal, **QUICK}
    onnx.save(make_model(), path)
    first = measure_models([path], **settings)
    size = journal.stat().st_size
    assert measure_models([path], **settings) == first
    assert journal.stat().st_size == size  # all of it was there
    path.write_bytes(b"no model")
    assert list(measure_models([path], **settings).failures) == ["model.onnx"]
    onnx.save(make_model(size=32), path)  # mended
    assert measure_models([path], **settings).labels[0].input_shapes == "x:2x32"


@pytest.mark.parametrize(
    "damage",
    [
        {"pass": 9}, {"pass": "first"}, {"file": ["model.onnx"]}, {"latency_ms": "fast"},
        {"latency_ms": 0.0}, {"runs": None}, {"batch": ...}, {"sha256": ...},
    ],
)  # fmt: skip
def test_damaged_journal_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    path, journal = tmp_path / "model.onnx", tmp_path / "journal"
    onnx.save(make_model(), path)
    settings: dict[str, Any] = {"root": tmp_path, "journal": journal, **QUICK}
    measure_models([path], **settings)
    header, first, *_ = journal.read_text("utf-8").splitlines()
    entry = {k: v for k, v in {**json.loads(first), **damage}.items() if v is not ...}
    journal.write_text(f"{header}\n{json.dumps(entry)}\n", "utf-8")
    before = journal.read_bytes()
    with pytest.raises(ValueError, match="to be the journal of a measurement"):
        measure_models([path], **settings)
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, r"'threads' to be a positive integer \(got 0\)"),
        ({"passes": 1.5}, r"'passes' to be a positive integer \(got 1.5\)"),
        ({"seconds": 0}, r"'seconds' to be a positive number \(got 0\)"),
        ({"seconds": float("nan")}, r"'seconds' to be a positive number \(got nan\)"),
        ({"timeout": -1.0}, r"'timeout' to be a positive number \(got -1.0\)"),
        ({"seed": -1}, r"'seed' to be between"),
        ({"provider": "Abacus"}, r"'provider' to be among .*CPUExecutionProvider.*'Abacus'"),
        ({"input_shapes": {"x": (0, 8)}}, r"'input_shapes' to be a positive integer \(got 0\)"),
        ({"input_shapes": [1, 8]}, r"'input_shapes' to map names of inputs to shapes"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=message):
        profile_folder(tmp_path, tmp_path / "labels.csv", **settings)
    assert names(tmp_path) == {"model.onnx"}


def test_files_are_checked(tmp_path: Path) -> None:
    for files in ("a.onnx", []):
        with pytest.raises(ValueError, match="'files' to be a sequence of paths"):
            measure_models(files)
    with pytest.raises(ValueError, match=r"name each model once \(got 'a.onnx' twice\)"):
        measure_models(["a.onnx", "b.onnx", "a.onnx"])
    with pytest.raises(FileNotFoundError, match=r"'folder' to be a folder"):
        profile_folder(tmp_path / "none", tmp_path / "labels.csv")
    with pytest.raises(FileNotFoundError, match=r"hold \*.onnx files"):
        profile_folder(tmp_path, tmp_path / "labels.csv")
    measured = measure_models([tmp_path / "none.onnx"], **QUICK)
    assert "none.onnx" in next(iter(measured.failures.values()))


def test_missing_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install \"narformer-pyg\[runtime\]\""):
        profile_folder(tmp_path, tmp_path / "labels.csv")
