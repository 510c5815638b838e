"""A GPU: steps, the layer, trainings and predictions, in under four minutes.

    python benchmarks/gpu.py --out benchmarks/results/gpu.csv
    python benchmarks/gpu.py --sections trainings --paper_epochs 1000    # the whole training

Sections:

- "steps": a training step and inference of the cases of ``train_step.py``: the authors' loop over
  graphs with dense matrices ("dense"), this package operation by operation ("eager") and as one
  CUDA graph ("captured"), in float32, TF32 and bfloat16; and how long the GPU computes of a step;
- "layer": forward and backward pass of the layer next to PyG's, and the memory they take;
- "trainings": ``narformer train`` as a process of its own, and epochs of the paper's recipe;
- "predictions": all cells of NAS-Bench-201, and as many cells of NAS-Bench-101 as it has;
- "compiled": a step and inference with ``torch.compile`` before the capture.

A row is written as soon as it is measured. What fails prints its traceback and costs its own rows
only. Times are medians of wall time; a measurement queues many calls and waits for the last.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np
import torch
from dense import DenseNARFormerV2, split_graphs
from layer import PYG_LAYERS
from torch import Tensor
from train_step import Case, cells, networks

from narformer_pyg._cuda_graphs import RecordedCalls
from narformer_pyg.datasets import NASBench101, NASBench201
from narformer_pyg.nn import CellTokenEncoder, GraphAidedAttentionConv, RelativeMSELoss, kernels
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces.nasbench101 import NODE_TYPES, all_edge_bits
from narformer_pyg.training import fit, get_recipe
from narformer_pyg.training.report import environment

PRECISIONS = {
    "float32": ("highest", None),
    "TF32": ("high", None),
    "bf16": ("high", torch.bfloat16),
}
FULL = {
    "cases": ["cells 1", "cells 16", "cells 128", "cells 1024", "networks 16", "networks 128"],
    "layer_sizes": [(10**3, 512), (10**4, 512), (10**5, 512), (10**6, 64)],
    "hidden_channels": 512, "nasbench101_cells": 423_624, "nasbench201_cells": 15_625,
    "train_size": 781, "repeats": 5, "min_seconds": 0.03,
}  # fmt: skip
QUICK = {
    "cases": ["cells 2", "networks 2"], "layer_sizes": [(20, 8)], "hidden_channels": 16,
    "nasbench101_cells": 50, "nasbench201_cells": 50, "train_size": 16, "repeats": 1,
    "min_seconds": 0.0,
}  # fmt: skip
DENSE_CASES = ("cells 1", "cells 16", "cells 128", "cells 2", "networks 16")
COMPILED_CASES = ("cells 128", "cells 16", "networks 16", "cells 2")


class Bench:
    """Sizes, device and the file of results.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.sizes = args, QUICK if args.quick else FULL
        self.device = torch.device(args.device)
        self.facts = environment()
        self.where = self.facts["gpu"] if self.device.type == "cuda" else self.facts["processor"]

    def record(self, section: str, case: str, form: str, **figures: Any) -> None:
        """Prints and writes a row."""
        shown = "  ".join(f"{name} {value:.5g}" for name, value in figures.items())
        print(f"{section:12}{case:34}{form:30}{shown}", flush=True)
        if self.args.out is not None:
            content = {"where": self.where, "section": section, "case": case, "form": form}
            key = ", ".join(map(str, content.values()))
            content |= {**figures, "quick": self.args.quick, "environment": self.facts}
            common.write_row(self.args.out, key, content)

    def wait(self) -> None:
        """Waits for a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object], repeats: int | None = None) -> float:
        """Returns the median time of a call, of many that are queued."""
        for _ in range(2):
            function()
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        once = time.perf_counter() - start
        calls = max(1, round(self.sizes["min_seconds"] / once))
        times = []
        for _ in range(repeats or self.sizes["repeats"]):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            self.wait()
            times.append((time.perf_counter() - start) / calls)
        return median(times)

    def peak_bytes(self, function: Callable[[], object]) -> float:
        """Returns the bytes that a call allocates on the GPU at most, above those held before."""
        if self.device.type != "cuda":
            return float("nan")
        self.wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        self.wait()
        return float(torch.cuda.max_memory_allocated() - before)


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """Prints the traceback of what fails inside, and goes on behind it."""
    try:
        yield
    except Exception:
        print(f"{what} failed:", flush=True)
        traceback.print_exc()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def precision_of(name: str, device: torch.device) -> Iterator[None]:
    """Computes in float32, TF32 or bfloat16."""
    products, dtype = PRECISIONS[name]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(products)
    try:
        with torch.autocast(device.type, dtype, dtype is not None, cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


# ---------------------------------------------------------------------------------------- steps


def build(name: str, bench: Bench) -> Case:
    """Returns a model and a batch."""
    kind, number = name.split()
    make = {"cells": cells, "networks": networks}[kind]
    return make(int(number), bench.sizes["hidden_channels"], str(bench.device))


def passes(
    case: Case, device: torch.device, precision: str, model: Any = None, graphs: Any = None
) -> dict[str, Callable[[], None]]:
    """Returns a training step and an inference as functions of nothing."""
    batch, loss = case.batch, RelativeMSELoss()
    model = case.model if model is None else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-6, fused=True, capturable=device.type == "cuda"
    )

    def predict() -> Tensor:
        if graphs is not None:
            return model(graphs, case.static)
        # A copy, since edges that were seen before are not sorted again.
        edges = batch.edge_index.clone()
        return model(batch.x, edges, batch.batch, case.static, batch.num_graphs)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        with precision_of(precision, device):
            loss(predict().float(), batch.y).backward()
        optimizer.step()

    @torch.no_grad()
    def infer() -> None:
        model.eval()
        with precision_of(precision, device):
            predict()

    step()  # the optimizer allocates its state
    return {"training step": step, "inference": infer}


def recorded(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Returns a function as one CUDA graph."""
    calls = RecordedCalls(lambda shape: function(), device)
    return lambda: calls(0)


