"""Training beside a busy process: threads that spin while they wait, and threads that sleep.

    python benchmarks/threads.py --out benchmarks/results/threads.csv

An epoch of the recipe ``quick`` on 320 cells, in a process of its own for each setting: one thread,
two threads as OpenMP starts them, and two threads that wait passively, as the commands and examples
of the package ask for (:func:`narformer_pyg.threads.wait_passively`). Each with the machine to
itself, as far as it is, and beside one process that keeps a core busy.
"""

from __future__ import annotations

import os
import subprocess
import sys

import common

SCRIPT = """
import sys, time, dataclasses, torch
torch.set_num_threads(int(sys.argv[1]))
from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import QUICK, fit
dataset = NASBench201(target="cifar10valid_valid_acc")[:int(sys.argv[2])]
model = create_model("narformer_v2", 128, **QUICK.model)
predictor = ArchitecturePredictor(CellTokenEncoder(), model, scale=100.0)
recipe = dataclasses.replace(QUICK, epochs=4)
print(fit(predictor, dataset, recipe, device="cpu", progress=False).seconds / 4)
"""
SETTINGS = {
    "one thread": (1, {}),
    "two threads, default": (2, {}),
    "two threads, passive": (2, {"OMP_WAIT_POLICY": "PASSIVE"}),
}


def epoch_seconds(threads: int, policy: dict[str, str], num_cells: int) -> float:
    """Returns the seconds of an epoch in a new process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    paths = [str(common.PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **policy}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(threads), str(num_cells)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def main() -> None:
    """Measures all settings, in turn."""
    parser = common.create_parser(__doc__, repeats=3, threads=2)
    parser.add_argument("--num_cells", type=int, default=320, help="cells to train on (320)")
    args = common.parse_args(parser, {"repeats": 1, "num_cells": 32})
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.repeats):
        for beside in ("alone", "beside a busy process"):
            busy = None
            if beside != "alone":
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                for name, (threads, policy) in SETTINGS.items():
                    value = epoch_seconds(threads, policy, args.num_cells)
                    seconds.setdefault(name, {}).setdefault(beside, []).append(value)
                    print(f"{name:24}{beside:24}{value:8.2f} s", flush=True)
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    results = {
        name: {beside: common.summary(values) for beside, values in row.items()}
        for name, row in seconds.items()
    }
    common.write_results(args.out, {"settings": common.settings(args), "seconds": results})


if __name__ == "__main__":
    main()
