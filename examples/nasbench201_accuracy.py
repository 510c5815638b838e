r"""Predicts the accuracy of all 15,625 cells of NAS-Bench-201 from a few hundred trained ones.

    python examples/nasbench201_accuracy.py                     # minutes on two CPU cores
    python examples/nasbench201_accuracy.py --recipe best --target cifar10_estimated_acc
    python examples/nasbench201_accuracy.py --recipe paper      # the paper's training; hours
    python examples/nasbench201_accuracy.py --target latency_pixel3

NAR-Former V2 is trained on the CIFAR-10 validation accuracy of 781 cells (5 % of the space) and
tested on the CIFAR-10 test accuracy of every cell, as in the supplement of the paper, Table 3. The
labels are inside the package. benchmarks/README.md holds the results of the first two commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model, list_models
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import (
    CELL_RECIPES,
    Recipe,
    all_metrics,
    fit,
    get_recipe,
    label_scale,
    resolve_device,
)
from narformer_pyg.training.report import (
    environment,
    format_table,
    plot_history,
    plot_predictions,
    write_json,
    write_predictions,
)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    targets = tuple(NASBench201.targets)
    parser = argparse.ArgumentParser(
        description="Train a predictor on NAS-Bench-201 and test it on all 15,625 cells.",
        epilog=f"Targets: {', '.join(targets)}",
    )
    parser.add_argument(
        "--train_size",
        type=int,
        default=781,
        help="cells to train on (default: %(default)s, 5 %% of the space)",
    )
    parser.add_argument(
        "--val_size",
        type=int,
        default=0,
        help="further cells whose labels show the progress (default: %(default)s)",
    )
    parser.add_argument(
        "--select",
        choices=("last", "best"),
        default="last",
        help="parameters to test: of the last epoch, or of the epoch with the best Kendall's tau "
        "on the --val_size cells (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe",
        choices=CELL_RECIPES,
        default="quick",
        help="training settings: quick (minutes), best, or those of the paper "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        choices=tuple(list_models()),
        default="narformer_v2",
        help="what is trained (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=targets,
        default="cifar10valid_valid_acc",
        metavar="TARGET",
        help="label to train on, see the list below (default: %(default)s)",
    )
    parser.add_argument(
        "--test_target",
        choices=targets,
        metavar="TARGET",
        help="label to test on (default: cifar10_test_acc for cifar10valid_valid_acc and "
        "cifar10_estimated_acc, otherwise the label trained on)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the split, the parameters and the training (default: %(default)s)",
    )
    for name, what in (
        ("epochs", "passes over the training cells"),
        ("batch_size", "cells in a batch"),
        ("hidden_channels", "width of the model"),
        ("num_blocks", "blocks of the model"),
    ):
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: as in the recipe)")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        help="GPUs of this machine, or processes on the CPU, that share the training; needs --out "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--num_nodes",
        type=int,
        default=1,
        help="machines that share the training, with the same command on each through torchrun "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("32-true", "bf16-mixed", "16-mixed"),
        default="32-true",
        help="number format of the training (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default: a new one under runs/)"
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go on with the interrupted run in --out (default: no)",
    )
    return parser.parse_args()


def main() -> None:
    """Trains, tests and writes the results."""
    args = parse_args()
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"Expected '--threads' to be a positive integer (got {args.threads})")
        torch.set_num_threads(args.threads)
    if args.select == "best" and args.val_size == 0:
        raise ValueError(
            "Expected '--val_size' to be positive with '--select best', since epochs are chosen on "
            "validation cells (got 0)"
        )
    if args.devices * args.num_nodes > 1 and args.out is None:
        raise ValueError(
            "Expected '--out' to be given with '--devices' or '--num_nodes' above 1, so that all "
            "processes use the same folder (got none)"
        )
    device = resolve_device(args.device)

    # What to train on, and how:
    dataset = NASBench201(target=args.target)
    target = NASBench201.targets[args.target]
    stands_in = args.target in ("cifar10valid_valid_acc", "cifar10_estimated_acc")
    test_target = args.test_target or ("cifar10_test_acc" if stands_in else args.target)
    split = dataset.get_split(args.train_size, args.val_size, args.seed)

    recipe = override(get_recipe(args.recipe), args)
    if recipe.augmentation == "equivalent" and target.kind in ("latency", "time"):
        raise ValueError(
            f"Expected '--recipe' to be another than {args.recipe} for '--target {args.target}': "
            f"cells that compute the same function do not have the same {target.kind}"
        )

    # What is trained:
    torch.manual_seed(args.seed)
    token_encoder = CellTokenEncoder()
    model = create_model(args.model, token_encoder.out_channels, **recipe.model)
    labels = dataset.labels(args.target)[split.train]
    scale = recipe.label_scale or label_scale(target.kind, labels)
    predictor = ArchitecturePredictor(
        token_encoder,
        model,
        [args.target],
        [target.unit],
        scale,
    )
    num_parameters = sum(p.numel() for p in predictor.parameters())

    is_first = all(int(os.environ.get(name) or 0) == 0 for name in ("RANK", "LOCAL_RANK"))
    out = prepare_folder(args, test_target) if is_first else args.out
    if is_first:
        split.save(out / "split.json")
        steps = -(-args.train_size // (recipe.batch_size * args.devices * args.num_nodes))
        num_epochs = recipe.num_epochs(steps)
        print(
            f"Training {args.model} ({num_parameters:,} parameters) on {args.target} of "
            f"{args.train_size} cells, recipe '{recipe.name}', {num_epochs} epochs."
        )

    checkpoint = out / "training.ckpt"
    try:
        result = fit(
            predictor,
            dataset[split.train],
            recipe,
            val_set=dataset[split.val] if args.val_size > 0 else None,
            select=args.select,
            seed=args.seed,
            device=args.device,
            devices=args.devices,
            num_nodes=args.num_nodes,
            precision=args.precision,
            checkpoint=checkpoint,
            resume=checkpoint if args.resume and checkpoint.is_file() else None,
        )
    except KeyboardInterrupt:
        sys.exit(f"Interrupted; run the same command with '--resume --out {out}' to go on.")
    if result.rank > 0:
        return  # the first process goes on with the same parameters
    predictor.save_pretrained(out)

    # How good it is on all cells, and on those whose labels it has not seen:
    prediction = predictor.predict(dataset, device=device)[:, 0]
    labels = dataset.labels(test_target)
    test = split.all[labels[split.all].isfinite()]
    metrics = {"all cells": all_metrics(prediction[test], labels[test])}
    unseen = split.test[labels[split.test].isfinite()]
    if unseen.numel() > 1:
        metrics["unseen cells"] = all_metrics(prediction[unseen], labels[unseen])
    write_json(
        out / "metrics.json",
        {
            "metrics": metrics,
            "model": args.model,
            "num_parameters": num_parameters,
            "train_target": args.target,
            "test_target": test_target,
            "train_size": args.train_size,
            "val_size": args.val_size,
            "seed": args.seed,
            "selected": f"{args.select} epoch ({result.selected_epoch + 1})",
            "train_seconds": result.seconds,
            "recipe": recipe.to_dict(),
            "precision": args.precision,
            "environment": environment(),
            "history": result.history,
        },
    )
    in_training = torch.zeros(len(dataset), dtype=torch.bool)
    in_training[split.train] = True
    write_predictions(
        out / "predictions.csv",
        [str(dataset.cell(i)) for i in test.tolist()],
        prediction[test],
        labels[test],
        in_training[test],
    )
    plot_predictions(
        out / "predictions.png",
        prediction[test],
        labels[test],
        label=test_target,
        predicted_label=args.target,
        unit=NASBench201.targets[test_target].unit,
        title=f"{args.model}, {args.train_size} training cells, "
        f"tau {metrics['all cells']['kendall_tau']:.3f}",
    )
    plot_history(out / "history.png", result.history)

    print(f"\nTested on {test_target}:\n")
    print(format_table(
        metrics,
        training_seconds=f"{result.seconds:.1f}",
        parameters=f"{num_parameters:,}",
    ))  # fmt: skip
    print(f"\nResults: {out}/")


def override(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """Replaces the settings of the recipe that the command line gives."""

    def given(*names: str) -> dict[str, int]:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    model = {**recipe.model, **given("hidden_channels", "num_blocks")}
    changes: dict[str, Any] = given("epochs", "batch_size")
    if args.epochs is not None:
        changes["min_steps"] = 0
    return dataclasses.replace(recipe, model=model, **changes)


def prepare_folder(args: argparse.Namespace, test_target: str) -> Path:
    """Makes the folder of the results, or checks that of the run to go on with."""
    ignored = {"out", "resume", "threads", "device", "devices", "num_nodes"}
    settings = {k: v for k, v in vars(args).items() if k not in ignored}
    settings["test_target"] = test_target
    out = args.out or default_folder(args)
    file = out / "settings.json"

    if args.resume:
        try:
            earlier = json.loads(file.read_text("utf-8"))
            changed = [f"{k}: {earlier.get(k)} there, {v} here" for k, v in settings.items()
                       if earlier.get(k) != v]  # fmt: skip
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(
                "Expected '--out' to hold the 'settings.json' and 'training.ckpt' of an "
                f"interrupted run (got {out}: {type(error).__name__}); start without '--resume'"
            ) from error
        if changed:
            raise ValueError(
                f"Expected '--resume' to have the arguments of the run in {out} "
                f"(got {'; '.join(changed)})"
            )
        return out

    if any((out / name).exists() for name in ("training.ckpt", "metrics.json")):
        raise ValueError(
            f"Expected '--out' to be a new folder (got {out}, which holds an earlier run); pass "
            "'--resume' to go on with it, or another folder"
        )
    try:
        write_json(file, settings)
    except OSError as error:
        raise ValueError(
            f"Expected '--out' to be a folder that can be written (got {out}: {error.strerror})"
        ) from error
    return out


def default_folder(args: argparse.Namespace) -> Path:
    """Names a new folder under runs/ or, to resume, the last one of an interrupted run."""
    name = f"nasbench201_{args.target}_{args.model}_{args.recipe}"
    base = Path("runs") / f"{name}_{args.train_size}_seed{args.seed}"
    taken, number = [], 1
    while (out := base if number == 1 else base.with_name(f"{base.name}_{number}")).exists():
        taken.append(out)
        number += 1
    if not args.resume:
        return out
    interrupted = [out for out in taken if not (out / "metrics.json").exists()]
    if not interrupted:
        raise ValueError(
            f"Expected '--out' to name the folder of an interrupted run (got none, and {base} "
            "holds no such run); start without '--resume'"
        )
    return interrupted[-1]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
