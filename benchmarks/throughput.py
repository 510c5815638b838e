"""Seconds to build NAS-Bench-201's graphs and to predict all of them.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json

Building is timed in new processes, since the first dataset of a process reads the label table.
Prediction is that of an untrained model of the given recipe; training changes no shape.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import common

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import CELL_RECIPES, get_recipe

BUILD = """
import gc, time
import narformer_pyg.datasets
gc.collect()
gc.disable()  # as in all timings: a pass over what was imported takes 0.15 s, whenever it comes
start = time.perf_counter()
dataset = narformer_pyg.datasets.NASBench201()
assert len(dataset) == 15625
print(time.perf_counter() - start)
"""


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = common.create_parser(__doc__, repeats=5, threads=2)
    parser.add_argument("--recipe", choices=CELL_RECIPES, default="quick", help="model size")
    parser.add_argument("--batch_size", type=int, default=512, help="graphs in a batch")
    return common.parse_args(parser, {"repeats": 1})


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()

    build = []
    for _ in range(args.repeats):
        done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, check=True)
        build.append(float(done.stdout))

    dataset = NASBench201()
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **get_recipe(args.recipe).model)
    predictor = ArchitecturePredictor(encoder, model)
    predictor.predict(dataset[:1024])
    cells = dataset[:1024] if args.quick else dataset
    functions = {"predict": lambda: predictor.predict(cells, batch_size=args.batch_size)}
    predict = common.interleave(functions, args.repeats, warmup=0)["predict"]

    results = {
        "settings": common.settings(args),
        "build_seconds": common.summary(build, digits=4),
        "predict_seconds": common.summary(predict, digits=4),
    }
    for name in ("build_seconds", "predict_seconds"):
        print(f"{name:16s} {results[name]}")
    common.write_results(args.out, results)


if __name__ == "__main__":
    main()
