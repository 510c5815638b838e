"""Recipes: all settings of a training but data, model class and machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal

import torch

from narformer_pyg._checks import check_integer
from narformer_pyg.nn import LOSSES

_NUMBERS = ("learning_rate", "warmup", "weight_decay", "gradient_clip", "label_scale")


@dataclass(frozen=True)
class Recipe:
    r"""How a predictor is trained.

    Args:
        name (str): What the recipe is called.
        epochs (int): The number of epochs, if these have :obj:`min_steps` steps.
        batch_size (int): Graphs in a batch; with augmentation as many copies come on top.
        learning_rate (float): The peak learning rate of Adam. It rises linearly over the first
            :obj:`warmup` of the steps and falls linearly to zero over the rest.
        warmup (float): The share of the steps that the learning rate rises.
        weight_decay (float): Decoupled weight decay.
        gradient_clip (float): The largest norm of the gradient of all parameters; :obj:`0` for no
            limit. Failed architectures have relative errors far above one.
        losses (dict): The weight of each loss, by its name in :obj:`narformer_pyg.nn.LOSSES`. The
            loss :obj:`"architecture_consistency"` needs augmented copies.
        loss_arguments (dict): Arguments of the losses that need some, by the same names.
        augmentation (str, optional): :obj:`"first"` gives each graph one fixed augmented copy,
            :obj:`"random"` several of which each epoch draws one. :obj:`"equivalent"` replaces each
            cell of NAS-Bench-201 in each epoch by one that computes the same function, of which
            there is none next to it. :obj:`None` for none.
        num_copies (int): Augmented copies of each graph with :obj:`augmentation="random"`.
        calibrate (bool): Whether to fit :meth:`ArchitecturePredictor.calibrate
            <narformer_pyg.predictor.ArchitecturePredictor.calibrate>` to the training graphs when
            training ends.
        min_steps (int): The least number of steps: on few graphs there are more epochs.
        label_scale (float): The divisor of labels in training; :obj:`0` for that of
            :func:`~narformer_pyg.training.label_scale`.
        model (dict): Arguments of the model.
        token_encoder (dict): Arguments of the token encoder, for recipes of ONNX models; its
            :obj:`vocabulary` and :obj:`counting` are those to convert models with.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    losses: dict[str, float] = field(default_factory=lambda: {"relative_mse": 1.0})
    loss_arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    augmentation: Literal["first", "random", "equivalent"] | None = None
    num_copies: int = 1
    calibrate: bool = False
    min_steps: int = 0
    label_scale: float = 0.0
    model: dict[str, Any] = field(default_factory=dict)
    token_encoder: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_copies"):
            check_integer(name, getattr(self, name))
        check_integer("min_steps", self.min_steps, 0)
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        numbers |= {f"losses[{name!r}]": weight for name, weight in self.losses.items()}
        for name, value in numbers.items():
            if not (isinstance(value, (int, float)) and isfinite(value) and value >= 0):
                raise ValueError(f"Expected '{name}' to be a number of at least 0 (got {value!r})")
        if not self.learning_rate > 0:
            raise ValueError(f"Expected 'learning_rate' to be positive (got {self.learning_rate})")
        if not self.warmup < 1.0:
            raise ValueError(f"Expected 'warmup' to be in [0, 1) (got {self.warmup})")
        for name in (*self.losses, *self.loss_arguments):
            LOSSES.get(name)
        if not any(self.losses.values()):
            raise ValueError(
                f"Expected 'losses' to have at least one positive weight (got {self.losses})"
            )
        if self.augmentation not in (None, "first", "random", "equivalent"):
            raise ValueError(
                "Expected 'augmentation' to be 'first', 'random', 'equivalent' or None "
                f"(got {self.augmentation!r})"
            )
        losses = self.create_losses().values()
        if self.augmentation not in ("first", "random") and any(map(compares_copies, losses)):
            raise ValueError(
                "Expected 'augmentation' to be 'first' or 'random' for a loss that compares graphs "
                f"with their augmented copies (got {self.augmentation!r})"
            )

    def create_losses(self) -> dict[str, torch.nn.Module]:
        """Returns the losses that have a weight, by name."""
        return {
            name: LOSSES.get(name)(**self.loss_arguments.get(name, {}))
            for name, weight in self.losses.items()
            if weight > 0
        }

    def num_epochs(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs when each has this many steps."""
        return max(self.epochs, -(-self.min_steps // steps_per_epoch))

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values, for results and checkpoints."""
        return asdict(self)


def compares_copies(loss: torch.nn.Module) -> bool:
    """Whether a loss compares predictions of graphs and of their augmented copies, not labels."""
    return bool(getattr(loss, "compares_copies", False))


#: The paper's training on NAS-Bench-201 (supplement, section C.3.3, and the authors' release).
PAPER = Recipe(
    name="paper",
    epochs=1000,
    batch_size=8,
    learning_rate=1e-4,
    losses={"relative_mse": 1.0, "sequence_ranking": 0.1, "architecture_consistency": 0.5},
    augmentation="first",
    model={"hidden_channels": 512, "num_blocks": 6, "dropout": 0.05},
)

#: Minutes on two CPU cores instead of hours: a quarter of the width, a loss on the order of pairs,
#: clipped gradients. Chosen on the validation accuracy of 600 cells outside the training set.
QUICK = Recipe(
    name="quick",
    epochs=150,
    batch_size=16,
    learning_rate=1e-3,
    gradient_clip=1.0,
    losses={"relative_mse": 1.0, "sequence_ranking": 0.1, "pairwise_ranking": 0.05},
    loss_arguments={"pairwise_ranking": {"temperature": 0.01}},
    model={"hidden_channels": 128, "num_blocks": 6, "dropout": 0.05},
)

#: For cells of NAS-Bench-201: every epoch shows another cell that computes the same function, and
#: predictions are means over such cells; a layer norm follows the attention; pairs count more, and
#: what they do to the values is undone in the end.
#: Chosen on the validation labels of 600 cells outside the training set.
BEST = Recipe(
    name="best",
    epochs=300,
    batch_size=32,
    learning_rate=1.5e-3,
    gradient_clip=1.0,
    losses={"relative_mse": 1.0, "sequence_ranking": 0.1, "pairwise_ranking": 0.1},
    loss_arguments={"pairwise_ranking": {"temperature": 0.01}},
    augmentation="equivalent",
    calibrate=True,
    min_steps=7500,
    model={"hidden_channels": 128, "num_blocks": 6, "dropout": 0.05, "norm": "layer"},
)

#: The paper's training on NNLQP's latencies (supplement, section C.3.1, and the authors' release).
#: Labels are milliseconds as they are: from predictions far above small ones, relative errors would
#: drive all predictions to zero in the first epochs, where no gradient is left.
LATENCY_PAPER = Recipe(
    name="latency_paper",
    epochs=50,
    batch_size=16,
    learning_rate=1e-3,
    label_scale=1.0,
    model={"hidden_channels": 512, "num_blocks": 2, "readout": "sum", "dropout": 0.05},
    token_encoder={"vocabulary": "nnlqp", "counting": "nnlqp"},
)

#: A quarter of the paper's width, a loss that is symmetric in the ratio, graph features on a
#: logarithmic scale, and all operators of ONNX. Chosen on a tenth of the training networks.
LATENCY = Recipe(
    name="latency",
    epochs=30,
    batch_size=16,
    learning_rate=1e-3,
    gradient_clip=1.0,
    losses={"log_ratio": 1.0},
    model={"hidden_channels": 128, "num_blocks": 2, "readout": "sum", "dropout": 0.05},
    token_encoder={"vocabulary": "onnx", "counting": "standard", "static_scale": "log"},
)

#: Recipes for cells, whose labels are accuracies most of the time.
CELL_RECIPES = ("quick", "best", "paper")
#: Recipes for ONNX models with latencies.
LATENCY_RECIPES = ("latency", "latency_paper")
RECIPES = {recipe.name: recipe for recipe in (QUICK, BEST, PAPER, LATENCY, LATENCY_PAPER)}


def get_recipe(name: str) -> Recipe:
    """Returns the recipe called ``name``."""
    if name not in RECIPES:
        raise ValueError(f"Expected 'recipe' to be among {', '.join(RECIPES)} (got {name!r})")
    return RECIPES[name]
