"""Trains on some graphs and writes the losses; started once per process by a test."""

from __future__ import annotations

import json
import sys

import torch

from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import Recipe, fit, predict
from narformer_pyg.training.callbacks import ResumableCheckpoint


def main(out: str, devices: int, batch_size: int, checkpoint: str | None = None) -> None:
    torch.set_num_threads(1)
    recipe = Recipe(
        name="processes",
        epochs=1,
        min_steps=4 * -(-24 // (batch_size * devices)),  # four epochs, however many processes
        batch_size=batch_size,
        learning_rate=1e-3,
        losses={"relative_mse": 1.0, "architecture_consistency": 0.1},
        augmentation="first",
        model={"hidden_channels": 16, "num_blocks": 2, "dropout": 0.0},
    )
    dataset = NASBench201(target="cifar10valid_valid_acc")
    split = dataset.get_split(24, 8, seed=1)
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **recipe.model)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    result = fit(
        predictor,
        dataset[split.train],
        recipe,
        val_set=dataset[split.val],
        check_val_every_n_epoch=2,
        device="cpu",
        devices=devices,
        progress=False,
        checkpoint=None if checkpoint is None else ResumableCheckpoint(checkpoint, 0.0),
    )
    shares = predict(predictor, dataset[:21], 4, device="cpu", devices=devices)
    assert torch.allclose(shares, predictor.predict(dataset[:21]), rtol=1e-5)
    few = predict(predictor, dataset[:1], device="cpu", devices=devices)  # one has no share
    assert few.shape == (1, 1)
    prediction = shares[:, 0].tolist()
    with open(f"{out}.{result.rank}", "w", encoding="utf-8") as file:
        json.dump({"history": result.history, "prediction": prediction}, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
    # Threads of a process group that is still there at exit can end the process with an error.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
