from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

onnxruntime = pytest.importorskip("onnxruntime")

from narformer_pyg.profiling import (  # noqa: E402
    generate,
    measure_models,
    profile_folder,
    read_labels,
)
from narformer_pyg.profiling.command import add_arguments, run  # noqa: E402
from narformer_pyg.profiling.worker import make_inputs, measure_file  # noqa: E402
from narformer_pyg.profiling.worker_process import WorkerProcess  # noqa: E402

QUICK: dict[str, Any] = {"seconds": 0.002, "passes": 2, "progress": False}
SETTINGS: dict[str, Any] = {
    "provider": "CPUExecutionProvider",
    "threads": 1,
    "seconds": 0.002,
    "input_shapes": {},
}


def make_model(
    batch: int | str = 2, size: int = 8, kind: int = TensorProto.FLOAT, repeat: int = 1
) -> ModelProto:
    """A product with a square matrix, repeated."""
    x = helper.make_tensor_value_info("x", kind, [batch, size])
    y = helper.make_tensor_value_info("y", kind, [batch, size])
    names = ["x", *(f"h{i}" for i in range(repeat - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(repeat)]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = numpy_helper.from_array(np.ones((size, size), dtype) / size, "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_labels_say_how_they_came_about(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    onnx.save(generate("mobilenet_v3", 0), folder / "mobilenet_v3_00000.onnx")
    (folder / "deep").mkdir()
    onnx.save(make_model(), folder / "deep" / "stored.onnx")
    measured = profile_folder(folder, tmp_path / "labels.csv", processor="mine", **QUICK)
    assert measured.failures == {}
    assert names(tmp_path) == {"models", "labels.csv"}  # the journal is gone
    labels = read_labels(tmp_path / "labels.csv")
    assert labels == measured.labels
    stored, network = labels
    assert stored.file == "deep/stored.onnx"
    assert (stored.family, stored.weights, stored.batch) == ("", "stored", 2)
    assert stored.input_shapes == "x:2x8"
    assert network.file == "mobilenet_v3_00000.onnx"
    assert (network.family, network.weights, network.batch) == ("mobilenet_v3", "random", 1)
    assert network.latency_ms > stored.latency_ms > 0
    for label in labels:
        assert (label.unit, label.statistic, label.passes) == ("ms", "minimum", 2)
        assert label.runs >= 6
        assert label.pass_spread >= 0
        assert label.precision == "float32"
        assert (label.provider, label.threads) == ("CPUExecutionProvider", 1)
        assert label.onnxruntime == onnxruntime.__version__
        assert label.processor == "mine"


def test_the_clock_is_right(tmp_path: Path) -> None:
    onnx.save(make_model(size=400, repeat=8), tmp_path / "model.onnx")
    reply = measure_file(tmp_path / "model.onnx", **{**SETTINGS, "seconds": 0.1})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    x = np.zeros((2, 400), np.float32)
    session.run(None, {"x": x})
    best = min(_seconds(session, x) for _ in range(200)) * 1e3
    assert 0.3 * best < reply["latency_ms"] < 3 * best  # loading alone takes far longer
    assert reply["runs"] >= 10


def _seconds(session: Any, x: np.ndarray) -> float:
    start = time.perf_counter()
    session.run(None, {"x": x})
    return time.perf_counter() - start


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
    assert "'input_shapes'" in measured.failures["open.onnx"]
    assert "missing: x [batch, 8]" in measured.failures["open.onnx"]
    assert "Frobnicate" in measured.failures["unknown.onnx"]
    assert caplog.text.count("was not measured") == 3  # once, not once per pass
    assert [label.file for label in read_labels(tmp_path / "labels.csv")] == ["good.onnx"]

    shapes = {"x": (5, 8)}
    measured = measure_models([folder / "open.onnx"], root=folder, input_shapes=shapes, **QUICK)
    (label,) = measured.labels
    assert (label.file, label.batch, label.input_shapes) == ("open.onnx", 5, "x:5x8")


@pytest.mark.parametrize(("slow_pass_ms", "warns"), [(1.2, False), (1.4, True)])
def test_a_busy_machine_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    slow_pass_ms: float,
    warns: bool,
) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    measure, times = WorkerProcess.measure, iter([slow_pass_ms, 1.0])

    def slow(self: WorkerProcess, path: Path) -> dict[str, Any]:
        return {**measure(self, path), "latency_ms": next(times)}

    monkeypatch.setattr(WorkerProcess, "measure", slow)
    (label,) = profile_folder(tmp_path, tmp_path / "labels.csv", **QUICK).labels
    assert (label.latency_ms, label.pass_spread) == (1.0, pytest.approx(slow_pass_ms - 1))
    assert ("the machine is busy" in caplog.text) == warns


def test_nothing_measured_is_an_error_and_no_table(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(
        ValueError, match=r"at least one of 1 models to be measured \(got broken.onnx"
    ):
        profile_folder(tmp_path, tmp_path / "labels.csv", **QUICK)
    assert names(tmp_path) == {"broken.onnx"}


def test_a_kill_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for i in range(4):
        onnx.save(make_model(batch=i + 1), folder / f"model{i}.onnx")
    out = tmp_path / "labels.csv"
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
    times = {(e["file"], e["latency_ms"]) for e in map(json.loads, kept)}
    for file, latency in times:
        (label,) = (label for label in measured.labels if label.file == file)
        assert label.latency_ms <= round(latency, 6)  # the minimum knows what was kept


def test_journal_forgets_models_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(make_model(), path)
    journal = tmp_path / "journal"
    settings = {"root": tmp_path, "journal": journal, **QUICK}
    first = measure_models([path], **settings)
    size = journal.stat().st_size
    assert measure_models([path], **settings) == first
    assert journal.stat().st_size == size  # all of it was there
    onnx.save(make_model(size=16), path)
    assert measure_models([path], **settings).labels[0].input_shapes == "x:2x16"
    path.write_bytes(b"no model")
    assert list(measure_models([path], **settings).failures) == ["model.onnx"]
    onnx.save(make_model(size=32), path)  # mended
    assert measure_models([path], **settings).labels[0].input_shapes == "x:2x32"


@pytest.mark.parametrize(
    "entry", [{}, {"file": "model.onnx", "pass": 0, "sha256": ""}, {"pass": 9}]
)
def test_damaged_journal_is_refused(entry: dict[str, Any], tmp_path: Path) -> None:
    path, journal = tmp_path / "model.onnx", tmp_path / "journal"
    onnx.save(make_model(), path)
    settings: dict[str, Any] = {"root": tmp_path, "journal": journal, **QUICK}
    measure_models([path], **settings)
    header, first, *_ = journal.read_text("utf-8").splitlines()
    whole = {**json.loads(first), "pass": 9}
    kept = {key: whole[key] for key in ("file", "sha256")} if len(entry) != 1 else whole
    journal.write_text(f"{header}\n{json.dumps({**kept, **entry} if entry else {})}\n", "utf-8")
    if entry.get("sha256") == "":  # of a file that has changed: measured again
        assert len(measure_models([path], **settings).labels) == 1
        return
    with pytest.raises(ValueError, match="journal of a measurement"):
        measure_models([path], **settings)


def test_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    with WorkerProcess(SETTINGS, timeout=60.0) as worker:
        assert worker.measure(tmp_path / "model.onnx")["latency_ms"] > 0
        process = worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reply = worker.measure(tmp_path / "model.onnx")
        assert reply == {"error": "ended the measuring process (exit status -9)"}
        assert worker.measure(tmp_path / "model.onnx")["latency_ms"] > 0
        process = worker._process
    assert process is not None
    assert process.poll() is not None  # nothing is left behind


def test_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    with WorkerProcess({**SETTINGS, "seconds": 60.0}, timeout=0.5) as worker:
        start = time.monotonic()
        reply = worker.measure(tmp_path / "model.onnx")
    assert reply == {"error": "took more than 'timeout' (0.5 s)"}
    assert time.monotonic() - start < 40


def test_worker_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    worker = WorkerProcess(SETTINGS, timeout=60.0)
    with pytest.raises(RuntimeError, match=r"did not start \(exit status 1\)"):
        worker.measure(tmp_path / "model.onnx")


def test_worker_does_not_load_torch() -> None:
    script = "import narformer_pyg.profiling.worker, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="others learn of it within seconds")
def test_worker_ends_with_its_parent(tmp_path: Path) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    script = (
        "import json, sys, threading\n"
        "from pathlib import Path\n"
        "from narformer_pyg.profiling.worker_process import WorkerProcess\n"
        "worker = WorkerProcess(json.loads(sys.argv[2]), timeout=600.0)\n"
        "print(worker._start().pid, flush=True)\n"
        "worker.measure(Path(sys.argv[1]))\n"
    )
    busy = json.dumps({**SETTINGS, "seconds": 600.0})
    command = [sys.executable, "-c", script, str(tmp_path / "model.onnx"), busy]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.exists()
        time.sleep(0.5)  # it measures by now, and reads no more from its parent
        parent.kill()
    deadline = time.monotonic() + 10
    while worker.exists() and (worker / "stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Declared:
    def __init__(self, name: str, kind: str, shape: list[int | str | None]) -> None:
        self.name, self.type, self.shape = name, kind, shape


def test_inputs() -> None:
    declared = [
        Declared("image", "tensor(float16)", [1, 3, "h", None]),
        Declared("ids", "tensor(int64)", [4]),
        Declared("flag", "tensor(bool)", []),
    ]
    inputs = make_inputs(declared, {"image": (1, 3, 5, 6), "other": (1,)})
    assert inputs["image"].shape == (1, 3, 5, 6)
    assert inputs["image"].dtype == np.float16
    assert inputs["image"].std() > 0
    assert inputs["ids"].tolist() == [1, 1, 1, 1]
    assert inputs["ids"].dtype == np.int64
    assert inputs["flag"].tolist() is True
    with pytest.raises(ValueError, match=r"missing: image \[1, 3, h, \?\]\)"):
        make_inputs(declared, {})
    for shape in ((2, 3, 5, 6), (3, 5, 6)):
        with pytest.raises(ValueError, match=r"fit the input 'image' of shape \[1, 3, h, \?\]"):
            make_inputs(declared, {"image": shape})
    with pytest.raises(ValueError, match=r"'s' has the type seq\(tensor\(float\)\), not numbers"):
        make_inputs([Declared("s", "seq(tensor(float))", [1])], {})


def test_precision_is_that_of_the_weights(tmp_path: Path) -> None:
    onnx.save(make_model(kind=TensorProto.DOUBLE), tmp_path / "double.onnx")
    assert measure_file(tmp_path / "double.onnx", **SETTINGS)["precision"] == "double"


def test_weights_beside_the_file(tmp_path: Path) -> None:
    onnx.save(
        make_model(size=64),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (tmp_path / "weights.bin").exists()
    assert measure_file(tmp_path / "model.onnx", **SETTINGS)["weights"] == "stored"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, r"'threads' to be a positive integer \(got 0\)"),
        ({"passes": 1.5}, r"'passes' to be a positive integer \(got 1.5\)"),
        ({"seconds": 0}, r"'seconds' to be a positive number \(got 0\)"),
        ({"seconds": float("nan")}, r"'seconds' to be a positive number \(got nan\)"),
        ({"timeout": -1.0}, r"'timeout' to be a positive number \(got -1.0\)"),
        ({"seed": -1}, r"'seed' to be between"),
        ({"provider": "Abacus"}, r"'provider' to be a provider .*CPUExecutionProvider.*'Abacus'"),
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
    with pytest.raises(ValueError, match=r"'files' to be a sequence of paths \(got 'a.onnx'\)"):
        measure_models("a.onnx")
    with pytest.raises(ValueError, match=r"name each model once \(got 'a.onnx' twice\)"):
        measure_models(["a.onnx", "b.onnx", "a.onnx"])
    with pytest.raises(ValueError, match=r"'files' to be a sequence of paths \(got \[\]\)"):
        measure_models([])
    with pytest.raises(FileNotFoundError, match=r"'folder' to be a folder"):
        profile_folder(tmp_path / "none", tmp_path / "labels.csv")
    with pytest.raises(FileNotFoundError, match=r"hold \*.onnx files"):
        profile_folder(tmp_path, tmp_path / "labels.csv")
    measured = measure_models([tmp_path / "none.onnx"], **QUICK)
    assert "none.onnx" in next(iter(measured.failures.values()))


def test_missing_runtime_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install \"narformer-pyg\[runtime\]\""):
        profile_folder(tmp_path, tmp_path / "labels.csv")


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(args)


def test_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder, out = tmp_path / "models", tmp_path / "labels.csv"
    folder.mkdir()
    onnx.save(make_model(batch="n"), folder / "open.onnx")
    quick = ("-o", str(out), "--seconds", "0.002", "--passes", "1", "--no-progress")
    assert run(parse(str(folder), *quick, "--input_shape", "x=7,8", "--threads", "2")) == 0
    (label,) = read_labels(out)
    assert (label.input_shapes, label.threads, label.passes) == ("x:7x8", 2, 1)
    assert f"Wrote 1 latencies (ms) to {out}" in caplog.text
    (folder / "broken.onnx").write_bytes(b"no model")
    assert run(parse(str(folder), *quick, "--input_shape", "x=7,8")) == 1
    assert "1 model(s) could not be measured:\n" in caplog.text
    assert caplog.messages[-1].startswith("  broken.onnx: ")


@pytest.mark.parametrize("text", ["x", "x=", "=1,2", "x=1,a", "x=0,1"])
def test_command_refuses_shapes(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("folder", "-o", "labels.csv", "--input_shape", text)
    assert (
        f"expected NAME=D0,D1,... as in input=1,3,224,224 (got {text!r})" in capsys.readouterr().err
    )
