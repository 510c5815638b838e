"""The predictors inside a search: an ensemble trained on the evaluations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch_geometric.data import Data

from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn.models import create_model
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

    Scores of any unit, sign and spread become labels to train on, and failed networks with extreme
    scores do not dominate. Equal scores have equal ranks.

    Args:
        scores (numpy.ndarray): :math:`(n, T)`, larger is better; ranked within each column.
    """
    ranks = rankdata(scores, axis=0) - 0.5
    return (1.0 + ranks / max(len(scores), 1)).astype(np.float32)


def train_ensemble(
    graphs: Sequence[Data],
    labels: np.ndarray,
    seeds: Sequence[int],
    recipe: Recipe,
    token_encoder: Any,
    model: str,
    device: torch.device,
) -> list[ArchitecturePredictor]:
    """Trains one predictor a seed on positive labels, [number of graphs, objectives].

    Every round trains from the start: proposals depend on the evaluations and nothing else.
    """
    from narformer_pyg.training import fit

    train_set = [copy.copy(data) for data in graphs]
    for data, y in zip(train_set, torch.from_numpy(labels), strict=True):
        data.y = y.unsqueeze(0)
    members = []
    # The caller's random numbers stay as they are.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for seed in seeds:
            torch.manual_seed(seed)
            subset = train_set
            if len(seeds) > 1:
                kept = torch.randperm(len(train_set))[: max(2, round(_SHARE * len(train_set)))]
                subset = [train_set[i] for i in kept.sort().values.tolist()]
            arguments: dict[str, Any] = {"out_channels": labels.shape[1], **recipe.model}
            network = create_model(model, token_encoder.out_channels, **arguments)
            member = ArchitecturePredictor(copy.deepcopy(token_encoder), network)
            trained = fit(member, subset, recipe, seed=seed, device=str(device), progress=False)
            members.append(trained.predictor)
    return members


@torch.no_grad()
def predict_ensemble(
    members: Sequence[ArchitecturePredictor], graphs: Sequence[Data], device: torch.device
) -> np.ndarray:
    """Returns the predictions of all members: float32, [members, graphs, objectives]."""
    # Collated once for all members, which `ArchitecturePredictor.predict` would do for each.
    loader = DeviceLoader(list(graphs), 1024, device=device, seed=0)
    out = []
    for member in members:
        member.to(device).eval()
        out.append(torch.cat([member(batch).float() for batch in loader]).cpu())
    return torch.stack(out).numpy()
