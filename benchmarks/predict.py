"""Prediction: a whole search space in bounded memory, and a single cell.

    python benchmarks/predict.py --out benchmarks/results/predict.csv
    python benchmarks/predict.py --nasbench101 CODES.npz --out benchmarks/results/predict.csv

"spaces" predicts all cells of NAS-Bench-201 and, where a file with the codes of its cells is given
(arrays vertices, edge_bits and op_code, see NASBench101.from_arrays), of NAS-Bench-101, each in a
process of its own whose memory is watched. "single" splits the time of one cell of NAS-Bench-201
under the paper's model into encoding (from the arch string to node codes) and inference, as the
supplement's Table 2 does, next to the dense form of the authors, which is given its codes and its
adjacency matrix. Models are untrained; training changes no shape.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from dense import DenseNARFormerV2, dense_adjacency
from torch_geometric.data import InMemoryDataset

from narformer_pyg.convert import from_nasbench201
from narformer_pyg.datasets import NASBench101, NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces.nasbench101 import NODE_TYPES
from narformer_pyg.training import CELL_RECIPES, get_recipe

FIRST_CELL = {
    "101": "conv3x3-bn-relu~0+output~1",
    "201": "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = common.create_parser(__doc__, repeats=5, threads=2)
    parser.add_argument(
        "--nasbench101", type=Path, help="npz file with the codes of cells of NAS-Bench-101"
    )
    parser.add_argument(
        "--recipe", choices=CELL_RECIPES, default="quick", help="model of the spaces (quick)"
    )
    parser.add_argument(
        "--single_recipe", choices=CELL_RECIPES, default="paper", help="of one cell (paper)"
    )
    parser.add_argument("--batch_size", type=int, default=1024, help="cells in a batch (1024)")
    parser.add_argument("--max_cells", type=int, help="cells of a space at most (default: all)")
    parser.add_argument("--calls", type=int, default=30, help="calls in one measurement (30)")
    parser.add_argument("--device", default="cpu", help="where to predict spaces (cpu)")
    return common.parse_args(parser, {"max_cells": 200, "repeats": 2, "calls": 2})


def create_predictor(recipe: str, num_types: int) -> ArchitecturePredictor:
    """Returns an untrained predictor of cells with this many types of nodes."""
    torch.manual_seed(0)
    encoder = CellTokenEncoder(num_types)
    model = create_model("narformer_v2", encoder.out_channels, **get_recipe(recipe).model)
    return ArchitecturePredictor(encoder, model).eval()


def predict_space(
    nasbench101: str | None, recipe: str, batch_size: int, max_cells: int | None, device: str
) -> dict[str, float]:
    """Builds the graphs of a space and predicts them; returns seconds, rate and memory.

    Args:
        nasbench101: The file of codes; NAS-Bench-201 without one.
        recipe: The model.
        batch_size: Graphs in a batch.
        max_cells: The number of cells at most.
        device: Where to predict.
    """
    num_types = 7 if nasbench101 is None else len(NODE_TYPES)
    predictor = create_predictor(recipe, num_types).to(device)
    predictor.predict(FIRST_CELL["201" if nasbench101 is None else "101"])  # loads everything
    seconds: dict[str, float] = {}

    def run() -> None:
        start = time.perf_counter()
        graphs: InMemoryDataset
        if nasbench101 is None:
            graphs = NASBench201()
        else:
            with np.load(nasbench101) as file:
                codes = {key: file[key][:max_cells] for key in ("vertices", "edge_bits", "op_code")}
            graphs = NASBench101.from_arrays(**codes)
        seconds["build_seconds"] = time.perf_counter() - start
        graphs = graphs if max_cells is None else graphs[:max_cells]
        start = time.perf_counter()
        prediction = predictor.predict(graphs, batch_size=batch_size)
        seconds["predict_seconds"] = time.perf_counter() - start
        seconds["cells_per_second"] = len(prediction) / seconds["predict_seconds"]

    peak = common.peak_memory(run)
    return {"num_cells": round(seconds["cells_per_second"] * seconds["predict_seconds"]),
            **{key: float(f"{value:.5g}") for key, value in seconds.items()},
            "peak_bytes": peak}  # fmt: skip


def measure_single(recipe: str, calls: int, repeats: int) -> dict[str, Any]:
    """Times one cell, in turn by this package and in the dense form.

    Args:
        recipe: The model.
        calls: Cells in one measurement, all different.
        repeats: The measurements of each.
    """
    predictor = create_predictor(recipe, 7)
    encoder, model = predictor.token_encoder, predictor.model
    dense = DenseNARFormerV2(model).eval()
    space = NASBench201()
    archs = [str(space.cell(i)) for i in range(0, len(space), len(space) // calls)][:calls]
    graphs = [from_nasbench201(arch) for arch in archs]
    codes = [encoder(graph) for graph in graphs]
    dense_graphs = [
        [(x, dense_adjacency(graph.edge_index, len(x), True))]
        for x, graph in zip(codes, graphs, strict=True)
    ]

    @torch.no_grad()
    def encode() -> None:
        for arch in archs:
            encoder(from_nasbench201(arch))

    @torch.no_grad()
    def infer() -> None:
        for x, graph in zip(codes, graphs, strict=True):
            model(x, graph.edge_index)

    @torch.no_grad()
    def both() -> None:
        for arch in archs:
            graph = from_nasbench201(arch)
            model(encoder(graph), graph.edge_index)

    @torch.no_grad()
    def infer_dense() -> None:
        for graph in dense_graphs:
            dense(graph)

    functions = {"dense infer": infer_dense, "encode": encode, "infer": infer, "both": both}
    seconds = common.interleave(functions, repeats, warmup=2)
    each = {name: [s / calls for s in values] for name, values in seconds.items()}
    return {
        "seconds_per_cell": {name: common.summary(values) for name, values in each.items()},
        "times_as_fast_as_dense": common.ratio(each["dense infer"], each["both"]),
    }


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()
    job = {
        "recipe": args.recipe,
        "batch_size": args.batch_size,
        "max_cells": args.max_cells,
        "device": args.device,
    }
    files = {"NAS-Bench-201": None}
    if args.nasbench101 is not None:
        files["NAS-Bench-101"] = str(args.nasbench101.resolve())
    spaces = {}
    table = [["space", "cells", "cells/s", "build s", "predict s", "peak MB"]]
    for name, file in files.items():
        jobs = [{**job, "nasbench101": file}] * args.repeats
        runs = common.in_fresh_processes("predict", "predict_space", jobs, args.threads)
        if None in runs:
            raise SystemExit(f"Expected the prediction of {name} to end (got a process that died)")
        spaces[name] = {key: common.summary([run[key] for run in runs]) for key in runs[0]}
        summary = spaces[name]
        table.append(
            [
                name,
                f"{runs[0]['num_cells']:,}",
                common.format_spread(summary["cells_per_second"], digits=0),
                common.format_spread(summary["build_seconds"], digits=3),
                common.format_spread(summary["predict_seconds"]),
                common.format_spread(summary["peak_bytes"], 2**-20, 0),
            ]
        )
    print(common.format_table(table))

    single = measure_single(args.single_recipe, args.calls, args.repeats)
    rows = [["one cell", "ms"]]
    for name, values in single["seconds_per_cell"].items():
        rows.append([name, common.format_spread(values, 1e3, 3)])
    print()
    print(common.format_table(rows))
    print()
    ratio = common.format_ratio(single["times_as_fast_as_dense"])
    print(f"one cell, encode and infer, against the dense form: {ratio}")
    settings = {**common.settings(args), "nasbench101": args.nasbench101 is not None}
    common.write_results(args.out, {"settings": settings, "spaces": spaces, "single": single})


if __name__ == "__main__":
    main()
