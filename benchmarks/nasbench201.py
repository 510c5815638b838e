"""The trainings behind all tables of NAS-Bench-201: one row of a CSV file for each.

    python benchmarks/nasbench201.py --list
    python benchmarks/nasbench201.py --groups accuracy best --threads 1

A training that has its row is left alone (``--again`` repeats it), one that was interrupted goes on
from its last checkpoint, and one that another process is at is left to it: start the same command
several times to use several cores. ``tables.py`` makes tables of the rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from narformer_pyg.datasets import NASBench201, Split
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.spaces.nasbench201 import function_indices
from narformer_pyg.training import QUICK, Recipe, all_metrics, fit, get_recipe, label_scale
from narformer_pyg.training.report import environment, write_json

VALID, TEST, ESTIMATE = "cifar10valid_valid_acc", "cifar10_test_acc", "cifar10_estimated_acc"
LOSS = "cifar10valid_test_loss"
RESULTS = common.FOLDER / "results" / "nasbench201.csv"
SIZES = (78, 156, 469, 781, 1563)  # 0.5, 1, 3, 5 and 10 % of the space
MODELS = ("narformer_v2", "gcn", "gat", "gin", "graphsage")
TRAINED = "trained.json"  # in the working folder of a network: it is trained and has predicted
LATENCIES = tuple(name for name in NASBench201.targets if name.startswith("latency_"))


@dataclass(frozen=True)
class Run:
    r"""One training.

    Args:
        group (str): The table that it is for.
        train_size (int): Training cells.
        seed (int): Seed of split, parameters and training.
        model (str): One of :func:`narformer_pyg.nn.models.list_models`.
        recipe (str): The recipe.
        target (str): The label trained on.
        test_target (str): The label tested on.
        val_size (int): Cells whose labels draw the curve; nothing is chosen on them here.
        variant (str): The change to the recipe, for the name of the row.
        changes (dict): Settings of the recipe that differ.
        model_changes (dict): Arguments of the model that differ.
        num_networks (int): Networks whose mean is the prediction.
    """

    group: str
    train_size: int
    seed: int
    model: str = "narformer_v2"
    recipe: str = "quick"
    target: str = VALID
    test_target: str = TEST
    val_size: int = 0
    variant: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    model_changes: dict[str, Any] = field(default_factory=dict)
    num_networks: int = 1

    @property
    def name(self) -> str:
        """The key of the row."""
        what = "" if self.target == VALID else self.target.removeprefix("cifar10valid_")
        parts = (self.model, self.variant, self.recipe, what, str(self.train_size))
        return "_".join([*filter(None, parts), f"seed{self.seed}"])


def programme() -> Iterator[Run]:
    """Yields all trainings, what matters most first."""
    loss = {"target": LOSS, "test_target": LOSS, "val_size": 200}
    for seed in range(5):
        yield Run("best", 781, seed, recipe="best", target=ESTIMATE)
    for seeds in (range(3), range(3, 5)):
        for size in (1563, 156):
            for seed in seeds:
                yield Run("best", size, seed, recipe="best", target=ESTIMATE)
        for seed in seeds:
            yield Run("loss", 781, seed, recipe="best", **loss)
        if 0 in seeds:
            yield from compared_at_781_cells()
    for model in ("narformer_v2", "gat", "gcn"):
        for seed in range(3):
            yield Run("loss", 781, seed, model, **loss)
    for size in (156, 78, 469):
        for seed in range(3):
            for model in MODELS:
                yield Run("accuracy", size, seed, model)
            if size != 156:
                yield Run("best", size, seed, recipe="best", target=ESTIMATE)
    for variant, changes, model_changes in ABLATIONS:
        for seed in range(3):
            yield Run("ablation", 781, seed, variant=variant, changes=changes,
                      model_changes=model_changes)  # fmt: skip
    for size in (156, 1563):
        for seed in range(3):
            yield Run("best", size, seed, recipe="best")
    for seed in range(3):
        yield Run("ensemble", 1563, seed, recipe="best", variant="ensemble", num_networks=3)
    for seed in range(3):
        for model in MODELS:
            yield Run("accuracy", 1563, seed, model)
    for seed in range(3):
        for size in (900, 100):
            for target in LATENCIES:
                for model in ("narformer_v2", "gcn", "gat"):
                    yield Run("latency", size, seed, model, target=target, test_target=target)
    for size in (781, 1563):
        yield Run("paper", size, 0, recipe="paper", val_size=200)


def compared_at_781_cells() -> Iterator[Run]:
    """Yields the trainings that are compared with one another on as many cells."""
    for seed in range(3):
        yield Run("best", 781, seed, recipe="best")
    for seed in range(3):
        yield Run("accuracy", 781, seed)
        for attention in ("softmax", "global_softmax"):
            changed = {"attention": attention}
            yield Run("attention", 781, seed, variant=attention, model_changes=changed)
    for seed in range(3):
        for model in MODELS[1:]:
            yield Run("accuracy", 781, seed, model)
    for seed in range(3):
        yield Run("accuracy", 781, seed, target=ESTIMATE)
        for model in ("gat", "gcn"):
            yield Run("best", 781, seed, model, recipe="best", target=ESTIMATE)


#: What is taken away from the recipe or the model, or added to it. With augmented copies a batch
#: is 8 cells and their copies, so that a step sees 16 graphs as before (and there are twice as
#: many); the consistency loss needs these copies, so it compares with "augmentation".
ABLATIONS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("no_degree_gate", {}, {"degree_gate": False}),
    ("no_root_projection", {}, {"root_weight": False}),
    ("no_sigmoid", {}, {"sigmoid": False}),
    ("no_normalisation", {}, {"normalize": False}),
    ("layer_norm", {}, {"norm": "layer"}),
    ("no_gffn", {}, {"ffn_ratio": 0}),
    ("no_layer_scale", {}, {"layer_scale": None}),
    ("augmentation", {"augmentation": "first", "batch_size": 8}, {}),
    (
        "augmentation_ac",
        {
            "augmentation": "first",
            "batch_size": 8,
            "losses": {**QUICK.losses, "architecture_consistency": 0.5},
        },
        {},
    ),
    ("no_sr", {"losses": {**QUICK.losses, "sequence_ranking": 0.0}}, {}),
    ("equivalent_cells", {"augmentation": "equivalent"}, {}),
)
GROUPS = ("best", "ensemble", "loss", "attention", "accuracy", "ablation", "latency", "paper")


def main() -> None:
    """Works through the programme."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--sizes", nargs="+", type=int, help="training cells (default: all)")
    parser.add_argument("--recipes", nargs="+", help="recipes (default: all)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    variants = sorted({run.variant for run in programme()} - {""})
    parser.add_argument("--variants", nargs="+", choices=variants, help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: 1)")
    parser.add_argument("--device", default="cpu", help="where to train (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="fewer passes, to see that the script works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file of the results")
    parser.add_argument("--again", action="store_true", help="repeat what has its row")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/nasbench201"),
        help="folder of checkpoints, predictors and predictions (default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.epochs is not None and args.out == RESULTS:
        parser.error("Expected '--out' to be given with '--epochs' (got the file of the results)")
    runs = [
        run
        for run in programme()
        if run.group in args.groups
        and (args.sizes is None or run.train_size in args.sizes)
        and run.model in args.models
        and (args.recipes is None or run.recipe in args.recipes)
        and (args.variants is None or run.variant in args.variants)
        and (args.seeds is None or run.seed in args.seeds)
    ]
    args.work.mkdir(parents=True, exist_ok=True)
    for run in runs:
        is_done = run.name in common.read_rows(args.out)
        if args.list:
            print(f"{'done' if is_done else '    '} {run.group:9} {run.name}")
            continue
        with (args.work / f"{run.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process is at it
            if args.again or not is_done:
                result = train(run, args)
                common.write_row(args.out, run.name, result)
                for folder in network_folders(run, args):
                    for name in ("training.ckpt", TRAINED):
                        (folder / name).unlink(missing_ok=True)
                tau = result["metrics"]["all cells"]["kendall_tau"]
                print(f"{run.name}: tau {tau:.4f}, {result['train_seconds']:.0f} s", flush=True)


def train(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and tests; keeps checkpoints, predictors and predictions in the working folder.

    An ensemble predicts the mean of its networks, which differ in their parameters and in the
    order of the batches; all are trained on the same cells.
    """
    recipe = get_recipe(run.recipe)
    changes = dict(run.changes)
    if args.epochs is not None:
        changes.update(epochs=args.epochs, min_steps=0)
    recipe = dataclasses.replace(recipe, model={**recipe.model, **run.model_changes}, **changes)
    if run.model != "narformer_v2":  # what else there is are arguments of NAR-Former V2 alone
        shared = ("hidden_channels", "num_blocks", "dropout")
        recipe = dataclasses.replace(recipe, model={key: recipe.model[key] for key in shared})
    dataset = NASBench201(target=run.target)
    split = dataset.get_split(run.train_size, run.val_size, run.seed)
    folders = network_folders(run, args)
    networks = []
    for index, folder in enumerate(folders):
        path = folder / TRAINED
        trained = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if trained.get("recipe") != recipe.to_dict():  # not yet, or with other settings
            seed = run.seed + 1000 * index
            trained = train_network(run, recipe, dataset, split, seed, folder, args.device)
            write_json(path, trained)
        networks.append(trained)
    predictions = torch.from_numpy(np.stack([np.load(f / "predictions.npy") for f in folders]))
    prediction = predictions.mean(dim=0)
    np.save(args.work / run.name / "predictions.npy", prediction.numpy())

    functions = function_indices()
    is_new = ~torch.isin(functions, functions[torch.cat([split.train, split.val])])
    metrics = {
        name: measure(prediction, dataset.labels(run.test_target), cells)
        for name, cells in (
            ("all cells", split.all),
            ("unseen cells", split.test),
            ("unseen functions", is_new.nonzero().flatten()),
        )
    }
    alone = [measure(values, dataset.labels(run.test_target), split.all) for values in predictions]
    others = {
        name: measure(prediction, dataset.labels(name), split.all)
        for name in (VALID, "cifar10valid_test_acc")
        if run.test_target == TEST
    }
    return {
        "metrics": metrics,
        "other_labels": others,
        "group": run.group,
        "variant": run.variant,
        "model": run.model,
        "num_parameters": networks[0]["num_parameters"],
        "networks": [
            {"seed": network["seed"], "kendall_tau": metrics["kendall_tau"]}
            for network, metrics in zip(networks, alone, strict=True)
        ],
        "train_target": run.target,
        "test_target": run.test_target,
        "train_size": run.train_size,
        "val_size": run.val_size,
        "seed": run.seed,
        "split_sha256": hashlib.sha256(split.train.numpy().tobytes()).hexdigest()[:16],
        "selected": f"last epoch ({networks[0]['selected_epoch'] + 1})",
        "train_seconds": sum(network["seconds"] for network in networks),
        "recipe": {"name": recipe.name},
        "precision": "32-true",
        "date": date.today().isoformat(),
        "environment": environment(),
    }


def network_folders(run: Run, args: argparse.Namespace) -> list[Path]:
    """Returns the working folder of every network of a run: one, if it is no ensemble."""
    folder = args.work / run.name
    if run.num_networks == 1:
        return [folder]
    return [folder / f"network{index}" for index in range(run.num_networks)]


def train_network(
    run: Run,
    recipe: Recipe,
    dataset: NASBench201,
    split: Split,
    seed: int,
    folder: Path,
    device: str,
) -> dict[str, Any]:
    """Trains one network, or goes on with it, and writes predictor and predictions to a folder."""
    target = NASBench201.targets[run.target]
    torch.manual_seed(seed)
    token_encoder = CellTokenEncoder()
    model = create_model(run.model, token_encoder.out_channels, **recipe.model)
    scale = label_scale(target.kind, dataset.labels(run.target)[split.train])
    predictor = ArchitecturePredictor(
        token_encoder,
        model,
        [run.target],
        [target.unit],
        scale,
    )
    checkpoint = folder / "training.ckpt"
    try:
        result = fit(
            predictor,
            dataset[split.train],
            recipe,
            val_set=dataset[split.val] if run.val_size > 0 else None,
            seed=seed,
            device=device,
            checkpoint=checkpoint,
            resume=checkpoint if checkpoint.is_file() else None,
            progress=False,
        )
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command to go on.")
    predictor = result.predictor
    predictor.save_pretrained(folder)
    np.save(folder / "predictions.npy", predictor.predict(dataset)[:, 0].numpy())
    return {
        "seed": seed,
        "recipe": recipe.to_dict(),
        "seconds": result.seconds,
        "selected_epoch": result.selected_epoch,
        "num_parameters": sum(p.numel() for p in predictor.parameters()),
        "history": result.history,
    }


def measure(prediction: torch.Tensor, label: torch.Tensor, cells: torch.Tensor) -> dict[str, float]:
    """Returns all metrics on the cells that have a label.

    Kendall's tau-b leaves pairs of equal predictions out; "kendall_tau_ties_broken" is what it
    would be on average if these pairs were put in order at random.
    """
    known = cells[label[cells].isfinite()]
    metrics = all_metrics(prediction[known], label[known])
    num_pairs = len(known) * (len(known) - 1) / 2
    _, counts = prediction[known].unique(return_counts=True)
    share = float((counts * (counts - 1) / 2).sum()) / num_pairs
    metrics["kendall_tau_ties_broken"] = metrics["kendall_tau"] * (1.0 - share) ** 0.5
    return metrics


if __name__ == "__main__":
    main()
