"""A training step and inference of the whole model, against a loop over graphs.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json

The cases are batches of cells of NAS-Bench-201 under the paper's model of cells (6 blocks), and a
batch of synthetic whole networks (chains with skip connections, random codes) under the paper's
model of networks (2 blocks, sum readout, graph features). What is timed, in turn:

- "dense": the authors' way of computing, see ``dense.py``, in float32. Its adjacency matrices are
  there beforehand;
- "float32" and "bf16": this package, the latter under autocast;
- "frozen float32" and "frozen bf16": inference of its frozen copies;
- "compiled float32": training by ``torch.compile``, with dynamic shapes (`--compile`);
- "gemm float32" and "gemm bf16": only the matrix products with weights of one pass, into memory
  that is there beforehand, with the three projections of a layer as one product, as PyTorch
  multiplies by default: in single precision by MKL. "onednn float32": the same, all by oneDNN
  (``OneDNNProducts``). No implementation that computes with these
  products can be faster; the share of this limit says what is left. Frozen copies compute with
  others, of packed weights;
- "sorted edges": a batch of the loader, and both directions of its edges sorted, with pointers;
  "neighbors": a batch that has them already (``DeviceLoader(neighbors=True)``), as in ``fit``.

A training step is forward, relative squared error, backward and a fused AdamW step. The activation
memory of a case is what its forward pass leaves for the backward pass, parameters not counted;
"float32 steps" is that with the steps of the feed-forward networks one by one. As in training, the
process keeps freed memory, from which the dense form profits too; not with `--default_memory`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import common
import torch
from dense import DenseNARFormerV2, split_graphs
from torch import Tensor
from torch_geometric.data import Batch, Data, InMemoryDataset

from narformer_pyg.datasets import NASBench201
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn import CellTokenEncoder, GroupedFeedForward, RelativeMSELoss
from narformer_pyg.nn.functional import SortedEdges
from narformer_pyg.nn.models import FrozenNARFormerV2, NARFormerV2
from narformer_pyg.nn.models.graph_regressor import both_directions
from narformer_pyg.nn.products import OneDNNProducts
from narformer_pyg.training.memory import keep_freed_memory

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
FROZEN = {"float32": "32-true", "bf16": "bf16-mixed"}
CODE_CHANNELS, STATIC_CHANNELS = 152, 40  # of whole networks


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = common.create_parser(__doc__, repeats=7, threads=2)
    parser.add_argument(
        "--num_cells", type=int, nargs="*", default=[16, 128], help="cells in a batch (16 128)"
    )
    parser.add_argument(
        "--num_networks", type=int, nargs="*", default=[16], help="networks in a batch (16)"
    )
    parser.add_argument(
        "--hidden_channels", type=int, default=512, help="width of the model (512, the paper's)"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=tuple(DTYPES),
        default=list(DTYPES),
        help="precisions of this package (both)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and networks (1)")
    parser.add_argument("--compile", action="store_true", help="time training by torch.compile too")
    parser.add_argument(
        "--default_memory", action="store_true", help="give freed memory back as glibc does"
    )
    quick = {"num_cells": [2], "num_networks": [1], "hidden_channels": 32, "repeats": 2}
    return common.parse_args(parser, quick)


# ---------------------------------------------------------------------------------------- cases


@dataclass
class Case:
    """A model and a batch that it trains on.

    Args:
        model: The model.
        batch: The graphs, with their node codes as ``x`` and their targets as ``y``.
        graphs: The dataset that the batch is from.
        index: Which of its graphs these are.
        static: The codes of the graph features.
    """

    model: NARFormerV2
    batch: Batch
    graphs: InMemoryDataset | list[Data]
    index: Tensor
    static: Tensor | None = None


def cells(num_graphs: int, hidden_channels: int) -> Case:
    """Returns the paper's model of cells, and cells of NAS-Bench-201."""
    encoder = CellTokenEncoder()
    dataset = NASBench201()
    index = torch.arange(num_graphs) * (len(dataset) // num_graphs)
    batch = DeviceLoader(dataset).collate(index)
    batch.x, batch.y = encoder(batch), batch.y / 100.0
    return Case(NARFormerV2(encoder.out_channels, hidden_channels), batch, dataset, index)


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


def networks(num_graphs: int, hidden_channels: int) -> Case:
    """Returns the paper's model of networks, and networks of 60 to 200 nodes."""
    sizes = torch.linspace(60, 200, num_graphs).round().long().tolist()
    graphs = [synthetic_network(size) for size in sizes]
    index = torch.arange(num_graphs)
    batch = DeviceLoader(graphs).collate(index)
    model = NARFormerV2(
        CODE_CHANNELS,
        hidden_channels,
        num_blocks=2,
        readout="sum",
        static_channels=STATIC_CHANNELS,
    )
    return Case(model, batch, graphs, index, torch.randn(num_graphs, STATIC_CHANNELS))


# ------------------------------------------------------------------------------------- the limit


class MatrixProducts:
    """The matrix products of one pass of a model, and nothing else.

    Args:
        model: The model.
        num_nodes: Nodes of the batch.
        num_graphs: Graphs of the batch.
        dtype: The type of all matrices.
        training: Whether the products of the backward pass follow.
    """

    def __init__(
        self,
        model: NARFormerV2,
        num_nodes: int,
        num_graphs: int,
        dtype: torch.dtype,
        training: bool,
    ) -> None:
        self._dtype = dtype
        self._buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._forward: list[Callable[[], Tensor]] = []
        self._backward: list[Callable[[], Tensor]] = []
        #: Multiplications and additions.
        self.flops = 0

        config = model.config
        channels, groups = config["hidden_channels"], config["num_groups"]
        size, ratio = channels // groups, config["ffn_ratio"]
        for i in range(config["num_blocks"]):
            in_channels = channels if i > 0 else config["in_channels"]
            self._add(1, num_nodes, in_channels, in_channels + 2 * channels)
            self._add(groups, num_nodes, size, ratio * size)
            self._add(groups, num_nodes, ratio * size, size)
        if config["readout"] == "fusion":
            total = channels * config["num_blocks"]
            self._add(1, num_graphs, total, max(total // 4, 1))
            self._add(1, num_graphs, max(total // 4, 1), config["num_blocks"])
        static_channels = config["static_channels"]
        if static_channels > 0:
            self._add(1, num_graphs, static_channels, channels, input_needs_grad=False)
        self._add(1, num_graphs, channels * (2 if static_channels > 0 else 1), channels)
        self._add(1, num_graphs, channels, channels)
        self._add(1, num_graphs, channels, config["out_channels"])

        self._products = self._forward + self._backward[::-1] if training else self._forward
        self.flops = self.flops if training else self._forward_flops
        self._buffers.clear()

    _forward_flops = 0

    def _buffer(self, role: str, *shape: int) -> Tensor:
        """Returns memory that products of the same shapes share."""
        if (role, shape) not in self._buffers:
            self._buffers[role, shape] = torch.randn(shape).to(self._dtype)
        return self._buffers[role, shape]

    def _add(
        self, groups: int, rows: int, size_in: int, size_out: int, input_needs_grad: bool = True
    ) -> None:
        """Adds the products of one layer: output, gradients of weight and input."""
        x = self._buffer("x", groups, rows, size_in)
        y = self._buffer("y", groups, rows, size_out)
        grad_x = self._buffer("grad_x", groups, rows, size_in)
        # Each layer has weights of its own, which come from memory in every pass.
        weight = torch.randn(groups, size_in, size_out).div_(size_in**0.5).to(self._dtype)
        grad_weight = torch.empty_like(weight)
        if groups == 1:  # torch.nn.Linear keeps its weight transposed
            x, y, grad_x = x[0], y[0], grad_x[0]
            weight = weight[0].t().contiguous().t()
            grad_weight = torch.empty_like(weight)
            transposed = grad_weight.t()
            self._forward.append(lambda: torch.mm(x, weight, out=y))
            self._backward.append(lambda: torch.mm(y.t(), x, out=transposed))
            if input_needs_grad:
                self._backward.append(lambda: torch.mm(y, weight.t(), out=grad_x))
        else:
            self._forward.append(lambda: torch.bmm(x, weight, out=y))
            self._backward.append(lambda: torch.bmm(x.transpose(1, 2), y, out=grad_weight))
            if input_needs_grad:
                self._backward.append(lambda: torch.bmm(y, weight.transpose(1, 2), out=grad_x))
        flops = 2 * groups * rows * size_in * size_out
        self._forward_flops += flops
        self.flops += (3 if input_needs_grad else 2) * flops

    def __call__(self) -> None:
        """Computes them in order."""
        with torch.no_grad():
            for product in self._products:
                product()

    def by_onednn(self) -> None:
        """Computes them in order, all by oneDNN."""
        with OneDNNProducts(torch.empty(0), self.flops):
            self()


# ---------------------------------------------------------------------------------- measurement


def training_step(
    model: torch.nn.Module, target: Tensor, predict: Callable[[], Tensor]
) -> Callable[[], None]:
    """Returns a function that takes one step of the optimizer.

    Args:
        model: The model that is trained.
        target: The labels.
        predict: Returns the predictions of the model.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    loss_fn = RelativeMSELoss()

    def step() -> None:
        optimizer.zero_grad()
        loss_fn(predict().float(), target).backward()
        optimizer.step()

    return step


def from_lists(batch: Batch) -> SortedEdges:
    """Returns the edges of a batch that has lists of neighbors."""
    return SortedEdges.from_neighbors(
        batch.neighbor_index, batch.neighbor_ptr, batch.neighbor_reverse
    )


def inference(predict: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Returns a function that predicts without gradients."""

    def infer() -> Tensor:
        with torch.no_grad():
            return predict()

    return infer


def activation_bytes(case: Case, dtype: torch.dtype, steps: bool = False) -> int:
    """Returns the bytes that wait for the backward pass.

    Args:
        case: Model and batch.
        dtype: The precision.
        steps: Whether the feed-forward networks shall not be fused.
    """
    batch = case.batch
    # A hook that looks at a step makes it one.
    networks = [m for m in case.model.modules() if isinstance(m, GroupedFeedForward)]
    hooks = [
        network.lin_2.register_forward_hook(lambda module, inputs, output: None)
        for network in networks
        if steps
    ]
    held: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in case.model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        model = case.model.train()
        out = model(
            batch.x, batch.edge_index, batch.batch, case.static, batch_size=batch.num_graphs
        )
        loss = out.sum()
    del loss
    for hook in hooks:
        hook.remove()
    return sum(held.values())


def measure(
    case: Case, training: bool, precisions: list[str], repeats: int, compiles: bool
) -> dict[str, Any]:
    """Times one case.

    Args:
        case: Model and batch.
        training: Whether training steps are timed, not inference.
        precisions: The precisions of this package.
        repeats: The measurements of each.
        compiles: Whether training by ``torch.compile`` is timed too.
    """
    batch, static = case.batch, case.static
    graphs = split_graphs(batch.x, batch.edge_index, batch.batch, batch.num_graphs)

    plain, with_lists = (DeviceLoader(case.graphs, neighbors=has) for has in (False, True))
    lists = with_lists.collate(case.index)

    def timed(model: torch.nn.Module, predict: Callable[[], Tensor]) -> Callable[[], object]:
        model.train(training)
        return training_step(model, batch.y, predict) if training else inference(predict)

    def ours(dtype: torch.dtype, compiled: bool = False) -> Callable[[], object]:
        model = NARFormerV2(**case.model.config)
        model.load_state_dict(case.model.state_dict())
        function = torch.compile(model, dynamic=True) if compiled else model
        takes_lists = training and not compiled  # as in ``fit``

        def predict() -> Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                edges = from_lists(lists) if takes_lists else batch.edge_index
                return function(batch.x, edges, batch.batch, static, batch_size=batch.num_graphs)

        return timed(model, predict)

    def frozen(precision: str) -> Callable[[], Tensor]:
        model = FrozenNARFormerV2(case.model, precision)
        return lambda: model(batch.x, batch.edge_index, batch.batch, static, batch.num_graphs)

    dense = DenseNARFormerV2(case.model)
    sizes = (case.model, batch.num_nodes, batch.num_graphs)
    limits = {name: MatrixProducts(*sizes, DTYPES[name], training) for name in precisions}
    in_single = limits.get("float32") or MatrixProducts(*sizes, torch.float32, training)

    def sorted_edges() -> Tensor | None:
        batch = plain.collate(case.index)
        return SortedEdges(both_directions(batch.edge_index), batch.num_nodes).reverse[-1]

    def neighbors() -> Tensor | None:
        return from_lists(with_lists.collate(case.index)).reverse[-1]

    with_compiled = compiles and training
    functions = {
        "dense": timed(dense, lambda: dense(graphs, static)),
        **{name: ours(DTYPES[name]) for name in precisions},
        **({"compiled float32": ours(torch.float32, compiled=True)} if with_compiled else {}),
        **{f"frozen {name}": frozen(FROZEN[name]) for name in precisions if not training},
        **{f"gemm {name}": limit for name, limit in limits.items()},
        "onednn float32": in_single.by_onednn,
        "sorted edges": sorted_edges,
        "neighbors": neighbors,
    }
    seconds = common.interleave(functions, repeats, warmup=2, min_seconds=0.3)
    implementations = [
        name
        for name in functions
        if name.split()[0] not in ("dense", "gemm", "onednn", "sorted", "neighbors")
    ]
    limit_of = {name: f"gemm {name.split()[-1]}" for name in implementations}
    return {
        "seconds": {name: common.summary(values) for name, values in seconds.items()},
        "times_as_fast_as_dense": {
            name: common.ratio(seconds["dense"], seconds[name]) for name in implementations
        },
        "share_of_gemm_limit": {
            name: common.ratio(seconds[limit_of[name]], seconds[name])
            for name in implementations
            if limit_of[name] in seconds
        },
        "share_of_onednn_limit": {
            name: common.ratio(seconds["onednn float32"], seconds[name])
            for name in implementations
            if name.endswith("float32")
        },
        "gemm_gflops": {
            name: common.summary([limit.flops / s / 1e9 for s in seconds[f"gemm {name}"]])
            for name, limit in limits.items()
        },
    }


def rows(name: str, result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the table for one case."""
    out = []
    for what, seconds in result["seconds"].items():
        row = [name, what, common.format_spread(seconds, 1e3), "", "", ""]
        if what in result["times_as_fast_as_dense"]:
            row[3] = common.format_ratio(result["times_as_fast_as_dense"][what])
        for i, limit in ((4, "gemm"), (5, "onednn")):
            if what in result[f"share_of_{limit}_limit"]:
                share = result[f"share_of_{limit}_limit"][what]
                low, high = 100 * share["min"], 100 * share["max"]
                row[i] = f"{100 * share['of_medians']:.0f} % [{low:.0f} .. {high:.0f}]"
        if what.startswith("gemm "):
            row[4] = f"{result['gemm_gflops'][what.removeprefix('gemm ')]['median']:.0f} GFLOP/s"
        out.append(row)
    return out


def main() -> None:
    """Measures, reports and writes the results."""
    args = parse_args()
    torch.manual_seed(args.seed)
    if not args.default_memory:
        keep_freed_memory()
    cases = {f"cells_{n}": cells(n, args.hidden_channels) for n in args.num_cells}
    cases |= {f"networks_{n}": networks(n, args.hidden_channels) for n in args.num_networks}
    results: dict[str, Any] = {"settings": common.settings(args), "cases": {}}
    table = [["case", "what", "ms", "against dense", "of the GEMM limit", "of oneDNN's"]]
    for name, case in cases.items():
        results["cases"][name] = {
            "num_graphs": case.batch.num_graphs,
            "num_nodes": case.batch.num_nodes,
            "num_edges": case.batch.num_edges,
            "num_parameters": sum(p.numel() for p in case.model.parameters()),
            "activation_bytes": {
                **{name: activation_bytes(case, DTYPES[name]) for name in args.precisions},
                "float32 steps": activation_bytes(case, torch.float32, steps=True),
            },
        }
        for what, training in (("training", True), ("inference", False)):
            result = measure(case, training, args.precisions, args.repeats, args.compile)
            results["cases"][name][what] = result
            table += rows(f"{name} {what}", result)
    print(common.format_table(table))
    common.write_results(args.out, results)


if __name__ == "__main__":
    main()
