"""Time and memory of the layer against those of other graph layers, over the size of the graph.

    python benchmarks/layer.py --out results/layer.csv --plot results/layer.png

One layer, forward and backward, on random graphs with three edges per node. "gather-scatter" is
this package's layer with a message on every edge, as the other graph layers of the table work;
"dense" is the masked matrix form of the paper's authors. The layers are timed in turn on the same
graph; the memory of each is the growth of a process of its own beyond the inputs and parameters.
Sizes whose node features would exceed `--max_elements` numbers are left out, as is the dense form
where its matrices would not fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch
from dense import DenseAttention, dense_adjacency
from torch import Tensor
from torch_geometric.nn import GATv2Conv, GCNConv, SAGEConv, TransformerConv

from narformer_pyg.nn import GraphAidedAttentionConv

OURS, GATHER, DENSE = "GraphAidedAttentionConv", "gather-scatter", "dense"
PYG_LAYERS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "GCNConv": GCNConv,
    "SAGEConv": SAGEConv,
    "GATv2Conv": partial(GATv2Conv, add_self_loops=False),
    "TransformerConv": TransformerConv,
}
LAYERS = (OURS, GATHER, *PYG_LAYERS, DENSE)
EDGES_PER_NODE = 3
# The dense form holds about six matrices of N x N at a time.
DENSE_BYTES = 6 * 4


class GatherScatter(GraphAidedAttentionConv):
    """The layer with messages on edges: no kernel takes over a subclass."""

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """As in the layer itself."""
        return super().message(x_j, alpha)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = common.create_parser(__doc__, repeats=5, threads=2)
    parser.add_argument(
        "--num_nodes",
        type=int,
        nargs="+",
        default=[10**k for k in range(2, 7)],
        help="nodes of the graph (100 to 1,000,000)",
    )
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 512], help="channels in and out (64 512)"
    )
    parser.add_argument(
        "--max_elements", type=int, default=70_000_000, help="nodes times width at most (7e7)"
    )
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=LAYERS, help="which (all)")
    parser.add_argument("--seed", type=int, default=1, help="seed of graphs and weights (1)")
    parser.add_argument("--plot", type=Path, help="PNG file for the curves")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda without memory (cpu)")
    quick = {"num_nodes": [50, 100], "widths": [8], "repeats": 2}
    return common.parse_args(parser, quick)


def create_pass(
    layer: str, num_nodes: int, width: int, seed: int, device: str = "cpu"
) -> Callable[[], Tensor]:
    """Returns a function that runs a layer forward and backward.

    Args:
        layer: The name of the layer.
        num_nodes: Nodes of the graph.
        width: Channels in and out.
        seed: Seed of graph, features and weights.
        device: Where to run.
    """
    torch.manual_seed(seed)
    x = torch.randn(num_nodes, width, requires_grad=True)
    edge_index = torch.randint(num_nodes, (2, EDGES_PER_NODE * num_nodes))
    edges: Tensor = edge_index
    module: torch.nn.Module
    if layer == DENSE:
        module, edges = DenseAttention(width, width), dense_adjacency(edge_index, num_nodes)
    elif layer == OURS:
        module = GraphAidedAttentionConv(width, width)
    elif layer == GATHER:
        module = GatherScatter(width, width)
    else:
        module = PYG_LAYERS[layer](width, width)
    weight = torch.randn(width)
    module, weight, edges = module.to(device), weight.to(device), edges.to(device)
    x = x.detach().to(device).requires_grad_()

    def run() -> Tensor:
        module.zero_grad()
        x.grad = None
        out = module(x, edges)
        (out @ weight).sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()
        return out

    return run


def measure_memory(layer: str, num_nodes: int, width: int, seed: int) -> int:
    """Returns the bytes that one pass takes beyond inputs and parameters."""
    return common.peak_memory(create_pass(layer, num_nodes, width, seed))


def fits(layer: str, num_nodes: int) -> bool:
    """Whether a layer can run on a graph of this size here."""
    return layer != DENSE or DENSE_BYTES * num_nodes**2 < 0.5 * common.available_memory()


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()
    rows: list[dict[str, Any]] = []
    for width in args.widths:
        for num_nodes in args.num_nodes:
            if num_nodes * width > args.max_elements:
                continue
            layers = [layer for layer in args.layers if fits(layer, num_nodes)]
            jobs = [
                {"layer": layer, "num_nodes": num_nodes, "width": width, "seed": args.seed}
                for layer in layers
            ]
            peaks: list[int | None] = [None] * len(jobs)
            if args.device == "cpu":
                peaks = common.in_fresh_processes("layer", "measure_memory", jobs, args.threads)
            passes = {
                layer: create_pass(**job, device=args.device)
                for layer, job in zip(layers, jobs, strict=True)
            }
            seconds = common.interleave(passes, args.repeats, warmup=1, min_seconds=0.02)
            for layer, peak in zip(layers, peaks, strict=True):
                row = {
                    "layer": layer,
                    "width": width,
                    "num_nodes": num_nodes,
                    "num_edges": EDGES_PER_NODE * num_nodes,
                    "seconds": common.summary(seconds[layer]),
                    "peak_bytes": peak,
                    "peak_per_input": None if peak is None else peak / (4 * num_nodes * width),
                }
                if OURS in layers:
                    row["times_as_slow_as_ours"] = common.ratio(seconds[layer], seconds[OURS])
                rows.append(row)
    exponents = {str(width): time_exponent(rows, width) for width in args.widths}
    print(common.format_table(table(rows)))
    print(f"\nExponent of the time over nodes, from 10,000 on, by width: {exponents}")
    common.write_results(
        args.out,
        {
            "settings": common.settings(args),
            "rows": rows,
            "time_exponent_by_width": exponents,
        },
    )
    if args.plot is not None:
        common.plot_loglog(args.plot, panels(rows), emphasis=OURS)


def time_exponent(rows: list[dict[str, Any]], width: int) -> float | None:
    """Returns the power of the number of nodes that the layer's time grows with, from 10,000 on."""
    large = [
        (row["num_nodes"], row["seconds"]["median"])
        for row in rows
        if (row["layer"], row["width"]) == (OURS, width) and row["num_nodes"] >= 10_000
    ]
    return common.fitted_exponent(*zip(*large, strict=True)) if large else None


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the rows of the printed table."""
    out = [["layer", "width", "nodes", "ms", "against ours", "MB", "x input"]]
    for row in rows:
        peak = row["peak_bytes"]
        out.append(
            [
                row["layer"],
                str(row["width"]),
                f"{row['num_nodes']:,}",
                common.format_spread(row["seconds"], 1e3, 2),
                common.format_ratio(row["times_as_slow_as_ours"])
                if "times_as_slow_as_ours" in row
                else "",
                "died" if peak is None else f"{peak / 2**20:,.1f}",
                "" if peak is None else f"{row['peak_per_input']:.1f}",
            ]
        )
    return out


def panels(rows: list[dict[str, Any]]) -> list[list[common.Panel]]:
    """Returns the axes of the plot: a row for time, a row for memory, a column for each width."""
    widths = sorted({row["width"] for row in rows})
    times = [common.Panel(f"{w} channels", "nodes", "milliseconds") for w in widths]
    memory = [common.Panel(f"{w} channels", "nodes", "peak memory, MB") for w in widths]
    for row in rows:
        i = widths.index(row["width"])
        s = row["seconds"]
        times[i].lines.setdefault(row["layer"], []).append(
            (row["num_nodes"], 1e3 * s["median"], 1e3 * s["min"], 1e3 * s["max"])
        )
        # Less than a megabyte is below what the pages of a process show.
        if row["peak_bytes"] is not None and row["peak_bytes"] > 2**20:
            memory[i].lines.setdefault(row["layer"], []).append(
                (row["num_nodes"], row["peak_bytes"] / 2**20)
            )
    return [times, memory]


if __name__ == "__main__":
    main()