def steps(bench: Bench) -> None:
    """Times steps of all cases."""
    for name in bench.sizes["cases"]:
        with guarded(name):
            case = build(name, bench)
            if name in DENSE_CASES:
                graphs = split_graphs(
                    case.batch.x, case.batch.edge_index, case.batch.batch, case.batch.num_graphs
                )
                dense = DenseNARFormerV2(case.model).to(bench.device)
                for what, function in passes(case, bench.device, "float32", dense, graphs).items():
                    bench.record("steps", f"{name}, {what}", "dense float32",
                                 seconds=bench.seconds(function, 1))  # fmt: skip
            for precision in PRECISIONS:
                for what, function in passes(case, bench.device, precision).items():
                    label = f"{name}, {what}"
                    if precision != "TF32":
                        bench.record("steps", label, f"eager {precision}",
                                     seconds=bench.seconds(function))  # fmt: skip
                    with guarded(f"{label}, captured {precision}"):
                        captured = recorded(function, bench.device)
                        bench.record("steps", label, f"captured {precision}",
                                     seconds=bench.seconds(captured))  # fmt: skip
                        if precision == "TF32":
                            plain = recorded(partial(without_kernels, function), bench.device)
                            bench.record("steps", label, "captured TF32 without kernels",
                                         seconds=bench.seconds(plain))  # fmt: skip
                            if name == "cells 128":
                                busy(bench, label, captured)


def without_kernels(function: Callable[[], None]) -> None:
    """Calls a function with all kernels of the package off."""
    with kernels.enabled(False):
        function()


def busy(bench: Bench, label: str, function: Callable[[], None], calls: int = 20) -> None:
    """Measures the share of the time that the GPU computes."""
    bench.wait()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(calls):
            function()
        bench.wait()
    # Kernels overlap with nothing: a graph of one stream runs them one after another.
    events = [event for event in profile.key_averages() if event.self_device_time_total > 0]
    computing = sum(event.self_device_time_total for event in events) / 1e6 / calls
    kernel_count = sum(event.count for event in events) / calls
    wall = bench.seconds(function)
    bench.record("steps", label, "busy", seconds=wall, gpu_seconds=computing,
                 gpu_share=computing / wall, kernels=kernel_count)  # fmt: skip


def compiled(bench: Bench) -> None:
    """Times a compiled model, captured; compiling takes most of this section."""
    for name in bench.sizes["cases"]:
        if name not in COMPILED_CASES:
            continue
        with guarded(f"{name}, compiled"):
            case = build(name, bench)
            start = time.perf_counter()
            model = torch.compile(case.model, dynamic=False)
            functions = passes(case, bench.device, "TF32", model)
            bench.wait()
            bench.record("compiled", name, "compiling", seconds=time.perf_counter() - start)
            for what, function in functions.items():
                captured = recorded(function, bench.device)
                bench.record("compiled", f"{name}, {what}", "compiled TF32",
                             seconds=bench.seconds(captured))  # fmt: skip
                if name == "cells 128":
                    busy(bench, f"{name}, {what}, compiled", captured)


# ---------------------------------------------------------------------------------------- layer


def layer(bench: Bench) -> None:
    """Times the layer next to PyG's."""
    for num_nodes, width in bench.sizes["layer_sizes"]:
        for symmetric in (False, True):
            if symmetric and num_nodes != 10**5:
                continue
            torch.manual_seed(0)
            edge_index = torch.randint(num_nodes, (2, 3 * num_nodes), device=bench.device)
            if symmetric:
                edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
            kind = "symmetric" if symmetric else "directed"
            case = f"{num_nodes} nodes, {width} wide, {kind}"
            x = torch.randn(num_nodes, width, device=bench.device)
            layers: dict[str, Any] = {
                "GraphAidedAttentionConv": GraphAidedAttentionConv,
                "messages": GraphAidedAttentionConv,
                **PYG_LAYERS,
            }
            for name, make in layers.items():
                for precision in PRECISIONS:
                    with guarded(f"{case}, {name}"):
                        conv = make(width, width).to(bench.device)
                        function = partial(both_ways, conv, x, edge_index, name, precision)
                        bench.record(
                            "layer", case, f"{name} {precision}",
                            seconds=bench.seconds(function), peak_bytes=bench.peak_bytes(function),
                        )  # fmt: skip


