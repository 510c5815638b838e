r"""Trains the network of a DARTS genotype on CIFAR-10, as DARTS does to evaluate it.

    python examples/darts_cifar10.py --data cifar10 --download      # DARTS_V2; a day on a V100 GPU
    python examples/darts_cifar10.py --data cifar10 --genotype PDARTS --precision bf16
    python examples/darts_cifar10.py --data cifar10 --genotype "Genotype(normal=[...], ...)"
    python examples/darts_cifar10.py --fake_data --epochs 2 --max_steps 3 --C 4 --layers 3

The defaults are the protocol of the paper (https://arxiv.org/abs/1806.09055) and of its code: 20
cells of 36 channels, 600 epochs of batches of 96, SGD with momentum 0.9, weight decay 3e-4 and a
learning rate that falls from 0.025 to 0 as a cosine, norms of gradients clipped at 5, random crops
and flips, cutout of 16 pixels, a second classifier of weight 0.4, drop path that grows to 0.2. With
them, the authors report a test error of 2.76 ± 0.09 % for DARTS_V2, over ten runs.

--data names a folder with CIFAR-10 as its authors give it (https://www.cs.toronto.edu/~kriz/cifar):
'cifar-10-batches-bin', 'cifar-10-binary.tar.gz' or 'cifar-10-batches-py'. An interrupted run goes
on after the last full epoch with the same command and --resume, and ends with the same numbers (on
a GPU, up to what its convolutions round differently each time).
"""

from __future__ import annotations

import argparse
import csv
import math
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10 import Images, augment, fake_cifar10, load_cifar10, normalize
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg._files import atomic_write, check_folder
from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype, DARTSNetwork
from narformer_pyg.training import resolve_device
from narformer_pyg.training.report import environment, write_json

PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train a DARTS genotype on CIFAR-10.")
    add = parser.add_argument
    add("--data", type=Path, help="folder with CIFAR-10, in the binary or the Python version")
    add(
        "--download",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="download the binary version to --data if nothing is there (162 MB; default: no)",
    )
    add(
        "--fake_data",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="train on random images, to see that all works (default: no)",
    )
    add(
        "--genotype",
        default="DARTS_V2",
        help=f"one of {', '.join(DARTS_GENOTYPES)}, or a genotype in DARTS' notation "
        "(default: %(default)s)",
    )
    numbers: dict[str, tuple[Any, str]] = {
        "epochs": (600, "passes over the training images"),
        "batch_size": (96, "images in a step"),
        "C": (36, "channels of each node in the first cells"),
        "layers": (20, "cells"),
        "learning_rate": (0.025, "at the start"),
        "momentum": (0.9, "of SGD"),
        "weight_decay": (3e-4, "of SGD"),
        "grad_clip": (5.0, "largest norm of the gradient"),
        "cutout": (16, "side of the square that is cut out, in pixels; 0 for none"),
        "auxiliary_weight": (0.4, "weight of the second classifier's loss; 0 for none"),
        "drop_path": (0.2, "probability to drop an operation, reached at the end"),
        "seed": (0, "seed of parameters, batches and augmentation"),
    }
    for name, (default, text) in numbers.items():
        add(f"--{name}", type=type(default), default=default, help=f"{text} (default: %(default)s)")
    add("--max_steps", type=int, help="end each epoch after so many steps (default: no end)")
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    add(
        "--precision",
        choices=tuple(PRECISIONS),
        default="32",
        help="number format of the training; 16 needs a GPU (default: %(default)s)",
    )
    add("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    add(
        "--out",
        type=Path,
        default=Path("runs/darts_cifar10"),
        help="folder of the results (default: %(default)s)",
    )
    add(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go on with the interrupted run in --out (default: no)",
    )
    return parser.parse_args()  # fmt: skip


def main() -> None:
    """Trains, tests after each epoch and writes the results."""
    args = parse_args()
    check_args(args)
    genotype = DARTS_GENOTYPES.get(args.genotype) or DARTSGenotype.from_str(args.genotype)
    device = resolve_device(args.device)
    if args.precision == "16" and device.type != "cuda":
        raise ValueError(f"Expected '--precision 16' with a GPU (got device {str(device)!r})")
    checkpoint = args.out / "training.pt"
    ignored = {"data", "download", "device", "threads", "out", "resume", "genotype"}
    settings = {k: v for k, v in vars(args).items() if k not in ignored}
    settings["genotype"] = str(genotype)
    earlier = read_checkpoint(checkpoint, settings, args.resume)
    check_folder(checkpoint)

    if args.fake_data:
        train, test = fake_cifar10(4 * args.batch_size), fake_cifar10(args.batch_size)
    else:
        train, test = load_cifar10(args.data, args.download)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    network = genotype.to_module(
        C=args.C, layers=args.layers, auxiliary=args.auxiliary_weight > 0
    ).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(), args.learning_rate, args.momentum, weight_decay=args.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "16")
    history: list[dict[str, float]] = []
    if earlier is not None:
        network.load_state_dict(earlier["network"])
        optimizer.load_state_dict(earlier["optimizer"])
        scaler.load_state_dict(earlier["scaler"])
        history = earlier["history"]
    num_parameters = sum(
        p.numel() for name, p in network.named_parameters() if "auxiliary" not in name
    )
    print(f"Training {args.genotype} ({num_parameters:,} parameters) on {len(train.y):,} images, "
          f"epochs {len(history) + 1} to {args.epochs}, on {device}.", flush=True)  # fmt: skip

    train, test = (Images(*(part.to(device) for part in images)) for images in (train, test))
    for epoch in range(len(history), args.epochs):
        start = time.perf_counter()
        row = {"epoch": epoch + 1, **train_epoch(args, epoch, network, optimizer, scaler, train)}
        row["test_accuracy"] = accuracy(network, test, args.precision)
        row["seconds"] = time.perf_counter() - start
        history.append(row)
        write_history(args.out / "history.csv", history)
        with atomic_write(checkpoint) as temporary:
            torch.save(
                {
                    "settings": settings,
                    "history": history,
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                },
                temporary,
            )
        print("  ".join(f"{name} {value:.6g}" for name, value in row.items()), flush=True)

    write_json(
        args.out / "results.json",
        {
            "test_accuracy": history[-1]["test_accuracy"],
            "test_error": 100 - history[-1]["test_accuracy"],
            "num_parameters": num_parameters,
            "seconds": sum(row["seconds"] for row in history),
            "settings": settings,
            "environment": environment(),
            "history": history,
        },
    )
    print(f"\nTest error {100 - history[-1]['test_accuracy']:.2f} %. Results: {args.out}/")


