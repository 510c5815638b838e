r"""Counts the Python calls of one training step inside :func:`narformer_pyg.training.fit`.

    python benchmarks/calls.py

A step of a small batch is bound by Python, so the number of calls is a figure of speed that no busy
neighbour changes. Counted are the calls of Python functions (profiler hook) of the whole process,
the loader and Lightning included, between the ends of two steps; the median over an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import fit, get_recipe


class CountCalls(Callback):
    """Counts the calls between the ends of two steps, from the second epoch on."""

    def __init__(self) -> None:
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
        self.calls += event == "call"


def calls_per_step(recipe_name: str, num_cells: int = 160) -> int:
    """Returns the median number of calls of a step."""
    recipe = get_recipe(recipe_name)
    dataset = NASBench201(target="cifar10valid_valid_acc")
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **recipe.model)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    count = CountCalls()
    train_set = dataset[:num_cells]
    fit(predictor, train_set, recipe, device="cpu", progress=False, max_steps=30, callbacks=[count])
    return int(statistics.median(count.counts))


def main() -> None:
    """Prints the number."""
    parser = argparse.ArgumentParser(description="Count the Python calls of a training step.")
    parser.add_argument("--recipe", default="quick", help="training settings (default: quick)")
    args = parser.parse_args()
    print(f"{calls_per_step(args.recipe)} calls a step, recipe {args.recipe}, batches of "
          f"{get_recipe(args.recipe).batch_size} cells")  # fmt: skip


if __name__ == "__main__":
    main()
