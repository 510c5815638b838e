r"""Trains the network of a DARTS genotype on CIFAR-10, as DARTS does to evaluate it.

    python examples/darts_cifar10.py --data cifar-10-batches-bin      # DARTS_V2; a day on a V100
    python examples/darts_cifar10.py --data cifar-10-batches-bin --genotype PDARTS
    python examples/darts_cifar10.py --fake_data --epochs 2 --C 4 --layers 3

The defaults are the protocol of the paper (https://arxiv.org/abs/1806.09055) and of its code, whose
authors report a test error of 2.76 ± 0.09 % for DARTS_V2 over ten runs. --data is the folder of the
binary version (https://www.cs.toronto.edu/~kriz/cifar). Lightning writes checkpoints to --out;
--resume goes on with the last one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, TensorDataset

from narformer_pyg.spaces import DARTS_GENOTYPES, DARTSGenotype

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def read_cifar10(folder: Path, names: list[str]) -> TensorDataset:
    """Reads files of the binary version: a byte for the class, then 3,072 for the image."""
    rows = np.concatenate(
        [np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names]
    )
    images = torch.from_numpy(rows[:, 1:]).view(-1, 3, 32, 32)
    return TensorDataset(images, torch.from_numpy(rows[:, 0]).long())


def normalize(x: Tensor) -> Tensor:
    """Returns images as numbers of mean 0 and standard deviation 1 in each channel."""
    mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (x.float() / 255 - mean) / std


def augment(x: Tensor, cutout: int) -> Tensor:
    """Crops padded images, flips half of them, and cuts a square out of each."""
    n, place = len(x), torch.arange(32, device=x.device)
    top, left = torch.randint(9, (2, n, 1), device=x.device)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    rows, columns = (place + top).unsqueeze(2), (place + left).unsqueeze(1)
    x = pad(x, (4, 4, 4, 4))[image, :, rows, columns].permute(0, 3, 1, 2)
    x = normalize(torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x))
    middle = torch.randint(32, (2, n, 1), device=x.device)
    hit_rows, hit_columns = (place >= middle - cutout // 2) & (place < middle + cutout // 2)
    return x.masked_fill(hit_rows.view(n, 1, 32, 1) & hit_columns.view(n, 1, 1, 32), 0.0)


class Classifier(LightningModule):
    """The network of a genotype and its training."""

    def __init__(self, args: argparse.Namespace, genotype: DARTSGenotype) -> None:
        super().__init__()
        self.args = args
        self.network = genotype.to_module(C=args.C, layers=args.layers, auxiliary=True)

    def configure_optimizers(self) -> tuple[list, list]:
        """SGD, and a cosine from epoch to epoch."""
        sgd = torch.optim.SGD(self.network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
        return [sgd], [torch.optim.lr_scheduler.CosineAnnealingLR(sgd, self.args.epochs)]

    def on_train_epoch_start(self) -> None:
        """Drops more paths in later epochs."""
        self.network.drop_path = 0.2 * self.current_epoch / self.args.epochs

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of both classifiers."""
        logits, auxiliary = self.network(augment(batch[0], cutout=16), return_auxiliary=True)
        return cross_entropy(logits, batch[1]) + 0.4 * cross_entropy(auxiliary, batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Logs the accuracy on the test images; no epoch is chosen by it."""
        right = self.network(normalize(batch[0])).argmax(dim=1) == batch[1]
        self.log("test_accuracy", 100 * right.float().mean(), prog_bar=True)


def main() -> None:
    """Trains and tests."""
    parser = argparse.ArgumentParser(description="Train a DARTS genotype on CIFAR-10.")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10, binary version")
    parser.add_argument("--fake_data", action="store_true", help="random images, for a first try")
    parser.add_argument("--genotype", default="DARTS_V2", help="a name, or Genotype(...)")
    parser.add_argument("--C", type=int, default=36, help="channels of the first cell")
    parser.add_argument("--layers", type=int, default=20, help="cells")
    parser.add_argument("--epochs", type=int, default=600, help="passes over the images")
    parser.add_argument("--precision", default="32-true", help="or bf16-mixed on a GPU")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters and batches")
    parser.add_argument("--out", type=Path, default=Path("runs/darts_cifar10"), help="results")
    parser.add_argument("--resume", action="store_true", help="go on with the last checkpoint")
    args = parser.parse_args()
    if not args.fake_data and args.data is None:
        parser.error("--data or --fake_data is needed")
    seed_everything(args.seed)
    known = DARTS_GENOTYPES.get(args.genotype)
    classifier = Classifier(args, known or DARTSGenotype.from_str(args.genotype))
    if args.fake_data:
        images = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8)
        train_set = test_set = TensorDataset(images, torch.randint(10, (24,)))
    else:
        train_set = read_cifar10(args.data, [f"data_batch_{i}.bin" for i in range(1, 6)])
        test_set = read_cifar10(args.data, ["test_batch.bin"])
    settings = {"max_epochs": args.epochs, "precision": args.precision, "gradient_clip_val": 5.0}
    trainer = Trainer(default_root_dir=args.out, logger=False, **settings)
    loaders = (DataLoader(train_set, 96, shuffle=True), DataLoader(test_set, 500))
    trainer.fit(classifier, *loaders, ckpt_path="last" if args.resume else None)
    accuracy = float(trainer.callback_metrics["test_accuracy"])
    print(f"Test accuracy after {args.epochs} epochs: {accuracy:.2f} %")


if __name__ == "__main__":
    main()
