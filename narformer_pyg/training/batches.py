"""The batches of a training, augmented as its recipe says."""

from __future__ import annotations

from itertools import chain

import torch

from narformer_pyg.loader import DeviceLoader, PairedBatchSampler, VariantBatchSampler
from narformer_pyg.training.labels import Graphs
from narformer_pyg.training.recipes import Recipe
from narformer_pyg.transforms import augment, equivalent_graphs


def training_loader(
    graphs: Graphs, recipe: Recipe, seed: int, device: torch.device
) -> DeviceLoader:
    r"""Returns the training batches.

    Args:
        graphs (InMemoryDataset or list of Data): Labelled graphs.
        recipe (Recipe): Batch size and augmentation.
        seed (int): Seed of the order and of the augmentation.
        device (torch.device): Where batches are made.
    """
    if recipe.augmentation is None:
        return DeviceLoader(graphs, recipe.batch_size, shuffle=True, seed=seed, device=device)
    originals = [graphs[i] for i in range(len(graphs))]
    if recipe.augmentation == "equivalent":
        variants = equivalent_graphs(originals)
        sizes = [len(group) for group in variants]
        drawing = VariantBatchSampler(sizes, recipe.batch_size, seed=seed)
        return DeviceLoader(list(chain(*variants)), batch_sampler=drawing, device=device)
    num_copies = recipe.num_copies if recipe.augmentation == "random" else 1
    copies = augment(originals, num_copies, mode=recipe.augmentation, seed=seed)
    sampler = PairedBatchSampler(len(originals), recipe.batch_size, num_copies, seed=seed)
    return DeviceLoader(originals + copies, batch_sampler=sampler, device=device)
