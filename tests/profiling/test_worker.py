from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import timeit
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from small_onnx import make_model

onnxruntime = pytest.importorskip("onnxruntime")

from narformer_pyg.profiling.worker import make_inputs, measure_file  # noqa: E402
from narformer_pyg.profiling.worker_process import WorkerProcess  # noqa: E402

SETTINGS: dict[str, Any] = {
    "provider": "CPUExecutionProvider", "threads": 1, "seconds": 0.002, "input_shapes": {},
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(make_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_the_clock_is_right(path: Path) -> None:
    onnx.save(make_model(size=400, repeat=8), path)
    reply = measure_file(path, **{**SETTINGS, "seconds": 0.1})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = {"x": np.zeros((2, 400), np.float32)}
    best = min(timeit.repeat(lambda: session.run(None, x), repeat=200, number=1)) * 1e3
    assert 0.3 * best < reply["latency_ms"] < 3 * best  # loading alone takes far longer
    assert reply["runs"] >= 10


def test_weights_beside_the_file(path: Path) -> None:
    model = make_model(size=64, kind=TensorProto.DOUBLE)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (path.parent / "weights.bin").exists()
    reply = measure_file(path, **SETTINGS)
    assert (reply["weights"], reply["precision"]) == ("stored", "double")


def declared(name: str, kind: str, shape: list[int | str | None]) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=f"tensor({kind})", shape=shape)


def test_inputs() -> None:
    image = declared("image", "float16", [1, 3, "h", None])
    entries = [image, declared("ids", "int64", [4]), declared("flag", "bool", [])]
    inputs = make_inputs(entries, {"image": (1, 3, 5, 6), "other": (1,)})
    assert (inputs["image"].shape, inputs["image"].dtype) == ((1, 3, 5, 6), np.float16)
    assert inputs["image"].std() > 0
    assert (inputs["ids"].tolist(), inputs["ids"].dtype) == ([1, 1, 1, 1], np.int64)
    assert inputs["flag"].tolist() is True


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        ("float", {}, r"missing: image \[1, 3, h, \?\]\)"),
        ("float", {"image": (2, 3, 5, 6)}, r"fit the input 'image' of shape \[1, 3, h, \?\]"),
        ("float", {"image": (3, 5, 6)}, r"fit the input 'image' of shape \[1, 3, h, \?\]"),
        ("string", {}, r"'image' has the type tensor\(string\), not numbers"),
    ],
)
def test_wrong_inputs(kind: str, shapes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_inputs([declared("image", kind, [1, 3, "h", None])], shapes)


def test_worker_that_dies_is_replaced(path: Path) -> None:
    with WorkerProcess(SETTINGS, timeout=60.0) as worker:
        assert worker.measure(path)["latency_ms"] > 0
        process = worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reply = worker.measure(path)
        assert reply == {"error": "ended the measuring process (exit status -9)"}
        assert worker.measure(path)["latency_ms"] > 0
        process = worker._process
    assert process is not None
    assert process.poll() is not None  # nothing is left behind


def test_worker_that_hangs_is_ended(path: Path) -> None:
    with WorkerProcess({**SETTINGS, "seconds": 60.0}, timeout=0.5) as worker:
        start = time.monotonic()
        assert worker.measure(path) == {"error": "took more than 'timeout' (0.5 s)"}
    assert time.monotonic() - start < 40


def test_worker_that_cannot_start(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"did not start \(exit status 1\)"):
        WorkerProcess(SETTINGS, timeout=60.0).measure(path)


def test_worker_does_not_load_torch() -> None:
    script = "import narformer_pyg.profiling.worker, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; elsewhere it takes seconds")
def test_busy_worker_ends_with_its_parent(path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from narformer_pyg.profiling.worker_process import WorkerProcess\n"
        f"worker = WorkerProcess({ {**SETTINGS, 'seconds': 600.0} }, timeout=600.0)\n"
        "print(worker._start().pid, flush=True)\n"
        "worker.measure(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.exists()
        time.sleep(0.5)  # it measures by now, and no longer reads from its parent
        parent.kill()
    deadline = time.monotonic() + 10
    while worker.exists() and (worker / "stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