def both_ways(
    conv: torch.nn.Module, x: Tensor, edge_index: Tensor, name: str, precision: str
) -> None:
    """Computes output and gradients of a layer."""
    x = x.detach().requires_grad_()
    with precision_of(precision, x.device), kernels.enabled(name != "messages"):
        out = conv(x, edge_index)
    torch.autograd.grad(out, [x, *conv.parameters()], torch.ones_like(out), allow_unused=True)


# ------------------------------------------------------------------------- trainings, predictions


def trainings(bench: Bench) -> None:
    """Times the main job as a process, and epochs of the paper's recipe."""
    sizes, device = bench.sizes, bench.args.device
    few = ["--epochs", "1", "--hidden_channels", "16"] if bench.args.quick else []
    variants = [("32-true", "highest"), ("bf16-mixed", "high")]
    for precision, products in variants[: 1 if bench.args.quick else 2]:
        with guarded(f"quick, {precision}"), tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [
                sys.executable, "-m", "narformer_pyg", "train", "--device", device, *few,
                "--train_size", str(sizes["train_size"]), "--precision", precision,
                "--matmul_precision", products, "--out", f"{folder}/run",
            ]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            metrics = json.loads((Path(folder) / "run" / "metrics.json").read_text())
            tested = next(iter(metrics["metrics"].values()))
            bench.record("trainings", "narformer train, quick", precision, seconds=seconds,
                         train_seconds=metrics["train_seconds"],
                         kendall_tau=tested["kendall_tau"])  # fmt: skip
    with guarded("paper"):
        torch.set_float32_matmul_precision("high")
        recipe = common_recipe("paper", bench)
        dataset = NASBench201(target="cifar10valid_valid_acc")
        split = dataset.get_split(sizes["train_size"], seed=0)
        predictor = create_predictor("narformer_v2", 7, recipe.model)
        engine = "captured" if bench.args.paper_epochs < 1000 else "auto"
        result = fit(predictor, dataset[split.train], recipe, device=device, progress=False,
                     engine=engine)  # fmt: skip
        bench.record("trainings", "paper", f"{recipe.epochs} epochs, {engine}, TF32",
                     seconds=result.seconds, seconds_per_epoch=result.seconds / recipe.epochs,
                     loss=result.history[-1]["loss"])  # fmt: skip


def common_recipe(name: str, bench: Bench) -> Any:
    """Returns a recipe with as many epochs as the command line says."""
    recipe = get_recipe(name)
    model = {**recipe.model, "hidden_channels": bench.sizes["hidden_channels"]}
    epochs = 1 if bench.args.quick else bench.args.paper_epochs
    return dataclasses.replace(recipe, epochs=epochs, model=model)


def create_predictor(name: str, num_types: int, arguments: dict[str, Any]) -> ArchitecturePredictor:
    """Returns an untrained predictor of cells."""
    torch.manual_seed(0)
    encoder = CellTokenEncoder(num_types)
    model = create_model(name, encoder.out_channels, **arguments)
    return ArchitecturePredictor(encoder, model, scale=100.0)


def predictions(bench: Bench) -> None:
    """Times the prediction of whole spaces."""
    model = get_recipe("quick").model
    number = bench.sizes["nasbench201_cells"]
    dataset = NASBench201()[:number]
    predictor = create_predictor("narformer_v2", 7, model).to(bench.device).eval()
    for batch_size in (512, 4096):
        function = partial(predictor.predict, dataset, batch_size)
        bench.record("predictions", f"{number} cells of NAS-Bench-201",
                     f"batches of {batch_size}", seconds=bench.seconds(function, 3))  # fmt: skip

    number = bench.sizes["nasbench101_cells"]
    generator = np.random.default_rng(0)
    vertices, edges = np.array(all_edge_bits()[0])[generator.integers(-1000, 0, number)].T
    space = NASBench101.from_arrays(vertices, edges, generator.integers(3**5, size=number))
    predictor = create_predictor("narformer_v2", len(NODE_TYPES), model).to(bench.device).eval()
    predictor.predict(space[:10])
    for batch_size in (1024, 8192):
        start = time.perf_counter()
        predictor.predict(space, batch_size)
        bench.record("predictions", f"{number} cells like NAS-Bench-101's",
                     f"batches of {batch_size}", seconds=time.perf_counter() - start)  # fmt: skip


SECTIONS = {
    "steps": steps,
    "trainings": trainings,
    "layer": layer,
    "predictions": predictions,
    "compiled": compiled,
}


def main() -> None:
    """Measures section after section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="cuda, or cpu to try the script")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--paper_epochs", type=int, default=30, help="of the paper's 1000 (30)")
    parser.add_argument("--out", type=Path, help="CSV file; rows of this GPU are replaced")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; not for numbers")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    bench = Bench(args)
    print(f"{bench.where}, PyTorch {torch.__version__}")
    for name in args.sections:
        start = time.perf_counter()
        with guarded(name):
            SECTIONS[name](bench)
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
