"""The arguments and the work of ``narformer train``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

DATASETS = ("nasbench201", "onnx_latency")
_CELLS: dict[str, dict[str, Any]] = {
    "target": {"default": "cifar10valid_valid_acc", "help": "label to train on"},
    "test_target": {"help": "label to test on (default: cifar10_test_acc for labels that stand in "
                            "for it, otherwise the label trained on)"},
    "train_size": {"type": int, "default": 781, "help": "cells to train on"},
    "val_size": {"type": int, "default": 0, "help": "further cells for validation"},
}  # fmt: skip
_NETWORKS: dict[str, dict[str, Any]] = {
    "models": {"type": Path, "help": "folder or archive of models (default: the package's)"},
    "labels": {"type": Path, "help": "CSV file of latencies, or NNLQP's gt.txt (default: gt.txt "
                                     "in --models, or the package's)"},
    "platform": {"help": "platform, where labels have several (default: the one)"},
    "cache": {"type": Path, "help": "folder that keeps converted models (default: in --out)"},
    "val_share": {"type": float, "default": 0.0,
                  "help": "share of the training families for validation"},
    "num_workers": {"type": int, "help": "processes that convert (default: by the number of "
                                         "models)"},
    "split": {"default": "in_domain", "help": "in_domain tests on a tenth of each family, the name "
              "of a family leaves it out, stage is the split of the labels"},
}  # fmt: skip
_TRAINING: dict[str, dict[str, Any]] = {
    "model": {"default": "narformer_v2", "help": "the network"},
    "recipe": {"help": "settings: quick, best or paper for cells, latency or latency_paper for "
                       "networks (default: quick, or latency)"},
    "seed": {"type": int, "default": 0, "help": "seed of the split, the parameters and the "
                                                "training"},
    "select": {"choices": ("last", "best"), "default": "last", "help": "parameters to test: of the "
               "last epoch, or of the one with the best Kendall's tau on validation graphs"},
    "epochs": {"type": int, "help": "passes over the training graphs (default: the recipe's)"},
    "batch_size": {"type": int, "help": "graphs in a batch (default: the recipe's)"},
    "hidden_channels": {"type": int, "help": "width of the model (default: the recipe's)"},
    "num_blocks": {"type": int, "help": "blocks of the model (default: the recipe's)"},
    "device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N"},
    "devices": {"type": int, "default": 1, "help": "GPUs of this machine, or processes on the CPU, "
                "that share the training; needs --out"},
    "num_nodes": {"type": int, "default": 1, "help": "machines that share the training, through "
                                                     "torchrun"},
    "precision": {"choices": ("32-true", "bf16-mixed", "16-mixed"), "default": "32-true",
                  "help": "number format of the training"},
    "matmul_precision": {"choices": ("highest", "high", "medium"), "default": "highest",
                         "help": "of float32 products on a GPU: high is TF32"},
    "engine": {"choices": ("auto", "eager", "captured", "compiled"), "default": "auto",
               "help": "how a GPU trains: operation by operation, or whole steps at once"},
    "threads": {"type": int, "help": "CPU threads (default: PyTorch's choice)"},
    "out": {"type": Path, "help": "folder of the results (default: a new one under runs/)"},
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``narformer train`` to a parser."""
    parser.description = (
        "Train a predictor and test it: on the labels of the package, or on your measured models. "
        "Ends with a table of metrics and a folder with the predictor, predictions and plots."
    )
    parser.add_argument(
        "--dataset", choices=DATASETS, default="nasbench201",
        help="cells with 20 labels, or ONNX models with latencies (default: %(default)s)",
    )  # fmt: skip
    groups = (("nasbench201", _CELLS), ("onnx_latency", _NETWORKS), ("training", _TRAINING))
    for title, options in groups:
        group = parser.add_argument_group(title)
        for name, settings in options.items():
            shown = " (default: %(default)s)" if "default" in settings else ""
            group.add_argument(f"--{name}", **{**settings, "help": settings["help"] + shown})
    parser.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=False,
        help="go on with the interrupted run in --out, or the last one (default: no)",
    )  # fmt: skip


