r"""Predicts the latency of ONNX models from measured ones, next to GCN, GAT and GraphSAGE.

    python examples/onnx_latency.py                             # the networks of the package
    python examples/onnx_latency.py --split all_families        # families that are new

    narformer profile my_networks -o labels.csv                 # measure your models on your device
    python examples/onnx_latency.py --models my_networks --labels labels.csv
    python examples/onnx_latency.py --models unseen_structure --recipe latency_paper  # NNLQP's data

All predictors have the same token encoder, readout, graph features, head and training; a linear
function of FLOPs and memory access is what the graph has to be better than. '--split in_domain'
tests on a tenth of each family, the name of a family leaves it out of the training, 'all_families'
does so with one after the other. A run that was stopped goes on with the same command and '--out'.

The predictor of new models is saved: narformer predict new.onnx --checkpoint OUT/predictor
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from narformer_pyg.threads import wait_passively

wait_passively()  # before torch is imported: a busy neighbour then costs its share, not more

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.optimize import nnls  # noqa: E402

from narformer_pyg.training import (  # noqa: E402
    LATENCY_RECIPES,
    Task,
    all_metrics,
    format_means,
    get_recipe,
    latency_dataset,
    latency_splits,
    latency_task,
    train,
)


def linear_metrics(task: Task) -> dict[str, float]:
    """Fits latency = a + b FLOPs + c memory access to relative errors, none of them negative."""
    static = torch.cat([data.static for data in task.dataset])
    x = np.concatenate([np.ones((len(static), 1)), static[:, [1, 3]].double().numpy()], axis=1)
    x /= np.maximum(x.max(axis=0), 1e-30)
    y = task.test_labels.double().numpy()
    known, test = task.split.train.numpy(), task.split.test.numpy()
    weights, _ = nnls(x[known] / y[known, None], np.ones(len(known)))
    return all_metrics(torch.from_numpy(x[test] @ weights), task.test_labels[test])


def main() -> None:
    """Trains, tests and writes the results."""
    parser = argparse.ArgumentParser(
        description="Train predictors of latency on measured ONNX models and compare them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--models", type=Path, help="folder or archive; by default the package's")
    parser.add_argument("--labels", type=Path, help="CSV file of latencies, or NNLQP's gt.txt")
    parser.add_argument("--platform", help="platform to predict, where labels have several")
    parser.add_argument("--cache", type=Path, help="folder of converted models; default: in --out")
    parser.add_argument("--recipe", choices=LATENCY_RECIPES, default="latency", help="settings")
    parser.add_argument(
        "--split", default="in_domain", help="in_domain, a family, all_families, or stage"
    )
    networks = ["narformer_v2", "gcn", "gat", "graphsage"]
    parser.add_argument("--networks", nargs="+", default=networks, help="the first one is saved")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training each")
    parser.add_argument("--num_workers", type=int, help="processes that convert")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/onnx_latency"), help="results")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    recipe = get_recipe(args.recipe)
    data = (args.models, args.labels, args.platform, args.num_workers)
    dataset = latency_dataset(recipe, args.cache or args.out / "graphs", *data)
    print(f"{len(dataset)} models of {len(set(dataset.families))} families, recipe {recipe.name}.")
    rows = []
    for split in latency_splits(args.split, dataset):
        for seed in args.seeds:
            task = latency_task(recipe, dataset, split, seed=seed)
            rows.append(("flops + memory", split, linear_metrics(task)))
            for network in args.networks:
                out = args.out / "runs" / f"{split}_seed{seed}_{network}"
                settings = {"seed": seed, "device": args.device, "resume": out.exists()}
                result = train(task, recipe, network, out=out, **settings)
                assert result is not None  # one process
                if not rows[1:]:
                    result.predictor().save_pretrained(args.out / "predictor")
                rows.append((network, split, result.metrics["test models"]))
    print(f"\n{format_means(rows, ('mape', 'acc_10', 'kendall_tau'))}\n\nResults: {args.out}/")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command again to go on.")
