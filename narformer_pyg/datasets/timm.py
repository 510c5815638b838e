"""The networks of timm with their published speeds and accuracies."""

from __future__ import annotations

import functools
import lzma
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg.datasets._grouped_splits import GroupedSplits
from narformer_pyg.datasets.target import Target, select_targets

_DEVICES = {
    "rtx3090": "RTX 3090", "rtx4090": "RTX 4090", "4090": "RTX 4090", "5090": "RTX 5090",
    "pro6000maxq": "RTX PRO 6000 Max-Q", "i9_10940x": "Core i9-10940X",
    "i7_12700h": "Core i7-12700H",
}  # fmt: skip


@dataclass(frozen=True)
class TimmTable:
    r"""How one of timm's tables was measured.

    Args:
        name (str): The name of the table, and of the target.
        stage (str): :obj:`"infer"`, or :obj:`"train"` for steps of training.
        device (str): The device.
        precision (str): :obj:`"amp"`, :obj:`"amp_bf16"`, :obj:`"bf16"` or :obj:`"fp32"`.
        layout (str): The order of dimensions in memory, :obj:`"nchw"` or :obj:`"nhwc"`.
        torch (str): The version of PyTorch.
        compiled (bool): Whether :func:`torch.compile` was used.
    """

    name: str
    stage: str
    device: str
    precision: str
    layout: str
    torch: str
    compiled: bool

    @classmethod
    def from_name(cls, name: str) -> TimmTable:
        """Reads what the name of a table says.

        Raises:
            ValueError: If it is not the name of a table.
        """
        match = re.fullmatch(
            r"(infer|train)-(\w+)-(nchw|nhwc)-pt(\d+)-(?:cu\d+|cpu)-(\w+?)(-dynamo)?", name
        )
        if match is None or match[5] not in _DEVICES:
            raise ValueError(f"Expected 'name' to be the name of a table of timm (got {name!r})")
        stage, precision, layout, digits, device, compiled = match.groups()
        # 113 is 1.13, 240 is 2.4.0.
        version = f"1.{digits[1:]}" if digits.startswith("1") else ".".join(digits)
        return cls(name, stage, _DEVICES[device], precision, layout, version, compiled is not None)


class _TimmDataset(GroupedSplits, InMemoryDataset):
    """Graphs of timm's networks; what they are labelled with is the subclasses'."""

    target_names: tuple[str, ...]
    _targets: dict[str, Target]

    def __init__(
        self,
        target: str | Sequence[str],
        rows: np.ndarray,
        columns: Mapping[str, np.ndarray],
        transform: Callable[[Data], Data] | None,
    ) -> None:
        self.target_names = select_targets(target, self._targets)
        super().__init__(None, transform, log=False)
        self._rows = rows
        self._columns = columns
        y = torch.from_numpy(np.stack([columns[name] for name in self.target_names], 1))
        self._data, self.slices = _collated(tuple(rows.tolist()))
        self._data.y = y
        self.slices["y"] = torch.arange(len(rows) + 1)

    @property
    def targets(self) -> dict[str, Target]:
        """All labels, by name."""
        return self._targets

    @property
    def networks(self) -> list[str]:
        """The network of each graph: its name in timm, :obj:`"@"` and the image size."""
        return [str(_archive("labels")["networks"][row]) for row in self._selected()]

    @property
    def families(self) -> list[str]:
        """The family of each graph: the module of timm that defines it."""
        return [str(_archive("labels")["family"][row]) for row in self._selected()]

    def labels(self, name: str) -> Tensor:
        """Returns one label of every graph: float32, NaN where it was not measured."""
        (name,) = select_targets([name], self._targets, argument="name")
        return torch.from_numpy(self._columns[name])[list(self.indices())]

    @property
    def failures(self) -> dict[str, str]:
        """Networks of the tables that have no graph, and why."""
        lines = _archive("labels")["failed"].tolist()
        return dict(line.split(": ", 1) for line in lines if line)

    def _units(self) -> list[str]:
        return [network.split("@")[0] for network in self.networks]

    def _selected(self) -> list[int]:
        return [int(self._rows[i]) for i in self.indices()]

    def _places(self, idx: Any) -> list[int]:
        return list((self if idx is None else self.index_select(idx)).indices())

    def copy(self, idx: Any = None) -> Any:
        """Returns a copy of all graphs, or of those that an index selects."""
        out = super().copy(idx)
        places = self._places(idx)
        out._rows = self._rows[places]
        out._columns = {name: column[places] for name, column in self._columns.items()}
        return out


