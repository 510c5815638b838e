from __future__ import annotations

import os
import subprocess
import sys

import pytest

# A megabyte is above the limit for blocks of their own, which are given back when freed.
LIMITS = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
SCRIPT = """
import resource, sys, torch
from narformer_pyg.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def step():
    blocks = [torch.ones(1 << 18) for _ in range(64)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print((faults() - before) // 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_freed_memory_is_kept() -> None:
    faults = {}
    for what in ("keep", "default"):
        command = [sys.executable, "-c", SCRIPT, what]
        env = {**os.environ, **LIMITS}  # else the limits adapt, sooner or later
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        faults[what] = int(done.stdout)
    assert faults["default"] > 1000  # 64 MB have 16,384 pages of 4 KB
    assert faults["keep"] < 100


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    from narformer_pyg.training.memory import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
