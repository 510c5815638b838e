"""Seconds to build NAS-Bench-201's graphs and to predict all of them.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json

Building is timed in new processes, since the first dataset of a process reads the label table.
Prediction is that of an untrained model of the given recipe; training changes no shape.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import ArchitecturePredictor, create_model
from narformer_pyg.training import RECIPES, get_recipe
from narformer_pyg.training.report import environment, write_json

BUILD = """
import time
import narformer_pyg.datasets
start = time.perf_counter()
dataset = narformer_pyg.datasets.NASBench201()
assert len(dataset) == 15625
print(time.perf_counter() - start)
"""


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="quick", help="model size")
    parser.add_argument("--batch_size", type=int, default=512, help="graphs in a batch")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args()


def summary(seconds: list[float]) -> dict[str, float]:
    """Returns the median and the spread of repeated measurements."""
    return {
        "median": round(statistics.median(seconds), 4),
        "min": round(min(seconds), 4),
        "max": round(max(seconds), 4),
    }


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()
    torch.set_num_threads(args.threads)

    build = []
    for _ in range(args.repeats):
        done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, check=True)
        build.append(float(done.stdout))

    dataset = NASBench201()
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **get_recipe(args.recipe).model)
    predictor = ArchitecturePredictor(encoder, model)
    predictor.predict(dataset[:1024])
    predict = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        predictor.predict(dataset, batch_size=args.batch_size)
        predict.append(time.perf_counter() - start)

    results = {
        "settings": {k: v for k, v in vars(args).items() if k != "out"},
        "build_seconds": summary(build),
        "predict_seconds": summary(predict),
        "environment": environment(),
    }
    for name in ("build_seconds", "predict_seconds"):
        print(f"{name:16s} {results[name]}")
    if args.out is not None:
        write_json(args.out, results)


if __name__ == "__main__":
    main()
