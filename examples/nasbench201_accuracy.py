r"""Predicts the accuracy of all 15,625 cells of NAS-Bench-201 from a few hundred trained ones.

    python examples/nasbench201_accuracy.py                     # minutes on two CPU cores
    python examples/nasbench201_accuracy.py --recipe paper      # the paper's training; hours
    python examples/nasbench201_accuracy.py --target latency_pixel3

NAR-Former V2 is trained on the CIFAR-10 validation accuracy of 781 cells (5 % of the space) and
tested on the CIFAR-10 test accuracy of every cell, as in the supplement of the paper, Table 3. The
labels are inside the package. The README's table holds the results of these commands with the seeds
0, 1 and 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import ArchitecturePredictor, create_model, list_models
from narformer_pyg.training import RECIPES, all_metrics, fit, get_recipe, label_scale
from narformer_pyg.training.report import (
    environment,
    format_table,
    plot_history,
    plot_predictions,
    write_json,
    write_predictions,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a predictor on NAS-Bench-201 and test it on all 15,625 cells.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--train_size", type=int, default=781, help="cells to train on; 781 are 5 %% of the space")
    add("--val_size", type=int, default=0, help="further cells whose labels show the progress")
    add("--select", choices=("last", "best"), default="last",
        help="parameters to test: of the last epoch, or of the best one on the --val_size cells")  # fmt: skip
    add("--recipe", choices=tuple(RECIPES), default="quick",
        help="training settings: minutes, or those of the paper")  # fmt: skip
    add("--model", choices=tuple(list_models()), default="narformer_v2", help="what is trained")
    add("--target", choices=tuple(NASBench201.targets), default="cifar10valid_valid_acc",
        metavar="TARGET", help=f"label to train on, one of: {', '.join(NASBench201.targets)}")  # fmt: skip
    add("--test_target", choices=tuple(NASBench201.targets), default=None, metavar="TARGET",
        help="label to test on; None: cifar10_test_acc for the default target, "
        "otherwise the same label")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the split, the parameters and the training")
    add("--epochs", type=int, default=None, help="epochs; None: as in the recipe")
    add("--batch_size", type=int, default=None, help="cells in a batch; None: as in the recipe")
    add("--hidden_channels", type=int, default=None, help="width; None: as in the recipe")
    add("--num_blocks", type=int, default=None, help="blocks; None: as in the recipe")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--precision", choices=("32-true", "bf16-mixed", "16-mixed"), default="32-true",
        help="number format of the training")  # fmt: skip
    add("--threads", type=int, default=None, help="CPU threads; None: PyTorch's choice")
    add("--out", type=Path, default=None,
        help="folder of the results; None: a new one under runs/")  # fmt: skip
    add("--resume", action=argparse.BooleanOptionalAction, default=False,
        help="go on with the interrupted run in --out")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    # What to train on, and how:
    dataset = NASBench201(target=args.target)
    target = NASBench201.targets[args.target]
    default = "cifar10_test_acc" if args.target == "cifar10valid_valid_acc" else args.target
    test_target = args.test_target or default
    split = dataset.get_split(args.train_size, args.val_size, args.seed)

    recipe = get_recipe(args.recipe)
    overrides = {k: getattr(args, k) for k in ("hidden_channels", "num_blocks")}
    model_args = {**recipe.model, **{k: v for k, v in overrides.items() if v is not None}}
    overrides = {k: getattr(args, k) for k in ("epochs", "batch_size")}
    recipe = dataclasses.replace(
        recipe, model=model_args, **{k: v for k, v in overrides.items() if v is not None}
    )

    # What is trained:
    torch.manual_seed(args.seed)
    token_encoder = CellTokenEncoder()
    model = create_model(args.model, token_encoder.out_channels, **model_args)
    scale = label_scale(target.kind, dataset.labels(args.target)[split.train])
    predictor = ArchitecturePredictor(token_encoder, model, [args.target], [target.unit], scale)
    num_parameters = sum(p.numel() for p in predictor.parameters())

    out = prepare_folder(args, test_target)
    split.save(out / "split.json")
    print(f"Training {args.model} ({num_parameters:,} parameters) on {args.target} of "
          f"{args.train_size} cells, recipe '{recipe.name}', {recipe.epochs} epochs.")  # fmt: skip

    checkpoint = out / "training.ckpt"
    result = fit(
        predictor,
        dataset[split.train],
        recipe,
        val_set=dataset[split.val] if args.val_size > 0 else None,
        select=args.select,
        seed=args.seed,
        device=args.device,
        precision=args.precision,
        checkpoint=checkpoint,
        resume=checkpoint if args.resume else None,
    )
    predictor.save_pretrained(out)

    # How good it is on all cells, and on those whose labels it has not seen:
    prediction = predictor.predict(dataset, device=None)[:, 0]
    labels = dataset.labels(test_target)
    metrics = {
        "all cells": all_metrics(prediction[split.test], labels[split.test]),
        "unseen cells": all_metrics(prediction[split.held_out], labels[split.held_out]),
    }
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
        [str(dataset.cell(i)) for i in split.test.tolist()],
        prediction[split.test],
        labels[split.test],
        in_training[split.test],
    )
    plot_predictions(
        out / "predictions.png",
        prediction[split.test],
        labels[split.test],
        label=test_target,
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


def prepare_folder(args: argparse.Namespace, test_target: str) -> Path:
    """Makes the folder of the results, or checks that of the run to go on with."""
    ignored = {"out", "resume", "threads", "device"}
    settings = {k: v for k, v in vars(args).items() if k not in ignored}
    settings["test_target"] = test_target
    out = args.out
    if out is None:
        name = f"nasbench201_{args.target}_{args.model}_{args.recipe}"
        base = Path("runs") / f"{name}_{args.train_size}_seed{args.seed}"
        out, number = base, 2
        while out.exists() and not args.resume:
            out, number = base.with_name(f"{base.name}_{number}"), number + 1
    file = out / "settings.json"

    if args.resume:
        if not (out / "training.ckpt").is_file():
            raise SystemExit(
                f"Expected '--out' to hold the 'training.ckpt' of an interrupted run (got {out}); "
                "start without '--resume'"
            )
        earlier = json.loads(file.read_text("utf-8"))
        changed = [f"{k}: {earlier.get(k)} there, {v} here" for k, v in settings.items()
                   if earlier.get(k) != v]  # fmt: skip
        if changed:
            raise SystemExit(
                f"Expected '--resume' to have the arguments of the run in {out} "
                f"(got {'; '.join(changed)})"
            )
        return out

    if file.exists():
        raise SystemExit(
            f"Expected '--out' to be a new folder (got {out}, which holds an earlier run); pass "
            "'--resume' to go on with it, or another folder"
        )
    try:
        write_json(file, settings)
    except OSError as error:
        raise SystemExit(
            f"Expected '--out' to be a folder that can be written (got {out}: {error.strerror})"
        ) from error
    return out


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command with '--resume' to go on.")
