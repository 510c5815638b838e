"""The training of a predictor as a LightningModule."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch_geometric.data import Batch

from narformer_pyg.loader import DeviceLoader
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training.metrics import kendall_tau, mape
from narformer_pyg.training.recipes import Recipe, compares_copies


class PredictorModule(LightningModule):
    r"""Trains an :class:`~narformer_pyg.predictor.ArchitecturePredictor` by a recipe.

    Its checkpoints hold the states of the loader and of all random number generators, so that a
    resumed training ends as an undisturbed one.

    Args:
        predictor (ArchitecturePredictor): The predictor, trained in place.
        recipe (Recipe): The settings.
        loader (DeviceLoader): The training batches; with :obj:`recipe.augmentation="first"` or
            :obj:`"random"` those of a
            :class:`~narformer_pyg.loader.PairedBatchSampler`.
        train_set (sequence of Data, optional): The graphs to calibrate with before each validation.
            (default: :obj:`None`)
        identity (dict, optional): Facts that tell this training from another one; written to its
            checkpoints. (default: :obj:`None`)
        select_best (bool, optional): Whether :attr:`best_state` keeps the parameters with the best
            Kendall's tau on the validation graphs, the mean over the targets.
            (default: :obj:`False`)
    """

    #: The attributes of this class that its checkpoints hold.
    STATE = ("history", "best_state", "best_tau", "seconds")

    def __init__(
        self,
        predictor: ArchitecturePredictor,
        recipe: Recipe,
        loader: DeviceLoader,
        train_set: Any = None,
        identity: Mapping[str, Any] | None = None,
        select_best: bool = False,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.recipe = recipe
        self.loader = loader
        self.train_set = train_set
        self.identity = dict(identity or {})
        self.select_best = select_best
        #: One entry per epoch: epoch, loss, and validation metrics where they were computed.
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] | None = None
        self.best_tau = -float("inf")
        #: Seconds of training so far, those of resumed runs included.
        self.seconds = 0.0
        losses = recipe.create_losses()
        self.losses = torch.nn.ModuleDict(losses)
        self._terms = [
            (recipe.losses[name], loss, compares_copies(loss)) for name, loss in losses.items()
        ]
        self._epoch_losses: list[Tensor] = []
        self._val_outputs: list[tuple[Tensor, Tensor]] = []
        self._random_state: dict[str, Any] | None = None
        self._clock = 0.0

    def setup(self, stage: str) -> None:
        """Gives each of several processes its part of the batches, on its device."""
        if self.trainer.world_size > 1:
            self.loader.to(self.trainer.strategy.root_device)
            self.loader.batch_sampler.shard(self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> Any:
        """Returns the batches of an epoch."""
        return self.loader

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Returns the recipe's loss of a batch."""
        loss = self.loss(batch)
        self._epoch_losses.append(loss.detach())
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """Returns the recipe's loss of a batch, whose last graphs may be padding without labels."""
        prediction = self.predictor.forward_scaled(batch).float()[: batch.y.size(0)]
        target = batch.y / self.predictor.scale
        terms = [
            weight * (loss(*prediction.chunk(2)) if of_copies else loss(prediction, target))
            for weight, loss, of_copies in self._terms
        ]
        return torch.stack(terms).sum()

    def on_validation_epoch_start(self) -> None:
        """Calibrates, so that validation sees the predictor that would be saved."""
        if self.recipe.calibrate and self.train_set is not None:
            self.predictor.calibrate(self.train_set, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects predictions of a batch of validation graphs."""
        self._val_outputs.append((self.predictor(batch).float().cpu(), batch.y.cpu()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW, without a schedule of Lightning's; see :meth:`optimizer_step`."""
        # A fused step unscales mixed-precision gradients itself: too late for clipping them.
        scaled = self.automatic_optimization and "mixed" in str(self.trainer.precision)
        return torch.optim.AdamW(
            self.predictor.parameters(),
            lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
            fused=not (scaled and self.recipe.gradient_clip > 0),
        )

    def learning_rate(self, step: int, num_steps: int) -> float:
        """Returns the learning rate of a step: a linear rise, then a linear fall to zero."""
        warmup = max(round(self.recipe.warmup * num_steps), 1)
        if step < warmup:
            return self.recipe.learning_rate * (step + 1) / warmup
        return self.recipe.learning_rate * max(num_steps - step, 0) / max(num_steps - warmup, 1)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Sets the learning rate, which the number of the step decides, and makes the step."""
        num_steps = max(int(self.trainer.estimated_stepping_batches), 1)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(self.trainer.global_step, num_steps)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_train_start(self) -> None:
        """Restores the random number generators of a resumed run."""
        self._clock = time.perf_counter()
        if self._random_state is not None:
            torch.set_rng_state(self._random_state["cpu"].cpu())
            if self.device.type == "cuda" and "cuda" in self._random_state:
                torch.cuda.set_rng_state(self._random_state["cuda"].cpu(), self.device)
            self._random_state = None
        if self.trainer.global_rank > 0:  # another dropout on other graphs
            torch.manual_seed(int(torch.randint(2**62, ())) + self.trainer.global_rank)

    def on_train_epoch_end(self) -> None:
        """Logs the mean loss; stops where it is no longer a number."""
        mean = torch.stack(self._epoch_losses).mean()
        loss = float(self.trainer.strategy.reduce(mean, reduce_op="mean"))
        self._epoch_losses.clear()
        if not torch.isfinite(torch.tensor(loss)):
            raise FloatingPointError(
                f"The training loss became {loss} in epoch {self.current_epoch}; lower "
                f"'learning_rate' (it was {self.recipe.learning_rate}) or use '32-true' precision"
            )
        entry = {"epoch": float(self.current_epoch), "loss": loss}
        if self._val_outputs:
            entry.update(self._validate())
        self.history.append(entry)
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def _validate(self) -> dict[str, float]:
        prediction, target = (torch.cat(part) for part in zip(*self._val_outputs, strict=True))
        self._val_outputs.clear()
        taus, errors = [], []
        for p, y in zip(prediction.t(), target.t(), strict=True):
            measured = y.isfinite()
            taus.append(kendall_tau(p[measured], y[measured]))
            errors.append(mape(p[measured], y[measured]))
        tau = sum(taus) / len(taus)
        if self.select_best and tau > self.best_tau:
            self.best_tau = tau
            self.best_state = {
                k: v.detach().cpu().clone() for k, v in self.predictor.state_dict().items()
            }
        return {"val_kendall_tau": tau, "val_mape": sum(errors) / len(errors)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the state that a resumed run needs to equal an undisturbed one."""
        random_state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["narformer_pyg"] = {
            "identity": self.identity,
            "random_state": random_state,
            "loader": self.loader.state_dict(),
            **{name: getattr(self, name) for name in self.STATE},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the state that :meth:`on_save_checkpoint` added."""
        state = checkpoint["narformer_pyg"]
        self._random_state = state["random_state"]
        self.loader.load_state_dict(state["loader"])
        for name in self.STATE:
            setattr(self, name, state[name])
