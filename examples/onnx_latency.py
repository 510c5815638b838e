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
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from narformer_pyg.datasets import ONNXLatency, Split
from narformer_pyg.nn import OperatorTokenEncoder
from narformer_pyg.nn.models import create_model, list_models
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import (
    LATENCY_RECIPES,
    Recipe,
    all_metrics,
    fit,
    get_recipe,
    label_scale,
    resolve_device,
)
from narformer_pyg.training.report import (
    environment,
    plot_history,
    plot_predictions,
    write_json,
    write_predictions,
)

LINEAR = "flops + memory"


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description="Train predictors of latency on measured ONNX models and compare them."
    )
    parser.add_argument(
        "--models", type=Path, help="folder or archive of models (default: those of the package)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        help="CSV file of their latencies, or gt.txt of NNLQP (default: gt.txt in --models, or the "
        "labels of the package)",
    )
    parser.add_argument(
        "--platform", help="platform to predict, where the labels have several (default: the one)"
    )
    parser.add_argument(
        "--cache", type=Path, help="folder that keeps the converted models (default: in --out)"
    )
    parser.add_argument(
        "--recipe",
        choices=LATENCY_RECIPES,
        default="latency",
        help="training settings: ours, or those of the paper (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        default="in_domain",
        help="in_domain, the name of a family to leave out, all_families, or stage for that of "
        "the labels (default: %(default)s)",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=tuple(list_models()),
        default=["narformer_v2", "gcn", "gat", "graphsage"],
        help="what is trained; the first one is saved (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="one training each (default: %(default)s)"
    )
    parser.add_argument(
        "--val_share",
        type=float,
        default=0.0,
        help="share of the training families that shows the progress (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, help="passes over the data (default: the recipe's)")
    parser.add_argument("--hidden_channels", type=int, help="width (default: as in the recipe)")
    parser.add_argument(
        "--num_workers", type=int, help="processes that convert (default: by the number of models)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/onnx_latency"),
        help="folder of the results (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    """Trains, tests and writes the results."""
    args = parse_args()
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"Expected '--threads' to be a positive integer (got {args.threads})")
        torch.set_num_threads(args.threads)
    resolve_device(args.device)
    recipe = override(get_recipe(args.recipe), args)
    dataset = load(args, recipe)
    print(f"{len(dataset)} models of {len(set(dataset.families))} families, recipe {recipe.name}.")
    for file, reason in dataset.failures.items():
        print(f"Left out {file}: {reason}")
    runs = []
    for name in split_names(args.split, dataset):
        for seed in args.seeds:
            split = draw(name, dataset, args.val_share, seed)
            runs.append(linear_run(name, seed, dataset, split))
            runs += [
                network_run(args, recipe, name, seed, dataset, split, network)
                for network in args.networks
            ]
    table = summarise(runs)
    write_json(
        args.out / "results.json",
        {
            "table": table,
            "runs": runs,
            "num_models": len(dataset),
            "failures": dataset.failures,
            "recipe": recipe.to_dict(),
            "environment": environment(),
        },
    )
    print(f"\n{lay_out(table)}\n\nResults: {args.out}/")


def override(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """Replaces the settings of the recipe that the command line gives."""
    model = dict(recipe.model)
    if args.hidden_channels is not None:
        model["hidden_channels"] = args.hidden_channels
    epochs = recipe.epochs if args.epochs is None else args.epochs
    return dataclasses.replace(recipe, model=model, epochs=epochs)


def load(args: argparse.Namespace, recipe: Recipe) -> ONNXLatency:
    """Converts the models, with the vocabulary and the counting of the recipe."""
    encoder = recipe.token_encoder
    return ONNXLatency(
        args.out / "graphs" if args.cache is None else args.cache,
        args.models,
        args.labels,
        vocabulary=encoder["vocabulary"],
        counting=encoder["counting"],
        platform=args.platform,
        num_workers=args.num_workers,
    )


def split_names(split: str, dataset: ONNXLatency) -> list[str]:
    """Returns the splits that are asked for."""
    families = sorted(set(dataset.families))
    for family in families:
        if family in ("in_domain", "stage", "all_families") or not set(family).isdisjoint("/\\"):
            raise ValueError(
                "Expected 'family' in the labels to be a name for a folder, and none of in_domain, "
                f"stage and all_families (got {family!r})"
            )
    if split not in ("in_domain", "stage", "all_families", *families):
        raise ValueError(
            f"Expected '--split' to be in_domain, stage, all_families or {', '.join(families)} "
            f"(got {split!r})"
        )
    return families if split == "all_families" else [split]


def draw(name: str, dataset: ONNXLatency, val_share: float, seed: int) -> Split:
    """Returns the graphs to train, validate and test on."""
    if name == "in_domain":
        split = dataset.in_domain_split(val_share=val_share, seed=seed)
    elif name == "stage":
        split = dataset.stage_split(val_share=val_share, seed=seed)
    else:
        split = dataset.leave_family_out(name, val_share=val_share, seed=seed)
    if split.test.numel() < 2:
        raise ValueError(
            f"Expected at least 2 models to test on with '--split {name}' (got "
            f"{split.test.numel()}); measure more models"
        )
    return split


def linear_run(name: str, seed: int, dataset: ONNXLatency, split: Split) -> dict[str, Any]:
    """Fits latency = a + b FLOPs + c memory access to relative errors, none of them negative.

    Numbers below zero would say that a network gets faster by more work.
    """
    static = torch.cat([data.static for data in dataset])
    x = np.concatenate([np.ones((len(static), 1)), static[:, [1, 3]].double().numpy()], axis=1)
    x /= np.maximum(x.max(axis=0), 1e-30)
    y = dataset.labels().double().numpy()
    train, test = split.train.numpy(), split.test.numpy()
    weights, _ = nnls(x[train] / y[train, None], np.ones(len(train)))
    prediction = torch.from_numpy(x[test] @ weights)
    metrics = all_metrics(prediction, dataset.labels()[split.test])
    return {"split": name, "seed": seed, "model": LINEAR, "metrics": metrics}


def network_run(
    args: argparse.Namespace,
    recipe: Recipe,
    name: str,
    seed: int,
    dataset: ONNXLatency,
    split: Split,
    network: str,
) -> dict[str, Any]:
    """Trains and tests one network, or reads what an earlier run of this command wrote."""
    folder = args.out / "runs" / f"{name}_seed{seed}_{network}"
    is_kept = network == args.networks[0] and (name, seed) == first_split(args, dataset)
    settings = {
        "recipe": recipe.to_dict(),
        "graphs": dataset.fingerprint,
        "files": dataset.files,
        "train": split.train.tolist(),
        "val": split.val.tolist(),
        "test": split.test.tolist(),
        "labels": [round(value, 6) for value in dataset.labels().tolist()],
    }
    # Written first, so that a training which was stopped is known by it too.
    if not (folder / "settings.json").is_file():
        write_json(folder / "settings.json", settings)
    elif json.loads((folder / "settings.json").read_text("utf-8")) != settings:
        raise ValueError(
            f"Expected '--out' to be new, or to hold runs of the same data and settings (got "
            f"{args.out}, whose {folder.name} differs); pass another folder"
        )
    if (folder / "run.json").is_file():
        if is_kept:
            ArchitecturePredictor.from_pretrained(folder).save_pretrained(args.out / "predictor")
        return json.loads((folder / "run.json").read_text("utf-8"))

    torch.manual_seed(seed)
    token_encoder = OperatorTokenEncoder(**recipe.token_encoder)
    model = create_model(
        network,
        token_encoder.out_channels,
        static_channels=token_encoder.static_channels,
        **recipe.model,
    )
    labels = dataset.labels()
    scale = recipe.label_scale or label_scale("latency", labels[split.train])
    predictor = ArchitecturePredictor(
        token_encoder, model, dataset.target_names, [dataset.targets["latency_ms"].unit], scale
    )
    print(f"{name}, seed {seed}: {network}, {sum(p.numel() for p in model.parameters()):,} numbers")
    checkpoint = folder / "training.ckpt"
    result = fit(
        predictor,
        dataset[split.train],
        recipe,
        val_set=dataset[split.val] if split.val.numel() > 1 else None,
        seed=seed,
        device=args.device,
        checkpoint=checkpoint,
        resume=checkpoint if checkpoint.is_file() else None,
    )
    prediction = predictor.predict(dataset[split.test], device=args.device)[:, 0]
    report(folder, network, dataset, split, prediction, result.history)
    predictor.save_pretrained(folder)
    if is_kept:
        predictor.save_pretrained(args.out / "predictor")
    run = {
        "split": name,
        "seed": seed,
        "model": network,
        "metrics": all_metrics(prediction, labels[split.test]),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": result.seconds,
    }
    write_json(folder / "run.json", run)
    checkpoint.unlink(missing_ok=True)
    return run


def first_split(args: argparse.Namespace, dataset: ONNXLatency) -> tuple[str, int]:
    """Returns split and seed of the predictor that is kept for new models."""
    return split_names(args.split, dataset)[0], args.seeds[0]


def report(
    folder: Path,
    network: str,
    dataset: ONNXLatency,
    split: Split,
    prediction: Tensor,
    history: list[dict[str, float]],
) -> None:
    """Writes predictions and plots of one run."""
    labels = dataset.labels()[split.test]
    files = dataset.files
    write_predictions(
        folder / "predictions.csv",
        [files[i] for i in split.test.tolist()],
        prediction,
        labels,
        torch.zeros(len(labels), dtype=torch.bool),
    )
    plot_predictions(
        folder / "predictions.png",
        prediction,
        labels,
        label="latency",
        unit="ms",
        title=f"{network}, {split.train.numel()} training models",
        log=True,
    )
    plot_history(folder / "history.png", history)


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns mean and standard deviation over the seeds, and the mean over the splits."""
    splits = list(dict.fromkeys(run["split"] for run in runs))
    models = list(dict.fromkeys(run["model"] for run in runs))
    rows = []
    for model in models:
        means = []
        for split in splits:
            chosen = [r["metrics"] for r in runs if (r["model"], r["split"]) == (model, split)]
            row: dict[str, Any] = {"model": model, "split": split, "num_seeds": len(chosen)}
            for key in ("mape", "acc_10", "kendall_tau"):
                # A tau that is not defined was written as null.
                values = [np.nan if m[key] is None else m[key] for m in chosen]
                row[key] = float(np.mean(values))
                row[f"{key}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            means.append(row)
        rows += means
        if len(splits) > 1:
            numbers = means[0].keys() - {"model", "split", "num_seeds"}
            mean = {key: float(np.mean([row[key] for row in means])) for key in numbers}
            rows.append({**mean, "model": model, "split": "mean", "num_seeds": len(chosen)})
    return rows


def lay_out(table: list[dict[str, Any]]) -> str:
    """Lays the table out as text."""
    columns = {"mape": "MAPE (%)", "acc_10": "Acc(10 %) (%)", "kendall_tau": "Kendall's tau"}
    lines = [f"{'model':<16}{'split':<14}" + "".join(f"{t:>18}" for t in columns.values())]
    lines.append("-" * len(lines[0]))
    for row in table:
        digits = {"kendall_tau": 4}
        cells = []
        for key in columns:
            places = digits.get(key, 2)
            text = f"{row[key]:.{places}f}"
            if row["num_seeds"] > 1:
                text += f" ± {row[f'{key}_std']:.{places}f}"
            cells.append(f"{text:>18}")
        lines.append(f"{row['model']:<16}{row['split']:<14}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command again to go on.")
