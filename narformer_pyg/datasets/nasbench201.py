"""NAS-Bench-201 with real labels."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from importlib import resources

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from narformer_pyg.datasets._cell_dataset import CellDataset
from narformer_pyg.datasets._processed import ProcessedFile, load_processed, save_processed
from narformer_pyg.datasets.extrapolation import extrapolate_accuracy
from narformer_pyg.datasets.target import Target, select_targets
from narformer_pyg.spaces.nasbench201 import (
    CELL_EDGES,
    NODE_TYPES,
    NUM_CELLS,
    NUM_NODES,
    OPERATIONS,
    NASBench201Cell,
    NASBench201Data,
    cell_codes,
    graph_edge_index,
)

log = logging.getLogger(__name__)


#: The one label that is not measured but computed from two measured ones.
ESTIMATE = Target(
    "cifar10_estimated_acc",
    "percent",
    "accuracy",
    "estimate of cifar10_test_acc from cifar10valid_train_acc and cifar10valid_valid_acc",
)


def _known_targets() -> dict[str, Target]:
    half = "trained on half of CIFAR-10's training set"
    targets = []
    for part, where in (
        ("train", "that half"),
        ("valid", "the other half"),
        ("test", "the test set"),
    ):
        name = f"cifar10valid_{part}"
        targets += [
            Target(f"{name}_acc", "percent", "accuracy", f"{half}, measured on {where}"),
            Target(f"{name}_loss", "nats", "loss", f"cross-entropy, {half}, measured on {where}"),
        ]
    targets.append(Target("cifar10valid_train_time", "s", "time", f"200 epochs, {half}"))
    for name, where in (
        ("cifar10", "CIFAR-10"),
        ("cifar100", "CIFAR-100"),
        ("imagenet16", "ImageNet16-120"),
    ):
        description = f"trained on all of {where}'s training set, measured on the test set"
        targets.append(Target(f"{name}_test_acc", "percent", "accuracy", description))
    for name, device in (
        ("1080ti_1", "GTX 1080 Ti GPU, batch size 1"),
        ("1080ti_32", "GTX 1080 Ti GPU, batch size 32"),
        ("1080ti_256", "GTX 1080 Ti GPU, batch size 256"),
        ("silver_4114", "Xeon Silver 4114 CPU"),
        ("silver_4210r", "Xeon Silver 4210R CPU"),
        ("samsung_a50", "Samsung A50 phone"),
        ("pixel3", "Pixel 3 phone"),
        ("essential_ph_1", "Essential PH-1 phone"),
        ("samsung_s7", "Samsung S7 phone"),
    ):
        targets.append(Target(f"latency_{name}", "ms", "latency", f"one forward pass, {device}"))
    targets.append(ESTIMATE)
    return {target.name: target for target in targets}


#: Every label there is, by name.
TARGETS = _known_targets()


class NASBench201(ProcessedFile, CellDataset):
    r"""All 15,625 cells of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ with labels.

    The labels are inside the package: nothing is downloaded, and without :obj:`root` nothing is
    written. Graph :obj:`i` is the cell with official index :obj:`i`, unless :obj:`pre_filter`
    drops some.

    .. code-block:: python

        dataset = NASBench201(target="cifar10valid_valid_acc")
        dataset[0]
        # NASBench201Data(edge_index=[2, 10], y=[1, 1], op=[8], position=[8], num_nodes=8)
        split = dataset.get_split(train_size=781, val_size=200, seed=0)
        train_dataset = dataset[split.train]

    Each graph holds :obj:`op` (long, :obj:`[8]`), :obj:`position` (long, :obj:`[8]`) and
    :obj:`edge_index` (long, :obj:`[2, 10]`) as :meth:`NASBench201Cell.to_data` describes them,
    and :obj:`y` (float32, :obj:`[1, num_targets]`). Accuracies are in percent, losses are
    cross-entropies in nats, times are in seconds and latencies in milliseconds; see
    :attr:`targets`. Labels of networks trained for 200 epochs are means over the benchmark's
    seeds. Missing labels are NaN: 202 values of :obj:`latency_pixel3`, published as less than
    0.1 ms, all of cells in which :obj:`none` cuts every path from input to output.

    :obj:`cifar10_estimated_acc` extrapolates training and validation accuracy on half of CIFAR-10's
    training set to all of it (:func:`~narformer_pyg.datasets.extrapolate_accuracy`). Without any
    test label, it ranks cells more like :obj:`cifar10_test_acc` than the validation accuracy does.

    Args:
        root (str or os.PathLike, optional): A folder for the processed graphs, worth it with a
            costly :obj:`pre_transform` only. (default: :obj:`None`)
        target (str or sequence of str, optional): The label or labels that become the columns of
            :obj:`y`, or :obj:`"all"`. (default: :obj:`"cifar10valid_valid_acc"`)
        transform, pre_transform, pre_filter (callable, optional): As in
            :class:`~torch_geometric.data.InMemoryDataset`. (default: :obj:`None`)
        force_reload (bool, optional): Whether to replace what :obj:`root` holds.
            (default: :obj:`False`)

    Raises:
        TypeError: If :obj:`target` is not a name or a sequence of names.
        ValueError: If a target is unknown, if :obj:`pre_filter` drops every graph, or if the
            processed file in :obj:`root` is damaged.
    """

    space = NASBench201Data.space
    targets = TARGETS

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        target: str | Sequence[str] = "cifar10valid_valid_acc",
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
    ) -> None:
        self.target_names = select_targets(target, self.targets)
        root = None if root is None else os.fspath(root)
        # PyG stores a placeholder text for a root that is not given.
        self._on_disk = root is not None
        super().__init__(
            root, transform, pre_transform, pre_filter, log=False, force_reload=force_reload
        )
        if self._on_disk:
            content = load_processed(self.processed_paths[0], ("data", "slices", "cell_ids"))
            self._data = NASBench201Data.from_dict(content["data"])
            self.slices, self._cell_ids = content["slices"], content["cell_ids"]
        else:
            self._data, self.slices, self._cell_ids = self._build()

    @property
    def num_node_types(self) -> int:
        """The number of values of :obj:`op`: 7."""
        return len(NODE_TYPES)

    @property
    def processed_dir(self) -> str:
        """The folder of the processed graphs: one per selection of targets."""
        return os.path.join(self.root, "processed", self._target_key())

    def process(self) -> None:
        """Builds the graphs and writes them to :obj:`root`."""
        data, slices, cell_ids = self._build()
        content = {"data": data.to_dict(), "slices": slices, "cell_ids": cell_ids}
        save_processed(self.processed_paths[0], content)
        log.info("Wrote %d graphs to %s", len(cell_ids), self.processed_paths[0])

    def cell(self, i: int) -> NASBench201Cell:
        """Returns the cell of graph :obj:`i`, :obj:`0` to :obj:`len(dataset) - 1`."""
        return NASBench201Cell.from_index(self._cell_id(i))

    def _label_column(self, name: str) -> Tensor:
        return _label_column(name)

    def _collated_graphs(self) -> tuple[Data, dict[str, Tensor]]:
        return _collated_graphs(self.target_names)

    def _target_key(self) -> str:
        if len(self.target_names) == 1:
            return self.target_names[0]
        digest = hashlib.sha256(",".join(self.target_names).encode()).hexdigest()
        return f"{len(self.target_names)}_targets_{digest[:16]}"


@functools.cache
def _label_column(name: str) -> Tensor:
    if name == ESTIMATE.name:
        train, valid = (_label_column(f"cifar10valid_{part}_acc") for part in ("train", "valid"))
        return extrapolate_accuracy(train, valid, data_ratio=2.0)
    path = resources.files("narformer_pyg.datasets") / "data" / "nasbench201.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        return torch.from_numpy(content[name])


def _collated_graphs(target_names: Sequence[str]) -> tuple[Data, dict[str, Tensor]]:
    """Builds the storage of an in-memory dataset without a loop over graphs."""
    codes = torch.from_numpy(cell_codes().astype(np.int64))
    op = torch.empty(NUM_CELLS, NUM_NODES, dtype=torch.long)
    op[:, 0], op[:, -1] = 0, NODE_TYPES.index("output")
    for k in reversed(range(len(CELL_EDGES))):
        op[:, k + 1] = codes % len(OPERATIONS) + 1
        codes = codes // len(OPERATIONS)
    edge_index = graph_edge_index()
    data = NASBench201Data(
        op=op.flatten(),
        position=torch.arange(NUM_NODES).repeat(NUM_CELLS),
        edge_index=edge_index.repeat(1, NUM_CELLS),
        y=torch.stack([_label_column(name) for name in target_names], dim=1),
    )
    # What PyG's collate leaves behind: the total, and the list that splits it up again.
    data._store._num_nodes = [NUM_NODES] * NUM_CELLS
    data.num_nodes = NUM_NODES * NUM_CELLS
    nodes = torch.arange(NUM_CELLS + 1) * NUM_NODES
    slices = {
        "op": nodes,
        "position": nodes.clone(),
        "edge_index": torch.arange(NUM_CELLS + 1) * edge_index.size(1),
        "y": torch.arange(NUM_CELLS + 1),
    }
    return data, slices
