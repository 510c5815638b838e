"""Recipes: everything about a training that is not data, model class or machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any, Literal

from narformer_pyg._checks import check_integer


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
        mse_weight (float): Weight of :class:`~narformer_pyg.nn.RelativeMSELoss`.
        log_weight (float): Weight of :class:`~narformer_pyg.nn.LogRatioLoss`.
        ranking_weight (float): Weight of :class:`~narformer_pyg.nn.SequenceRankingLoss`.
        consistency_weight (float): Weight of
            :class:`~narformer_pyg.nn.ArchitectureConsistencyLoss`, for which
            :obj:`augmentation` must be set.
        pairwise_weight (float): Weight of :class:`~narformer_pyg.nn.PairwiseRankingLoss`.
        pairwise_temperature (float): Its temperature.
        augmentation (str, optional): :obj:`"first"` gives each graph one fixed augmented copy,
            :obj:`"random"` several of which each epoch draws one. :obj:`"equivalent"` replaces each
            cell of NAS-Bench-201 in each epoch by one that computes the same function, of which
            there is none next to it. :obj:`None` for none.
        num_copies (int): Augmented copies of each graph with :obj:`augmentation="random"`.
        calibrate (bool): Whether to fit :meth:`ArchitecturePredictor.calibrate
            <narformer_pyg.predictor.ArchitecturePredictor.calibrate>` to the training graphs when
            training ends.
        min_steps (int): The least number of steps: on few graphs there are more epochs.
        label_scale (float): What labels are divided by in training; :obj:`0` for what
            :func:`~narformer_pyg.training.label_scale` says of them.
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
    mse_weight: float = 1.0
    log_weight: float = 0.0
    ranking_weight: float = 0.0
    consistency_weight: float = 0.0
    pairwise_weight: float = 0.0
    pairwise_temperature: float = 1.0
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
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "float" and not (isinstance(value, (int, float)) and isfinite(value)):
                raise ValueError(f"Expected '{item.name}' to be a finite number (got {value!r})")
        if not self.learning_rate > 0:
            raise ValueError(f"Expected 'learning_rate' to be positive (got {self.learning_rate})")
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"Expected 'warmup' to be in [0, 1) (got {self.warmup})")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith(("_weight", "_decay", "_clip", "_scale")) and not value >= 0:
                raise ValueError(f"Expected '{item.name}' to be at least 0 (got {value})")
        losses = ("mse", "log", "ranking", "consistency", "pairwise")
        if not any(getattr(self, f"{loss}_weight") > 0 for loss in losses):
            raise ValueError(
                "Expected the weight of at least one loss to be positive (got 0 for "
                f"{', '.join(losses)})"
            )
        if not self.pairwise_temperature > 0:
            raise ValueError(
                f"Expected 'pairwise_temperature' to be positive (got {self.pairwise_temperature})"
            )
        if self.augmentation not in (None, "first", "random", "equivalent"):
            raise ValueError(
                "Expected 'augmentation' to be 'first', 'random', 'equivalent' or None "
                f"(got {self.augmentation!r})"
            )
        if self.consistency_weight > 0 and self.augmentation not in ("first", "random"):
            raise ValueError(
                "Expected 'augmentation' to be 'first' or 'random', since 'consistency_weight' "
                f"compares graphs with their augmented copies (got {self.augmentation!r})"
            )

    def num_epochs(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs when each has this many steps."""
        return max(self.epochs, -(-self.min_steps // steps_per_epoch))

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values, for results and checkpoints."""
        return asdict(self)


#: The paper's training on NAS-Bench-201 (supplement, section C.3.3, and the authors' release).
PAPER = Recipe(
    name="paper",
    epochs=1000,
    batch_size=8,
    learning_rate=1e-4,
    ranking_weight=0.1,
    consistency_weight=0.5,
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
    ranking_weight=0.1,
    pairwise_weight=0.05,
    pairwise_temperature=0.01,
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
    ranking_weight=0.1,
    pairwise_weight=0.1,
    pairwise_temperature=0.01,
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
    mse_weight=0.0,
    log_weight=1.0,
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
