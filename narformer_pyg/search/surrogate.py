"""The predictors inside a search: an ensemble trained on the evaluations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data

from narformer_pyg._checks import resolve_device
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn.models import create_model, list_models
from narformer_pyg.predictor import ArchitecturePredictor

if TYPE_CHECKING:
    from narformer_pyg.training import Recipe


# The share of the evaluations that each of several members is trained on. Members then disagree
# where few evaluations are.
_SHARE = 0.8


def search_recipe() -> Recipe:
    r"""Returns the training of the predictor inside a search.

    Half a second on one CPU core for a hundred cells. Searches need the order only, hence the
    pairwise ranking loss. Chosen by searches with other seeds than those reported.
    """
    from narformer_pyg.training import Recipe

    return Recipe(
        name="search",
        epochs=15,
        batch_size=32,
        learning_rate=6e-3,
        gradient_clip=1.0,
        losses={"pairwise_ranking": 1.0},
        loss_arguments={"pairwise_ranking": {"temperature": 0.1}},
        model={"hidden_channels": 64, "num_blocks": 2, "dropout": 0.05},
    )


def rank_labels(scores: np.ndarray) -> np.ndarray:
    r"""Returns the ranks of scores, spread between 1 and 2: float32, as :obj:`scores`.

    Labels of any unit, sign and spread become fit for training, and failed networks far below all
    others do not dominate. Equal scores have equal ranks.

    Args:
        scores (numpy.ndarray): :math:`(n, T)`, larger is better; ranked within each column.
    """
    labels = np.empty(scores.shape, dtype=np.float32)
    for column in range(scores.shape[1]):
        _, place, counts = np.unique(scores[:, column], return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - 0.5 * counts
        labels[:, column] = 1.0 + middle[place.reshape(-1)] / len(scores)
    return labels


class EnsemblePredictor:
    r"""Predictors that differ in their initial parameters and the order of their batches.

    Every round trains them from the start: proposals depend on the evaluations and nothing else.
    """

    def __init__(
        self, num_targets: int, recipe: Recipe, token_encoder: nn.Module, model: str, device: str
    ) -> None:
        from narformer_pyg.training import Recipe

        if model not in list_models():
            raise ValueError(
                f"Expected 'model' to be among {', '.join(list_models())} (got {model!r})"
            )
        if not isinstance(recipe, Recipe):
            raise ValueError(
                "Expected 'recipe' to be a Recipe, for instance "
                f"dataclasses.replace(search_recipe(), epochs=50) (got {recipe!r})"
            )
        self.num_targets = num_targets
        self.recipe = recipe
        self.token_encoder: Any = token_encoder
        self.model = model
        self.device = resolve_device(device)
        self.members: list[ArchitecturePredictor] = []

    def fit(self, graphs: Sequence[Data], labels: np.ndarray, seeds: Sequence[int]) -> None:
        """Trains one member a seed."""
        from narformer_pyg.training import fit

        train_set = []
        for data, y in zip(graphs, torch.from_numpy(labels), strict=True):
            data = copy.copy(data)
            data.y = y.unsqueeze(0)
            train_set.append(data)
        self.members = []
        # The caller's random numbers stay as they are.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for seed in seeds:
                torch.manual_seed(seed)
                subset = train_set
                if len(seeds) > 1:
                    kept = torch.randperm(len(train_set))[: max(2, round(_SHARE * len(train_set)))]
                    subset = [train_set[i] for i in kept.sort().values.tolist()]
                arguments: dict[str, Any] = {"out_channels": self.num_targets, **self.recipe.model}
                network = create_model(self.model, self.token_encoder.out_channels, **arguments)
                member = ArchitecturePredictor(copy.deepcopy(self.token_encoder), network)
                fit(
                    member, subset, self.recipe,
                    seed=seed, device=str(self.device), progress=False,
                )  # fmt: skip
                self.members.append(member)

    @torch.no_grad()
    def predict(self, graphs: Sequence[Data]) -> np.ndarray:
        r"""Returns the predictions of all members: float32, :math:`(members, n, T)`."""
        # Collated once for all members, which `ArchitecturePredictor.predict` would do for each.
        loader = DeviceLoader(list(graphs), 1024, device=self.device, seed=0)
        out = []
        for member in self.members:
            member.to(self.device).eval()
            out.append(torch.cat([member(batch).float() for batch in loader]).cpu())
        return torch.stack(out).numpy()
