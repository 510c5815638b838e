"""The measuring process as seen from the process that starts it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


class WorkerProcess:
    r"""A process that measures one model at a time and is replaced when it dies.

    .. code-block:: python

        with WorkerProcess(settings, timeout=300.0) as worker:
            worker.measure(Path("model.onnx"))  # {"latency_ms": 1.3, ...} or {"error": "..."}
    """

    def __init__(self, settings: dict[str, Any], timeout: float) -> None:
        self._settings = settings
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None

    def measure(self, path: Path) -> dict[str, Any]:
        r"""Returns the answer of the process, or :obj:`{"error": reason}` if it gave none.

        Raises:
            RuntimeError: If the process cannot even start.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        timed_out = threading.Event()

        def kill() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._timeout, kill)
        timer.start()
        try:
            process.stdin.write(json.dumps({"file": str(path)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):  # a process that dies may leave half a line
            return json.loads(line)
        status = process.wait()
        self._close()
        if timed_out.is_set():
            return {"error": f"took more than 'timeout' ({self._timeout:g} s)"}
        return {"error": f"ended the measuring process (exit status {status})"}

    def _start(self) -> subprocess.Popen[str]:
        # The child finds this package where the parent found it, installed or not.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        request = json.dumps({"parent": os.getpid(), "settings": self._settings})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "narformer_pyg.profiling.worker", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
        )
        assert self._process.stdout is not None
        # Imports take seconds on a busy machine and are not part of any model's time.
        if not self._process.stdout.readline():
            status = self._process.wait()
            self._close()
            raise RuntimeError(
                f"The measuring process did not start (exit status {status}); standard error has "
                "the reason"
            )
        return self._process

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes the pipes and waits
                pass

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()
