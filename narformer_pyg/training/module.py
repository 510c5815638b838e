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
from narformer_pyg.nn import (
    ArchitectureConsistencyLoss,
    LogRatioLoss,
    PairwiseRankingLoss,
    RelativeMSELoss,
    SequenceRankingLoss,
)
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training.metrics import kendall_tau, mape
from narformer_pyg.training.recipes import Recipe


class PredictorModule(LightningModule):
    r"""Trains an :class:`~narformer_pyg.predictor.ArchitecturePredictor` by a recipe.

    Its checkpoints hold the states of all random number generators and of the loader too, so that
    training goes on from one exactly as it would have without the break.

    Args:
        predictor (ArchitecturePredictor): What is trained, in place.
        recipe (Recipe): How.
        loader (DeviceLoader): The training batches; with :obj:`recipe.augmentation="first"` or
            :obj:`"random"` those of a
            :class:`~narformer_pyg.loader.PairedBatchSampler`.
        identity (dict, optional): What tells this training from others; written to its
            checkpoints. (default: :obj:`None`)
        select_best (bool, optional): Whether :attr:`best_state` keeps the parameters with the best
            Kendall's tau on the validation graphs, the mean over the targets.
            (default: :obj:`False`)
    """

    #: What :meth:`on_save_checkpoint` adds to a checkpoint.
    STATE = frozenset(
        {"identity", "random_state", "loader", "history", "best_state", "best_tau", "seconds"}
    )

    def __init__(
        self,
        predictor: ArchitecturePredictor,
        recipe: Recipe,
        loader: DeviceLoader,
        identity: Mapping[str, Any] | None = None,
        select_best: bool = False,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.recipe = recipe
        self.loader = loader
        self.identity = dict(identity or {})
        self.select_best = select_best
        #: One entry per epoch: epoch, loss, and validation metrics where they were computed.
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] | None = None
        self.best_tau = -float("inf")
        #: Seconds of training so far, of earlier runs that this one resumed included.
        self.seconds = 0.0
        self.loss_mse = RelativeMSELoss()
        self.loss_log = LogRatioLoss()
        self.loss_ranking = SequenceRankingLoss()
        self.loss_consistency = ArchitectureConsistencyLoss()
        self.loss_pairwise = PairwiseRankingLoss(recipe.pairwise_temperature)
        self._epoch_losses: list[Tensor] = []
        self._val_outputs: list[tuple[Tensor, Tensor]] = []
        self._random_state: dict[str, Any] | None = None
        self._clock = 0.0

    def setup(self, stage: str) -> None:
        """Gives each of several processes its part of the batches, on its device."""
        if self.trainer.world_size > 1:
            self.loader.to(self.trainer.strategy.root_device)
            self.loader.batch_sampler.shard(self.trainer.global_rank, self.trainer.world_size)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the recipe's loss of a batch."""
        recipe = self.recipe
        prediction = self.predictor.forward_scaled(batch).float()
        target = batch.y / self.predictor.scale
        loss = recipe.mse_weight * self.loss_mse(prediction, target)
        if recipe.log_weight > 0:
            loss = loss + recipe.log_weight * self.loss_log(prediction, target)
        if recipe.ranking_weight > 0:
            loss = loss + recipe.ranking_weight * self.loss_ranking(prediction, target)
        if recipe.pairwise_weight > 0:
            loss = loss + recipe.pairwise_weight * self.loss_pairwise(prediction, target)
        if recipe.consistency_weight > 0:
            original, copy = prediction.chunk(2)
            loss = loss + recipe.consistency_weight * self.loss_consistency(original, copy)
        self._epoch_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects predictions of a batch of validation graphs."""
        self._val_outputs.append((self.predictor(batch).float().cpu(), batch.y.cpu()))

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam; a linear warm-up, then a linear decay to zero, per step (authors' release)."""
        # A fused step unscales mixed-precision gradients itself: too late for clipping them.
        clips_scaled = self.recipe.gradient_clip > 0 and "mixed" in str(self.trainer.precision)
        optimizer = torch.optim.AdamW(
            self.predictor.parameters(),
            lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
            fused=not clips_scaled,
        )
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warmup = max(round(self.recipe.warmup * total), 1)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(total - step, 0) / max(total - warmup, 1)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

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
        num_targets = range(target.size(1))
        tau = _mean([kendall_tau(prediction[:, i], target[:, i]) for i in num_targets])
        if self.select_best and tau > self.best_tau:
            self.best_tau = tau
            self.best_state = {
                k: v.detach().cpu().clone() for k, v in self.predictor.state_dict().items()
            }
        errors = [mape(prediction[:, i], target[:, i]) for i in num_targets]
        return {"val_kendall_tau": tau, "val_mape": _mean(errors)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds everything that a resumed run needs to equal an undisturbed one."""
        random_state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["narformer_pyg"] = {
            "identity": self.identity,
            "random_state": random_state,
            "loader": self.loader.state_dict(),
            "history": self.history,
            "best_state": self.best_state,
            "best_tau": self.best_tau,
            "seconds": self.seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes out what :meth:`on_save_checkpoint` put in."""
        state = checkpoint["narformer_pyg"]
        self._random_state = state["random_state"]
        self.loader.load_state_dict(state["loader"])
        self.history = state["history"]
        self.best_state = state["best_state"]
        self.best_tau = state["best_tau"]
        self.seconds = state["seconds"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
