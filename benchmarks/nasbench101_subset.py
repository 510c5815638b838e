"""Predictors on real labels of NAS-Bench-101: 600 cells to train on, 900 to test on.

    python benchmarks/nasbench101_subset.py --threads 1 --out benchmarks/results/nasbench101.csv

Each seed draws 1,500 of the cells in ``benchmarks/data`` whose validation and test accuracy are
known. Models are trained on the validation accuracy of 600 of them and tested on the test accuracy
of the others. The cells are no uniform sample of the space, see ``benchmarks/data/README.md``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import common
import numpy as np
import torch

from narformer_pyg.datasets import NASBench101
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model, list_models
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces import NASBench101Cell
from narformer_pyg.training import CELL_RECIPES, all_metrics, fit, get_recipe, label_scale

SUBSET = common.FOLDER / "data" / "nasbench101_subset.npz"
# What the numbers in the file stand for.
OPERATIONS = ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")
TRAIN, TEST = "valid_acc_108", "test_acc_108"


def main() -> None:
    """Trains, tests and prints a table."""
    parser = common.create_parser(__doc__, repeats=3, threads=2, repeats_help="seeds, from 0 on")
    parser.add_argument("--models", nargs="+", choices=list_models(),
                        default=["narformer_v2", "gcn", "gat"])  # fmt: skip
    parser.add_argument("--recipe", choices=CELL_RECIPES, default="quick")
    parser.add_argument("--num_cells", type=int, default=1500)
    parser.add_argument("--train_size", type=int, default=600)
    parser.add_argument("--epochs", type=int, help="passes over the data (default: the recipe's)")
    args = common.parse_args(
        parser, {"epochs": 1, "repeats": 1, "num_cells": 60, "train_size": 40, "models": ["gcn"]}
    )
    recipe = get_recipe(args.recipe)
    if args.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
    dataset = read_subset()
    runs = []
    for seed in range(args.repeats):
        for name in args.models:
            runs.append(run(name, seed, dataset, recipe, args.num_cells, args.train_size))
            print(f"seed {seed}, {name}: tau {runs[-1]['metrics']['kendall_tau']:.4f}", flush=True)
    rows = [["model", "Kendall's tau", "Acc(1 %) (%)", "MAPE (%)", "seconds"]]
    table = {}
    for name in args.models:
        chosen = [r for r in runs if r["model"] == name]
        table[name] = {
            key: mean_and_std([r["metrics"][key] for r in chosen])
            for key in ("kendall_tau", "acc_1", "mape")
        }
        table[name]["seconds"] = mean_and_std([r["seconds"] for r in chosen])
        rows.append([name] + [
            f"{value['mean']:.{digits}f} ± {value['std']:.{digits}f}"
            for value, digits in zip(table[name].values(), (4, 2, 2, 0), strict=True)
        ])  # fmt: skip
    print(f"\n{common.format_table(rows)}")
    common.write_results(
        args.out,
        {"settings": common.settings(args), "recipe": recipe.to_dict(), "table": table,
         "runs": runs},
    )  # fmt: skip


def read_subset() -> NASBench101:
    """Returns the cells whose accuracies after 108 epochs are known."""
    with np.load(SUBSET, allow_pickle=False) as file:
        known = np.isfinite(file[TRAIN]) & np.isfinite(file[TEST])
        content = {
            key: file[key][known] for key in ("num_vertices", "adjacency", "ops", TRAIN, TEST)
        }
    codes = [
        NASBench101Cell(
            matrix[:size, :size].tolist(), [OPERATIONS[number] for number in operations[:size]]
        ).code
        for size, matrix, operations in zip(
            content["num_vertices"], content["adjacency"], content["ops"], strict=True
        )
    ]
    labels = {name: content[name] for name in (TRAIN, TEST)}
    return NASBench101.from_arrays(*np.array(codes).T, labels, target=TRAIN)


def run(
    name: str, seed: int, dataset: NASBench101, recipe: Any, num_cells: int, train_size: int
) -> dict[str, Any]:
    """Trains and tests one model."""
    split = dataset.get_split(train_size, num_cells - train_size, seed)
    torch.manual_seed(seed)
    encoder = CellTokenEncoder()
    model = create_model(name, encoder.out_channels, **recipe.model)
    scale = label_scale("accuracy", dataset.labels(TRAIN)[split.train])
    predictor = ArchitecturePredictor(encoder, model, [TRAIN], ["%"], scale)
    result = fit(predictor, dataset[split.train], recipe, seed=seed, device="cpu", progress=False)
    # Drawn as validation graphs, but nothing was chosen on them: they are what is tested.
    test = split.val
    prediction = predictor.predict(dataset[test])[:, 0]
    return {
        "model": name,
        "seed": seed,
        "metrics": all_metrics(prediction, dataset.labels(TEST)[test]),
        "seconds": round(result.seconds, 1),
    }


def mean_and_std(values: list[float]) -> dict[str, float]:
    """Returns mean and standard deviation over the seeds."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std}


if __name__ == "__main__":
    main()
