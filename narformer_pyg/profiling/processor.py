"""The name of the processor that a measurement ran on."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def processor_name(provider: str) -> str:
    r"""Returns the name of the processor behind an execution provider.

    Args:
        provider (str): The provider: those of CUDA and TensorRT stand for the first GPU, all
            others for the CPU.
    """
    if provider.startswith(("CUDA", "Tensorrt", "NvTensorRt")):
        # Imported here: on a CPU the name needs no torch.
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0)
    return _cpu_name()


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():  # Linux; platform.processor() is empty there, or the architecture
        for line in cpuinfo.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        done = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()