def check_args(args: argparse.Namespace) -> None:
    """Raises a :class:`ValueError` if an argument is out of range."""
    for name in ("epochs", "batch_size", "threads", "max_steps"):
        if getattr(args, name) is not None:
            check_integer(f"--{name}", getattr(args, name))
    check_integer("--cutout", args.cutout, 0)
    check_seed(args.seed, "--seed")
    for name in ("momentum", "weight_decay", "auxiliary_weight"):
        if not 0 <= getattr(args, name) < math.inf:
            raise ValueError(f"Expected '--{name}' to be at least 0 (got {getattr(args, name)})")
    for name in ("learning_rate", "grad_clip"):
        if not 0 < getattr(args, name) < math.inf:
            raise ValueError(f"Expected '--{name}' to be positive (got {getattr(args, name)})")
    if not 0 <= args.drop_path < 1:
        raise ValueError(f"Expected '--drop_path' to be in [0, 1) (got {args.drop_path})")
    if (args.data is None) == (not args.fake_data):
        raise ValueError(
            "Expected either '--data' with the folder of CIFAR-10 or '--fake_data' (got "
            f"{'neither' if args.data is None else 'both'})"
        )
    if args.threads is not None:
        torch.set_num_threads(args.threads)


def train_epoch(
    args: argparse.Namespace,
    epoch: int,
    network: DARTSNetwork,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images: Images,
) -> dict[str, float]:
    """Trains for one epoch. All that is drawn depends on seed and epoch alone."""
    torch.manual_seed(int(np.random.SeedSequence([args.seed, epoch]).generate_state(1)[0]))
    learning_rate = args.learning_rate * (1 + math.cos(math.pi * epoch / args.epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    network.drop_path = args.drop_path * epoch / args.epochs
    network.train()
    device = images.x.device
    batches = torch.randperm(len(images.y), device=device).split(args.batch_size)[: args.max_steps]
    # Summed on the device: asking for a number would wait for it at every step.
    total, right, count = torch.zeros((), device=device), torch.zeros((), device=device), 0
    bar = tqdm(batches, desc=f"Epoch {epoch + 1}", unit="step", leave=False, disable=None)
    for batch in bar:
        x, y = augment(images.x[batch], args.cutout), images.y[batch]
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, args.precision):
            if args.auxiliary_weight > 0:
                logits, auxiliary = network(x, return_auxiliary=True)
                loss = cross_entropy(logits, y)
                objective = loss + args.auxiliary_weight * cross_entropy(auxiliary, y)
            else:
                logits = network(x)
                objective = loss = cross_entropy(logits, y)
        scaler.scale(objective).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), args.grad_clip)
        scaler.step(optimizer)
        scaler.update()
        total += loss.detach() * len(y)
        right += (logits.detach().argmax(dim=1) == y).sum()
        count += len(y)
    mean_loss = float(total / count)
    if not math.isfinite(mean_loss):
        raise FloatingPointError(
            f"The loss of epoch {epoch + 1} is not finite; lower '--learning_rate'"
        )
    return {
        "learning_rate": learning_rate,
        "drop_path": network.drop_path,
        "train_loss": mean_loss,
        "train_accuracy": 100 * float(right / count),
    }


@torch.no_grad()
def accuracy(network: DARTSNetwork, images: Images, precision: str) -> float:
    """Returns the percentage of images whose class is predicted."""
    network.eval()
    right = torch.zeros((), device=images.x.device)
    for x, y in zip(images.x.split(250), images.y.split(250), strict=True):
        with autocast(x.device, precision):
            right += (network(normalize(x)).argmax(dim=1) == y).sum()
    return 100 * float(right / len(images.y))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which the network computes."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def read_checkpoint(path: Path, settings: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Returns the state to go on from, if there is one, and if that is what is wanted."""
    if not path.exists():
        return None
    if not resume:
        raise ValueError(
            f"Expected '--out' to be a new folder (got {path.parent}, which holds an earlier run); "
            "pass '--resume' to go on with it, or another folder"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        earlier = dict(state["settings"])
    except (
        OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"Expected '--out' to hold the 'training.pt' of an interrupted run (got {path}: "
            f"{type(error).__name__})"
        ) from error
    changed = [f"{k}: {earlier.get(k)} there, {v} here" for k, v in settings.items()
               if earlier.get(k) != v]  # fmt: skip
    if changed:
        raise ValueError(
            f"Expected '--resume' to have the arguments of the run in {path.parent} "
            f"(got {'; '.join(changed)})"
        )
    return state


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Writes one line for each epoch."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, history[0])
        writer.writeheader()
        writer.writerows(history)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command with '--resume' goes on.")
