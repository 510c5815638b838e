"""Maps of attention: raw, softmax-normalised and linearly normalised scores.

    python benchmarks/nasbench201.py --groups accuracy attention --sizes 781 --seeds 0
    python benchmarks/attention_maps.py --out benchmarks/results/attention_maps.csv

The question of the supplement's Figure 1 and section A: does a softmax put almost all weight on the
node itself? Needs the trained predictors of the first command (in runs/nasbench201): graph-aided
attention, and vanilla self-attention on edges and between all nodes, trained by the same recipe.
Weights are averaged over cells; the heat maps show the first block on one cell. Graph-aided
attention has no self-loops: its weight on the node itself is zero by construction, and a projection
of its own takes that part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import matplotlib
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import SoftmaxAttentionConv
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces import NASBench201Cell

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
MODELS = {
    "graph-aided": "narformer_v2_quick_781_seed0",
    "vanilla, edges": "narformer_v2_softmax_quick_781_seed0",
    "vanilla, all pairs": "narformer_v2_global_softmax_quick_781_seed0",
}


@torch.no_grad()
def attention(predictor: ArchitecturePredictor, batch: Batch) -> list[Mapping[str, Tensor]]:
    """Returns for each block matrices [num_cells, 8, 8]: from each row's node to the columns'.

    Graph-aided attention has raw scores on all pairs, their softmax, and the linear normalisation
    on edges that it uses; vanilla attention has the softmax that it uses.
    """
    size = batch.num_nodes // batch.num_graphs
    inputs: dict[int, tuple[Tensor, Tensor]] = {}
    hooks = [
        block.conv.register_forward_pre_hook(
            lambda module, args, i=i: inputs.__setitem__(i, (args[0], args[1]))
        )
        for i, block in enumerate(predictor.model.blocks)
    ]
    predictor.eval()(batch)
    for hook in hooks:
        hook.remove()
    out = []
    for i, block in enumerate(predictor.model.blocks):
        conv, (x, edges) = block.conv, inputs[i]
        plain = edges.as_tensor() if hasattr(edges, "as_tensor") else edges
        _, (used, alpha) = conv(x, plain, return_attention_weights=True)
        weights = x.new_zeros(batch.num_graphs, size, size)
        weights.index_put_(
            (used[1] // size, used[1] % size, used[0] % size), alpha, accumulate=True
        )
        if isinstance(conv, SoftmaxAttentionConv):
            out.append({"softmax": weights})
            continue
        queries: list[Tensor] = []
        hook = conv.lin_qk.register_forward_hook(lambda *args, q=queries: q.append(args[2]))
        conv(x, plain)
        hook.remove()
        query = queries[0].sigmoid().view(batch.num_graphs, size, -1)
        raw = query @ query.transpose(1, 2) / query.size(-1) ** 0.5
        out.append({"raw": raw, "softmax": raw.softmax(dim=-1), "linear": weights})
    return out


def shares(weights: Tensor) -> dict[str, float]:
    """Returns the mean weight on the node itself, and how many nodes the weights are spread over.

    Args:
        weights: Rows that sum to one, [num_cells, num_nodes, num_nodes].
    """
    itself = weights.diagonal(dim1=1, dim2=2).mean()
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1)
    return {"self": float(itself), "effective_nodes": float(entropy.exp().mean())}


def draw(maps: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws one heat map for each entry."""
    names = ["input", "1", "2", "3", "4", "5", "6", "output"]
    figure, axes = plt.subplots(
        1, len(maps), figsize=(3.6 * len(maps), 3.9), constrained_layout=True
    )
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        image = ax.imshow(values, cmap="viridis", vmin=0.0)
        ax.set_title(title, fontsize=10)
        ax.set_xticks(range(8), names, rotation=90, fontsize=8)
        ax.set_yticks(range(8), names, fontsize=8)
        figure.colorbar(image, ax=ax, shrink=0.75)
    axes[0].set_ylabel("node")
    figure.supxlabel("attends to", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measures, draws and writes the results."""
    parser = common.create_parser(__doc__, repeats=1, threads=1)
    parser.add_argument("--predictors", type=Path, default=Path("runs/nasbench201"))
    parser.add_argument("--num_cells", type=int, default=1000)
    parser.add_argument("--plot", type=Path, help="PNG file (default: next to --out)")
    args = common.parse_args(parser, {"num_cells": 10})
    space = NASBench201()
    chosen = torch.randperm(len(space), generator=torch.Generator().manual_seed(0))
    batch = Batch.from_data_list([space[i] for i in chosen[: args.num_cells].tolist()])
    single = Batch.from_data_list([NASBench201Cell.from_str(CELL).to_data()])
    rows = [["model", "weights", "block", "on the node itself", "nodes attended to"]]
    results: dict[str, Any] = {}
    maps: dict[str, np.ndarray] = {}
    for name, folder in MODELS.items():
        predictor = ArchitecturePredictor.from_pretrained(args.predictors / folder)
        results[name] = []
        for i, block in enumerate(attention(predictor, batch)):
            results[name].append({})
            for kind in [kind for kind in block if kind != "raw"]:
                measured = shares(block[kind])
                results[name][i][kind] = measured
                rows.append([name, kind, str(i + 1), f"{measured['self']:.3f}",
                             f"{measured['effective_nodes']:.2f}"])  # fmt: skip
        for kind, values in attention(predictor, single)[0].items():
            maps[f"{name}: {kind}"] = values[0].numpy()
    print(common.format_table(rows))
    settings = {key: value for key, value in common.settings(args).items() if key != "predictors"}
    common.write_results(args.out, {"settings": settings, "cell": CELL, "attention": results})
    plot = args.plot or (args.out.with_suffix(".png") if args.out else None)
    if plot is not None:
        draw(maps, plot)


if __name__ == "__main__":
    main()
