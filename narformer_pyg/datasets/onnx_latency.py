"""A folder of ONNX models with measured latencies."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from narformer_pyg import __version__
from narformer_pyg.datasets._grouped_splits import GroupedSplits
from narformer_pyg.datasets._latency_labels import (
    NNLQP_FILE,
    LatencyRow,
    check_files,
    digest,
    read_latency_table,
)
from narformer_pyg.datasets._model_folder import open_models
from narformer_pyg.datasets._onnx_conversion import convert_models
from narformer_pyg.datasets._processed import (
    ProcessedFile,
    load_processed,
    save_processed,
    select_graphs,
)
from narformer_pyg.datasets.split import Split, draw_in_groups
from narformer_pyg.datasets.target import Target
from narformer_pyg.vocabulary import COUNTINGS, get_vocabulary

log = logging.getLogger(__name__)

#: The measured set of the package, made by ``scripts/measure_latency_set.py``.
_MEASURED = Path(__file__).parent / "data" / "onnx_latency"

_LATENCY = Target("latency_ms", "ms", "latency", "one inference, as the table of labels says")
_KEYS = ("data", "slices", "rows", "failures")


def _name(row: LatencyRow) -> str:
    """Returns the name of a row: the file, and the shapes or batch size of the measurement."""
    shapes = " ".join(f"{name}:{'x'.join(map(str, dims))}" for name, dims in row.input_shapes)
    batch = "" if row.batch_size is None else f"batch {row.batch_size}"
    return " ".join(filter(None, (row.file, shapes, batch)))


def _warn(failures: Mapping[str, str]) -> None:
    for name, reason in failures.items():
        log.warning("Left out %s: %s", name, reason)


class ONNXLatency(GroupedSplits, ProcessedFile, InMemoryDataset):
    r"""ONNX models as graphs, with their measured latencies in milliseconds.

    The models and labels are those of the package, 1,500 random networks of eleven families on one
    core of a server (``narformer_pyg/datasets/data/README.md`` says how they were measured); yours,
    for instance of ``narformer profile FOLDER -o labels.csv``; or a part of the data of NNLQP
    (Liu et al., ICPP 2022) as it is unpacked, a folder with :obj:`gt.txt` and :obj:`onnx/`.

    .. code-block:: python

        dataset = ONNXLatency("cache")
        dataset[0]
        # Data(edge_index=[2, 77], op=[70], ..., static=[1, 4], y=[1, 1])
        split = dataset.in_domain_split(seed=0)
        split = dataset.leave_family_out("vgg")

        dataset = ONNXLatency("cache", "my_networks", "labels.csv")
        dataset = ONNXLatency("cache", "unseen_structure", vocabulary="nnlqp", counting="nnlqp")

    Each graph is that of :func:`~narformer_pyg.convert.from_onnx` and :obj:`y` (float32,
    :obj:`[1, 1]`). Graphs are in the order of the table. The dataset leaves out models that cannot
    be converted, and :attr:`failures` says why; predictors refuse graphs of another vocabulary or
    counting than their own.

    Args:
        root (str or os.PathLike, optional): A folder that caches the processed graphs of each
            vocabulary, counting, table and version of this package. (default: :obj:`None`)
        models (str or os.PathLike, optional): The folder of the models, or a tar archive of one.
            By default, the measured set of the package. (default: :obj:`None`)
        labels (str or os.PathLike, optional): A CSV file with the columns :obj:`file` (relative to
            :obj:`models`) and :obj:`latency_ms`, and optionally :obj:`family`,
            :obj:`input_shapes` (for dynamic dimensions, as :obj:`input:1x3x224x224`),
            :obj:`platform` and :obj:`stage`; or a :obj:`.txt` file of NNLQP. By default the
            :obj:`gt.txt` in :obj:`models`, or the labels of the package.
            (default: :obj:`None`)
        vocabulary (str, optional): The operator vocabulary, :obj:`"onnx"` or :obj:`"nnlqp"`.
            (default: :obj:`"onnx"`)
        counting (str, optional): The convention of the graph features, :obj:`"standard"` or
            :obj:`"nnlqp"`. (default: :obj:`"standard"`)
        platform (str or int, optional): The platform to keep, where the table has several.
            (default: :obj:`None`)
        num_workers (int, optional): Processes that convert, or :obj:`0` for this one; by default
            one for every 64 models. (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        transform, pre_transform, pre_filter (callable, optional): As in
            :class:`~torch_geometric.data.InMemoryDataset`. (default: :obj:`None`)
        force_reload (bool, optional): Whether to replace what :obj:`root` holds.
            (default: :obj:`False`)

    Raises:
        OSError: If the labels or a model are missing.
        ValueError: If the table or an argument is wrong, no model can be converted, or the
            processed file is damaged.
    """

    targets: ClassVar[dict[str, Target]] = {_LATENCY.name: _LATENCY}
    target_names = (_LATENCY.name,)
    #: Why models are left out, by file, and input shapes or batch size where the table has them.
    failures: dict[str, str]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        models: str | os.PathLike[str] | None = None,
        labels: str | os.PathLike[str] | None = None,
        *,
        vocabulary: str = "onnx",
        counting: str = "standard",
        platform: str | int | None = None,
        num_workers: int | None = None,
        progress: bool = True,
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
    ) -> None:
        get_vocabulary(vocabulary)
        if counting not in COUNTINGS:
            raise ValueError(
                f"Expected 'counting' to be among {', '.join(map(repr, COUNTINGS))} "
                f"(got {counting!r})"
            )
        self.vocabulary = vocabulary
        self.counting = counting
        if models is None and labels is not None:
            raise ValueError(
                f"Expected 'models' to be the folder of the models in 'labels' (got None with "
                f"{str(labels)!r}); pass both, or neither for the measured set of the package"
            )
        if models is None:
            models, labels = _MEASURED / "networks.tar.xz", _MEASURED / "labels.csv"
        self._models = Path(models)
        self._conversion: dict[str, Any] = {"num_workers": num_workers, "progress": progress}
        table = self._models / NNLQP_FILE if labels is None else Path(labels)
        if not table.is_file():
            raise FileNotFoundError(
                f"Expected 'labels' to be a table of latencies (got {str(table)!r}, which does not "
                "exist); 'narformer profile FOLDER -o labels.csv' measures a folder of models"
            )
        self._table = read_latency_table(table, platform)
        if not self._models.exists():
            raise FileNotFoundError(
                f"Expected 'models' to be a folder or a tar archive of ONNX models (got "
                f"{str(self._models)!r}, which does not exist)"
            )
        if self._models.is_dir():
            check_files(self._table, self._models, self._models, table.name)
        self._table_name = table.name
        self._digest = digest(self._table, self._models)
        # PyG stores a placeholder text for a root that is not given.
        self._on_disk = root is not None
        super().__init__(
            None if root is None else os.fspath(root),
            transform,
            pre_transform,
            pre_filter,
            log=False,
            force_reload=force_reload,
        )
        content = load_processed(self.processed_paths[0], _KEYS) if self._on_disk else self._build()
        if content["failures"] and self._on_disk and self._converts_now(content["failures"]):
            self.process()
            content = load_processed(self.processed_paths[0], _KEYS)
        self._data, self.slices = Data.from_dict(content["data"]), content["slices"]
        self._rows = content["rows"]
        self.failures = content["failures"]

    @property
    def processed_dir(self) -> str:
        """The folder of the processed graphs, which names all that they depend on."""
        return os.path.join(self.root, "processed", self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """A text that changes with models, labels, vocabulary, counting and converter."""
        from narformer_pyg.convert.onnx_model.convert import CONVERTER_REVISION  # loads onnx

        # With ONNX Runtime installed, the converter can find more shapes.
        runtime = "runtime" if find_spec("onnxruntime") else "no_runtime"
        converter = f"{__version__}.{CONVERTER_REVISION}_{runtime}"
        return f"{self.vocabulary}_{self.counting}_{converter}_{self._digest}"

    @property
    def files(self) -> list[str]:
        """The ONNX file of each graph, relative to the folder of the models."""
        return [self._table[i].file for i in self._selected()]

    @property
    def families(self) -> list[str]:
        """The family of each graph; an empty text where the table names none."""
        return [self._table[i].family for i in self._selected()]

    def labels(self, name: str = "latency_ms") -> Tensor:
        """Returns the latencies in milliseconds, the only label: float32, :obj:`[len(dataset)]`."""
        if name not in self.targets:
            raise ValueError(f"Expected 'name' to be 'latency_ms' (got {name!r})")
        return torch.tensor([self._table[i].latency_ms for i in self._selected()])

    def stage_split(self, val_share: float = 0.0, seed: int = 0) -> Split:
        """Returns the split that the table assigns; a share of each family in training validates.

        Raises:
            ValueError: If a graph has no stage, or all have the same.
        """
        stages = [self._table[i].stage for i in self._selected()]
        if set(stages) != {"train", "test"}:
            raise ValueError(
                "Expected the labels to say 'train' or 'test' of every model in a column 'stage' "
                f"(got {sorted(set(stages))})"
            )
        is_test = torch.tensor([stage == "test" for stage in stages])
        groups = {f: members[~is_test[members]] for f, members in self._groups().items()}
        groups = {family: members for family, members in groups.items() if members.numel()}
        rest = draw_in_groups(groups, 0.0, val_share, seed, self.files)
        return Split(
            train=rest.train, val=rest.val, test=is_test.nonzero().flatten(), seed=rest.seed
        )

    def process(self) -> None:
        """Converts the models and writes the graphs to :obj:`root`."""
        content = self._build()
        save_processed(self.processed_paths[0], content)
        log.info("Wrote %d graphs to %s", len(content["rows"]), self.processed_paths[0])

    def copy(self, idx: Any = None) -> ONNXLatency:
        """Returns a copy of all graphs, or of those that an index selects."""
        out = super().copy(idx)
        out._rows = (self if idx is None else self.index_select(idx))._selected()
        return out

    def _selected(self) -> list[int]:
        """Returns the line of the table of each graph."""
        return [self._rows[i] for i in self.indices()]

    def _units(self) -> list[str]:
        return self.files

    def _build(self) -> dict[str, Any]:
        with open_models(self._models) as folder:
            check_files(self._table, folder, self._models, self._table_name)
            converted, failed = convert_models(
                self._table, folder, self.vocabulary, self.counting, **self._conversion
            )
        failures = {_name(self._table[i]): failed[i] for i in sorted(failed)}
        _warn(failures)
        if not converted:
            file, reason = next(iter(failures.items()))
            raise ValueError(
                f"Expected 'models' to hold a model that can be converted (got {len(failures)} "
                f"that cannot, {file!r} for one: {reason})"
            )
        for i, graph in converted.items():
            graph.y = torch.tensor([[self._table[i].latency_ms]])
        rows = sorted(converted)
        graphs, kept = select_graphs(self, (converted[i] for i in rows))
        rows = [rows[k] for k in kept]
        data, slices = self.collate(graphs)
        return {"data": data.to_dict(), "slices": slices, "rows": rows, "failures": failures}

    def _converts_now(self, failures: dict[str, str]) -> bool:
        """Whether a model that failed when the graphs were kept has become convertible since."""
        rows = [row for row in self._table if _name(row) in failures]
        with open_models(self._models) as folder:
            converted, _ = convert_models(
                rows, folder, self.vocabulary, self.counting, num_workers=0, progress=False
            )
        if not converted:
            _warn(failures)
        return bool(converted)