class TimmLatency(_TimmDataset):
    r"""The networks of timm as graphs, with their speeds on GPUs and CPUs as published.

    Graphs and labels are inside the package: nothing is downloaded, and neither timm nor
    torchvision is needed. A graph is a network at an image size, as PyTorch runs it (batch
    normalisation is an operator), of batch size one.

    .. code-block:: python

        dataset = TimmLatency()  # all tables
        dataset = TimmLatency("infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo")
        dataset.table("infer-amp-nchw-pt291-cu130-5090").device  # "RTX 5090"
        split = dataset.in_domain_split(seed=0)  # by network
        split = dataset.leave_family_out("vision_transformer")

    Every table is a target: **milliseconds per image** at the batch size of the measurement
    (:meth:`batch_sizes`), NaN where a table has no such row. Tables of training have the time of a
    step per image.

    Args:
        target (str or sequence of str, optional): The tables that become the columns of :obj:`y`.
            (default: :obj:`"all"`)
        transform (callable, optional): As in :class:`~torch_geometric.data.InMemoryDataset`.
            (default: :obj:`None`)

    Raises:
        TypeError: If :obj:`target` is not a name or a sequence of names.
        ValueError: If a target is unknown.
    """

    def __init__(
        self,
        target: str | Sequence[str] = "all",
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        labels = _archive("labels")
        names = [str(name) for name in labels["tables"]]
        self._targets = {name: _latency_target(TimmTable.from_name(name)) for name in names}
        columns = {name: labels["ms_per_image"][:, i] for i, name in enumerate(names)}
        measured = np.isfinite(labels["ms_per_image"]).any(1).nonzero()[0]
        super().__init__(
            target, measured, {name: column[measured] for name, column in columns.items()},
            transform,
        )  # fmt: skip

    def table(self, name: str) -> TimmTable:
        """Returns how a table was measured."""
        (name,) = select_targets([name], self._targets, argument="name")
        return TimmTable.from_name(name)

    def batch_sizes(self, name: str) -> Tensor:
        """Returns the batch size of each measurement: long, 0 where there is none."""
        (name,) = select_targets([name], self._targets, argument="name")
        labels = _archive("labels")
        column = labels["batch_size"][:, list(self._targets).index(name)]
        return torch.from_numpy(column[self._selected()].astype(np.int64))


class TimmAccuracy(_TimmDataset):
    r"""The pretrained networks of timm as graphs, with their accuracies on ImageNet in percent.

    A graph is a network at an image size; a network with several pretrained weights is there
    several times, see :attr:`weights`.

    Args:
        target (str or sequence of str, optional): :obj:`"top1_acc"`, :obj:`"top5_acc"`, both, or
            :obj:`"all"`. (default: :obj:`"top1_acc"`)
        transform (callable, optional): As in :class:`~torch_geometric.data.InMemoryDataset`.
            (default: :obj:`None`)

    Raises:
        TypeError: If :obj:`target` is not a name or a sequence of names.
        ValueError: If a target is unknown.
    """

    def __init__(
        self,
        target: str | Sequence[str] = "top1_acc",
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        labels = _archive("labels")
        self._targets = {
            f"top{k}_acc": Target(
                f"top{k}_acc", "percent", "accuracy",
                f"top-{k} accuracy of the pretrained weights on ImageNet's validation set",
            )
            for k in (1, 5)
        }  # fmt: skip
        self._weights = labels["weights"]
        super().__init__(
            target, labels["weights_network"], {name: labels[name] for name in self._targets},
            transform,
        )  # fmt: skip

    @property
    def weights(self) -> list[str]:
        """The pretrained weights of each graph by their name in timm."""
        return [str(self._weights[i]) for i in self.indices()]

    def copy(self, idx: Any = None) -> Any:
        """Returns a copy of all graphs, or of those that an index selects."""
        out = super().copy(idx)
        out._weights = self._weights[self._places(idx)]
        return out


def _latency_target(table: TimmTable) -> Target:
    what = "a step of training" if table.stage == "train" else "inference"
    how = "compiled" if table.compiled else "eager"
    return Target(
        table.name, "ms", "latency",
        f"{what} per image, {table.device}, {table.precision}, {table.layout}, "
        f"PyTorch {table.torch}, {how}",
    )  # fmt: skip


@functools.cache
def _archive(name: str) -> dict[str, np.ndarray]:
    path = resources.files("narformer_pyg.datasets") / "data" / "timm" / f"{name}.npz.xz"
    content = BytesIO(lzma.decompress(path.read_bytes()))
    with np.load(content, allow_pickle=False) as file:
        return dict(file)


@functools.lru_cache(maxsize=2)
def _graph_storage(rows: tuple[int, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns nodes and edges of graphs behind one another, and where each begins."""
    packed = _archive("graphs")
    chosen = np.asarray(rows)
    num_nodes, num_edges = packed["num_nodes"], packed["num_edges"]
    nodes, positions = _spans(num_nodes, chosen)
    edges, _ = _spans(num_edges, chosen)
    target = packed["edge_target"][edges].astype(np.int64)
    source = target - packed["edge_length"][edges]
    tensors = {
        "op": torch.from_numpy(packed["op"][nodes].astype(np.int64)),
        "position": torch.from_numpy(positions),
        "attr": torch.from_numpy(np.ascontiguousarray(packed["attr"][:, nodes].T)),
        "edge_index": torch.from_numpy(np.stack([source, target])),
        "static": torch.from_numpy(packed["static"][chosen]).float(),
    }
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(num_nodes[chosen])]))
    edge_starts = torch.from_numpy(np.concatenate([[0], np.cumsum(num_edges[chosen])]))
    slices = {"op": starts, "position": starts, "attr": starts, "edge_index": edge_starts}
    return tensors, slices


def _spans(sizes: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of the items of some groups, and the place of each in its group."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])[chosen]
    counts = sizes[chosen]
    ends = np.cumsum(counts)
    inside = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    return np.repeat(starts, counts) + inside, inside


def _collated(rows: tuple[int, ...]) -> tuple[Data, dict[str, Tensor]]:
    tensors, slices = _graph_storage(rows)
    num_nodes = slices["op"].diff()
    each = torch.arange(len(rows) + 1)
    data = Data(**tensors)
    data.vocabulary = ["onnx"] * len(rows)
    data.counting = ["standard"] * len(rows)
    data.num_nodes = int(num_nodes.sum())
    data._store._num_nodes = num_nodes.tolist()
    # Copies, for PyG changes what it is given.
    slices = {name: where.clone() for name, where in slices.items()}
    slices.update({name: each.clone() for name in ("static", "vocabulary", "counting")})
    return data, slices