def fit_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Sets threads and precision, and returns the arguments of ``train`` that say how to train.

    Raises:
        ValueError: If arguments contradict each other.
    """
    import torch

    from narformer_pyg._checks import check_integer, resolve_device

    if args.threads is not None:
        torch.set_num_threads(check_integer("--threads", args.threads))
    if args.matmul_precision != "highest":  # the default, which asking for would fix for oneDNN too
        torch.set_float32_matmul_precision(args.matmul_precision)
    resolve_device(args.device)
    if args.devices * args.num_nodes > 1 and args.out is None:
        raise ValueError(
            "Expected '--out' to be given with '--devices' or '--num_nodes' above 1, so that all "
            "processes use the same folder (got none)"
        )
    names = ("seed", "select", "device", "devices", "num_nodes", "precision", "engine")
    return {name: getattr(args, name) for name in names}


def override(recipe: Any, args: argparse.Namespace) -> Any:
    """Returns the recipe with the settings that the command line gives."""

    def given(*names: str) -> dict[str, int]:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    model = {**recipe.model, **given("hidden_channels", "num_blocks")}
    changes: dict[str, Any] = given("epochs", "batch_size")
    if args.epochs is not None:
        changes["min_steps"] = 0
    return dataclasses.replace(recipe, model=model, **changes)


def run(args: argparse.Namespace) -> Any:
    """Trains as the arguments say, prints the table and returns the result."""
    from narformer_pyg.training.recipes import CELL_RECIPES, LATENCY_RECIPES, get_recipe
    from narformer_pyg.training.run import free_folder, interrupted_folder, train
    from narformer_pyg.training.task import (
        latency_dataset,
        latency_splits,
        latency_task,
        nasbench201_task,
    )

    is_cells = args.dataset == "nasbench201"
    recipe_name = args.recipe or ("quick" if is_cells else "latency")
    known = CELL_RECIPES if is_cells else LATENCY_RECIPES
    if recipe_name not in known:
        raise ValueError(
            f"Expected '--recipe' to be among {', '.join(known)} for {args.dataset} "
            f"(got {recipe_name!r})"
        )
    if args.select == "best" and not (args.val_size if is_cells else args.val_share):
        raise ValueError(
            f"Expected '{'--val_size' if is_cells else '--val_share'}' to be positive with "
            "'--select best', since epochs are chosen on validation labels (got 0)"
        )
    arguments = fit_arguments(args)
    recipe = override(get_recipe(recipe_name), args)
    subject = args.target if is_cells else args.split
    name = f"{args.dataset}_{subject}_{args.model}_{recipe_name}"
    name += f"_{args.train_size}" * is_cells + f"_seed{args.seed}"
    out = args.out or (interrupted_folder(name) if args.resume else free_folder(name))
    if is_cells:
        sizes = (args.train_size, args.val_size, args.seed)
        task = nasbench201_task(args.target, args.test_target, *sizes)
    else:
        data = (args.models, args.labels, args.platform, args.num_workers)
        dataset = latency_dataset(recipe, args.cache or out / "graphs", *data)
        if args.split == "all_families":
            raise ValueError(
                "Expected '--split' to be in_domain, stage or one of the families "
                f"{', '.join(latency_splits(args.split, dataset))} (got 'all_families'); "
                "examples/onnx_latency.py trains for all of them"
            )
        task = latency_task(recipe, dataset, args.split, args.val_share, args.seed)
    try:
        result = train(task, recipe, args.model, out=out, resume=args.resume, **arguments)
    except KeyboardInterrupt:
        raise SystemExit(
            f"Interrupted; run the same command with '--resume --out {out}' to go on."
        ) from None
    if result is not None:
        print(
            f"\nTested on {task.test_target} ({task.unit}):\n\n{result.table()}\n\nResults: {out}/"
        )
    return result
