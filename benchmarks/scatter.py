"""The use of torch-scatter: layers with it and without it, in turn, on the same graph.

    python benchmarks/scatter.py --out benchmarks/results/scatter.csv

PyG takes torch-scatter for some reductions where it is installed
(``pip install torch-scatter --no-build-isolation``), and torch's own otherwise. One layer, forward
and backward, on a random graph with three edges a node, unsorted and sorted by target.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import torch
import torch_geometric.typing
from layer import EDGES_PER_NODE, OURS, GatherScatter
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATv2Conv, SAGEConv

from narformer_pyg.nn import GraphAidedAttentionConv

LAYERS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    OURS: GraphAidedAttentionConv,
    "gather-scatter": GatherScatter,
    "GATv2Conv": lambda a, b: GATv2Conv(a, b, add_self_loops=False),
    "SAGEConv, mean": SAGEConv,
    "SAGEConv, max": lambda a, b: SAGEConv(a, b, aggr="max"),
}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = common.create_parser(__doc__, repeats=7, threads=2)
    parser.add_argument("--num_nodes", type=int, default=10_000, help="nodes of the graph (10,000)")
    parser.add_argument("--width", type=int, default=128, help="channels in and out (128)")
    parser.add_argument("--seed", type=int, default=1, help="seed of graph and weights (1)")
    return common.parse_args(parser, {"num_nodes": 50, "width": 8, "repeats": 2})


def create_pass(
    module: torch.nn.Module, x: Tensor, edge_index: Tensor, installed: bool
) -> Callable[[], None]:
    """Returns a function that runs a layer forward and backward.

    Args:
        module: The layer.
        x: The node features.
        edge_index: The edges.
        installed: Whether PyG shall take torch-scatter.
    """

    def run() -> None:
        torch_geometric.typing.WITH_TORCH_SCATTER = installed
        module.zero_grad()
        module(x, edge_index).sum().backward()

    return run


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()
    if not torch_geometric.typing.WITH_TORCH_SCATTER:
        raise SystemExit(
            "Expected torch-scatter to be installed; "
            "'pip install torch-scatter --no-build-isolation' compiles it"
        )
    torch.manual_seed(args.seed)
    x = torch.randn(args.num_nodes, args.width, requires_grad=True)
    edge_index = torch.randint(args.num_nodes, (2, EDGES_PER_NODE * args.num_nodes))
    size = (args.num_nodes, args.num_nodes)
    by_target = EdgeIndex(edge_index, sparse_size=size).sort_by("col")[0]
    by_target.get_csc(), by_target.get_csr()
    rows: list[dict[str, Any]] = []
    table = [["layer", "edges", "with, ms", "without, ms", "times as fast"]]
    for name, create in LAYERS.items():
        module = create(args.width, args.width)
        for order, edges in (("unsorted", edge_index), ("sorted", by_target)):
            passes = {
                what: create_pass(module, x, edges, what == "with") for what in ("with", "without")
            }
            seconds = common.interleave(passes, args.repeats, warmup=1, min_seconds=0.02)
            row: dict[str, Any] = {"layer": name, "edges": order}
            row |= {what: common.summary(values) for what, values in seconds.items()}
            row["times_as_fast"] = common.ratio(seconds["without"], seconds["with"])
            rows.append(row)
            spreads = [common.format_spread(row[what], 1e3, 2) for what in ("with", "without")]
            table.append([name, order, *spreads, common.format_ratio(row["times_as_fast"])])
    print(common.format_table(table))
    common.write_results(args.out, {"settings": common.settings(args), "rows": rows})


if __name__ == "__main__":
    main()
