r"""Counts the Python calls of one training step inside :func:`narformer_pyg.training.fit`.

    python benchmarks/calls.py

A step of a small batch is bound by Python, so the number of calls is a figure of speed that no busy
neighbour changes. Counted are the calls of functions of this package (profiler hook), the loader
and the callbacks included, between the ends of two steps; the median over an epoch. With ``--all``
those of PyTorch, PyG and Lightning count too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

import narformer_pyg
from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import fit, get_recipe


class CountCalls(Callback):
    """Counts the calls between the ends of two steps, from the second epoch on."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        self.calls = 0
        self.counts: list[int] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Starts the next count."""
        sys.setprofile(None)
        if trainer.current_epoch > 0:
            self.counts.append(self.calls)
        self.calls = 0
        sys.setprofile(self._count)

    def on_train_end(self, *args: Any) -> None:
        """Stops."""
        sys.setprofile(None)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self.calls += event == "call" and frame.f_code.co_filename.startswith(self.folder)


def calls_per_step(recipe_name: str, num_cells: int = 160, of_all: bool = False) -> int:
    """Returns the median number of calls of a step."""
    recipe = get_recipe(recipe_name)
    dataset = NASBench201(target="cifar10valid_valid_acc")
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **recipe.model)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    count = CountCalls("" if of_all else str(Path(narformer_pyg.__file__).parent))
    train_set = dataset[:num_cells]
    fit(predictor, train_set, recipe, device="cpu", progress=False, max_steps=30, callbacks=[count])
    return int(statistics.median(count.counts))


def main() -> None:
    """Prints the number."""
    parser = argparse.ArgumentParser(description="Count the Python calls of a training step.")
    parser.add_argument("--recipe", default="quick", help="training settings (default: quick)")
    parser.add_argument("--all", action="store_true", help="count calls outside the package too")
    args = parser.parse_args()
    calls, size = calls_per_step(args.recipe, of_all=args.all), get_recipe(args.recipe).batch_size
    print(f"{calls} calls a step, recipe {args.recipe}, batches of {size} cells")


if __name__ == "__main__":
    main()
