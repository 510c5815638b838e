"""Tasks: a dataset, its split and labels, ready for a training."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from narformer_pyg.datasets import NASBench201, ONNXLatency, Split
from narformer_pyg.nn import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.training.recipes import Recipe

#: Labels of CIFAR-10 that stand in for the test accuracy, as in the paper.
_STANDS_IN = ("cifar10valid_valid_acc", "cifar10_estimated_acc")


@dataclass(frozen=True)
class Task:
    r"""What a predictor learns, from which graphs, and what it is tested on.

    Args:
        name (str): A short name for folders, for instance :obj:`"nasbench201_cifar10_test_acc"`.
        dataset (InMemoryDataset): The labelled graphs.
        split (Split): The graphs to train, validate and test on.
        create_token_encoder (callable): Returns a new token encoder for the graphs.
        target (str): The label to train on.
        unit (str): Its unit.
        kind (str): Its kind, as :func:`~narformer_pyg.training.label_scale` takes it.
        test_target (str): The label to test on, of the same unit.
        test_labels (torch.Tensor): That label of all graphs :math:`(n)`, NaN where not measured.
        tested (dict): Positions to test on, by a heading for the table; the first counts.
        describe (callable): Returns the name of the graph at a position.
        space (str, optional): The search space of the cells. (default: :obj:`None`)
        log_scale (bool, optional): Whether labels span orders of magnitude, for plots.
            (default: :obj:`False`)
    """

    name: str
    dataset: InMemoryDataset
    split: Split
    create_token_encoder: Callable[[], Any]
    target: str
    unit: str
    kind: str
    test_target: str
    test_labels: Tensor
    tested: dict[str, Tensor]
    describe: Callable[[int], str]
    space: str | None = None
    log_scale: bool = False

    @property
    def train_labels(self) -> Tensor:
        """The labels of the training graphs."""
        labels: Tensor = self.dataset[self.split.train].y
        return labels[:, 0]


def nasbench201_task(
    target: str = "cifar10valid_valid_acc",
    test_target: str | None = None,
    train_size: int = 781,
    val_size: int = 0,
    seed: int = 0,
) -> Task:
    r"""Returns the task of predicting a label of NAS-Bench-201 cells.

    Args:
        target (str, optional): The label to train on, a key of :obj:`NASBench201.targets`.
            (default: :obj:`"cifar10valid_valid_acc"`)
        test_target (str, optional): The label to test on. By default :obj:`"cifar10_test_acc"` for
            the labels that stand in for it, otherwise the one to train on. (default: :obj:`None`)
        train_size (int, optional): Cells to train on. (default: :obj:`781`, 5 % of the space)
        val_size (int, optional): Further cells for validation. (default: :obj:`0`)
        seed (int, optional): Seed of the split. (default: :obj:`0`)

    Raises:
        ValueError: If a label is unknown or a size is impossible.
    """
    known = NASBench201.targets
    test_target = test_target or ("cifar10_test_acc" if target in _STANDS_IN else target)
    for argument, name in (("target", target), ("test_target", test_target)):
        if name not in known:
            raise ValueError(f"Expected '{argument}' to be among {', '.join(known)} (got {name!r})")
    dataset = NASBench201(target=target)
    split = dataset.get_split(train_size, val_size, seed)
    labels = dataset.labels(test_target)
    tested = {"all cells": split.all, "unseen cells": split.test}
    return Task(
        name=f"nasbench201_{target}",
        dataset=dataset,
        split=split,
        create_token_encoder=CellTokenEncoder,
        target=target,
        unit=known[target].unit,
        kind=known[target].kind,
        test_target=test_target,
        test_labels=labels,
        tested={name: part[labels[part].isfinite()] for name, part in tested.items()},
        describe=lambda i: str(dataset.cell(i)),
        space="nasbench201",
    )


def latency_dataset(
    recipe: Recipe,
    cache: str | os.PathLike[str],
    models: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    platform: str | None = None,
    num_workers: int | None = None,
) -> ONNXLatency:
    r"""Returns measured ONNX models, converted with the conventions of a recipe.

    Args:
        recipe (Recipe): Its :obj:`token_encoder` names vocabulary and counting.
        cache (str or os.PathLike): The folder that keeps the converted models.
        models (str or os.PathLike, optional): Folder or archive of models; those of the package if
            not given. (default: :obj:`None`)
        labels (str or os.PathLike, optional): Their latencies: a CSV file, or NNLQP's
            :obj:`gt.txt`. (default: :obj:`None`)
        platform (str, optional): The platform, where labels have several. (default: :obj:`None`)
        num_workers (int, optional): Processes that convert. (default: :obj:`None`)
    """
    encoder = recipe.token_encoder
    return ONNXLatency(
        cache,
        models,
        labels,
        vocabulary=encoder["vocabulary"],
        counting=encoder["counting"],
        platform=platform,
        num_workers=num_workers,
    )


def latency_splits(split: str, dataset: ONNXLatency) -> list[str]:
    """Returns the names of the splits that ``split`` stands for, for :func:`latency_task`.

    Raises:
        ValueError: If it is none of :obj:`in_domain`, :obj:`stage`, :obj:`all_families` and the
            families of the dataset.
    """
    families = sorted(set(dataset.families))
    for family in families:
        if family in ("in_domain", "stage", "all_families") or not set(family).isdisjoint("/\\"):
            raise ValueError(
                "Expected 'family' in the labels to be a name for a folder, and none of in_domain, "
                f"stage and all_families (got {family!r})"
            )
    if split not in ("in_domain", "stage", "all_families", *families):
        raise ValueError(
            f"Expected '--split' to be in_domain, stage, all_families or {', '.join(families)} "
            f"(got {split!r})"
        )
    return families if split == "all_families" else [split]


def latency_task(
    recipe: Recipe,
    dataset: ONNXLatency,
    split: str = "in_domain",
    val_share: float = 0.0,
    seed: int = 0,
) -> Task:
    r"""Returns the task of predicting the latency of ONNX models.

    Args:
        recipe (Recipe): Its :obj:`token_encoder` is that of the predictor.
        dataset (ONNXLatency): The models, for instance of :func:`latency_dataset`.
        split (str, optional): :obj:`"in_domain"` tests on a tenth of each family, the name of a
            family leaves it out, :obj:`"stage"` is the split of the labels.
            (default: :obj:`"in_domain"`)
        val_share (float, optional): Share of the training families for validation.
            (default: :obj:`0.0`)
        seed (int, optional): Seed of the split. (default: :obj:`0`)

    Raises:
        ValueError: If the split is unknown or leaves fewer than two models to test on.
    """
    (name,) = latency_splits(split, dataset)
    if name == "in_domain":
        drawn = dataset.in_domain_split(val_share=val_share, seed=seed)
    elif name == "stage":
        drawn = dataset.stage_split(val_share=val_share, seed=seed)
    else:
        drawn = dataset.leave_family_out(name, val_share=val_share, seed=seed)
    if drawn.test.numel() < 2:
        raise ValueError(
            f"Expected at least 2 models to test on with '--split {name}' (got "
            f"{drawn.test.numel()}); measure more models"
        )
    files = dataset.files
    return Task(
        name=f"onnx_latency_{name}",
        dataset=dataset,
        split=drawn,
        create_token_encoder=lambda: OperatorTokenEncoder(**recipe.token_encoder),
        target="latency_ms",
        unit=dataset.targets["latency_ms"].unit,
        kind="latency",
        test_target="latency_ms",
        test_labels=dataset.labels(),
        tested={"test models": drawn.test},
        describe=files.__getitem__,
        log_scale=True,
    )


def task_settings(task: Task) -> dict[str, Any]:
    """Returns the facts that tell a task from another, as JSON values."""
    parts = {name: getattr(task.split, name).tolist() for name in ("train", "val", "test")}
    labels = torch.nan_to_num(task.train_labels, nan=-1.0)
    return {
        "task": task.name,
        "test_target": task.test_target,
        "graphs": getattr(task.dataset, "fingerprint", None),
        "labels": [round(value, 6) for value in labels.tolist()],
        **{name: positions for name, positions in parts.items() if name != "test"},
    }
