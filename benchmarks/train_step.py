"""A training step and inference of the whole model: every kernel, and a loop over graphs.

    python benchmarks/train_step.py --out benchmarks/results/train_step.csv

The cases are batches of cells of NAS-Bench-201 under the paper's model of cells (6 blocks), and a
batch of synthetic whole networks (chains with skip connections, random codes) under the paper's
model of networks (2 blocks, sum readout, graph features). Timed in turn, so that a busy neighbour
hits all alike:

- "dense": the authors' way of computing, a loop over graphs with dense matrices, see ``dense.py``;
- "kernels": this package as it is;
- "plain": with all kernels off;
- one row a kernel: that kernel off, all others on (one cell alone shows what a small graph costs);
- "bf16": this package under autocast, with ``--bf16``.

A training step is forward, relative squared error, backward and a fused AdamW step. Ratios are
those of the medians; the spread holds the middle 80 % of the ratios of the repeats. The rows of one
processor replace older ones of the same processor only.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import common
import numpy as np
import torch
from dense import DenseNARFormerV2, split_graphs
from torch import Tensor
from torch_geometric.data import Batch, Data

from narformer_pyg.datasets import NASBench201
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn import CellTokenEncoder, RelativeMSELoss, kernels
from narformer_pyg.nn.models import NARFormerV2
from narformer_pyg.training.report import environment

CODE_CHANNELS, STATIC_CHANNELS = 152, 40  # of whole networks


@dataclass
class Case:
    """A model and a batch that it trains on.

    Args:
        model: The model.
        batch: The graphs, with their node codes as ``x`` and their targets as ``y``.
        static: The codes of the graph features.
    """

    model: NARFormerV2
    batch: Batch
    static: Tensor | None = None


def cells(num_graphs: int, hidden_channels: int, device: str) -> Case:
    """Returns the paper's model of cells, and cells of NAS-Bench-201."""
    encoder = CellTokenEncoder()
    dataset = NASBench201(target="cifar10_test_acc")
    index = torch.arange(num_graphs) * (len(dataset) // num_graphs)
    batch = DeviceLoader(dataset).collate(index)
    batch.x, batch.y = encoder(batch), batch.y / 100.0
    model = NARFormerV2(encoder.out_channels, hidden_channels).to(device)
    return Case(model, batch.to(device))


def synthetic_network(num_nodes: int) -> Data:
    """Returns a chain with a skip connection over two nodes at every fourth one."""
    chain = torch.arange(num_nodes - 1)
    skips = torch.arange(0, num_nodes - 3, 4)
    source, target = torch.cat([chain, skips]), torch.cat([chain + 1, skips + 3])
    return Data(
        x=torch.randn(num_nodes, CODE_CHANNELS),
        edge_index=torch.stack([source, target]),
        y=0.5 + torch.rand(1, 1),
    )


def networks(num_graphs: int, hidden_channels: int, device: str) -> Case:
    """Returns the paper's model of networks, and networks of 60 to 200 nodes."""
    sizes = torch.linspace(60, 200, num_graphs).round().long().tolist()
    batch = Batch.from_data_list([synthetic_network(size) for size in sizes]).to(device)
    model = NARFormerV2(
        CODE_CHANNELS,
        hidden_channels,
        num_blocks=2,
        readout="sum",
        static_channels=STATIC_CHANNELS,
    )
    static = torch.rand(num_graphs, STATIC_CHANNELS, device=device)
    return Case(model.to(device), batch, static)


def pass_of(case: Case, training: bool, form: str) -> Callable[[], object]:
    """Returns a training step or an inference of one form."""
    batch, device = case.batch, case.batch.x.device
    if form == "dense":
        model: Any = DenseNARFormerV2(case.model).to(device)
        graphs = split_graphs(batch.x, batch.edge_index, batch.batch, batch.num_graphs)

        def predict() -> Tensor:
            return model(graphs, case.static)
    else:
        model = case.model

        def predict() -> Tensor:
            return model(batch.x, batch.edge_index, batch.batch, case.static, batch.num_graphs)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    loss = RelativeMSELoss()

    def switch() -> contextlib.AbstractContextManager[None]:
        if form == "plain":
            return kernels.enabled(False)
        if form in kernels.NAMES:
            return kernels.enabled(False, form)
        return contextlib.nullcontext()

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        with switch(), torch.autocast(device.type, torch.bfloat16, enabled=form == "bf16"):
            loss(predict().float(), batch.y).backward()
        optimizer.step()
        synchronize(device)

    @torch.no_grad()
    def infer() -> None:
        model.eval()
        with switch(), torch.autocast(device.type, torch.bfloat16, enabled=form == "bf16"):
            predict()
        synchronize(device)

    return step if training else infer


def synchronize(device: torch.device) -> None:
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(case: Case, training: bool, args: argparse.Namespace) -> dict[str, Any]:
    """Times all forms in turn."""
    forms = ["dense", "kernels", "plain", *kernels.NAMES, *(["bf16"] if args.bf16 else [])]
    passes = {form: pass_of(case, training, form) for form in forms}
    seconds = common.interleave(passes, args.repeats, warmup=2, min_seconds=args.min_seconds)
    rows = {}
    for form in forms:
        # The dense form and forms with something off, against the package as it is.
        each = np.array(seconds[form]) / np.array(seconds["kernels"])
        rows[form] = {
            "seconds": float(np.median(seconds[form])),
            "over_kernels": float(np.median(seconds[form]) / np.median(seconds["kernels"])),
            "p10": float(np.quantile(each, 0.1)),
            "p90": float(np.quantile(each, 0.9)),
        }
    return rows


def main() -> None:
    """Measures every case."""
    parser = common.create_parser(__doc__, repeats=15, threads=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--hidden_channels", type=int, default=512, help="width (default: 512)")
    parser.add_argument("--bf16", action="store_true", help="time autocast to bfloat16 too")
    parser.add_argument(
        "--min_seconds", type=float, default=0.1, help="of a measurement (default: 0.1)"
    )
    parser.add_argument(
        "--cases", nargs="+", default=["cells 1", "cells 16", "cells 128", "networks 16"],
        help="batches to measure (default: all four)",
    )  # fmt: skip
    quick = {"hidden_channels": 32, "repeats": 2, "min_seconds": 0.001, "cases": ["cells 2"]}
    args = common.parse_args(parser, quick)
    torch.manual_seed(1)
    facts = environment()
    where = facts["gpu"] if args.device == "cuda" else facts["processor"]
    for name in args.cases:
        kind, number = name.split()
        build = {"cells": cells, "networks": networks}[kind]
        case = build(int(number), args.hidden_channels, args.device)
        for training in (True, False):
            what = "training step" if training else "inference"
            rows = measure(case, training, args)
            print(f"\n{name}, {what}, {where}, {args.threads} thread(s)")
            for form, row in rows.items():
                print(f"{form:24}{1e3 * row['seconds']:10.2f} ms   {row['over_kernels']:6.2f}x "
                      f"[{row['p10']:.2f} .. {row['p90']:.2f}]", flush=True)  # fmt: skip
                if args.out is not None:
                    key = f"{where}, {args.threads} thread(s), {name}, {what}, {form}"
                    content = {"where": where, "threads": args.threads, "case": name, "what": what,
                               "form": form, **row, "environment": facts}  # fmt: skip
                    common.write_row(args.out, key, content)


if __name__ == "__main__":
    main()
