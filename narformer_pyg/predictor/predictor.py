"""A token encoder and a model together: from architectures to predictions in their unit."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, InMemoryDataset
from tqdm.auto import tqdm

from narformer_pyg import __version__
from narformer_pyg._checks import check_integer, resolve_device
from narformer_pyg._files import atomic_write
from narformer_pyg.convert import to_data
from narformer_pyg.errors import CheckpointError, ConversionError
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn.encoders import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.nn.functional import SortedEdges
from narformer_pyg.nn.models.checkpoint_file import read_checkpoint
from narformer_pyg.nn.models.frozen import FrozenNARFormerV2
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.registry import create_model, model_name
from narformer_pyg.nn.readout import segment_mean
from narformer_pyg.predictor.calibration import MonotoneMap
from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.spaces.nasbench201_equivalence import cell_indices, function_indices

FILE_NAME = "predictor.pt"
_PRETRAINED = Path(__file__).with_name("pretrained")
_FORMAT = "narformer_pyg.ArchitecturePredictor"
_FORMAT_VERSION = 1
_ENCODERS: dict[str, type[CellTokenEncoder | OperatorTokenEncoder]] = {
    "CellTokenEncoder": CellTokenEncoder,
    "OperatorTokenEncoder": OperatorTokenEncoder,
}


class ArchitecturePredictor(torch.nn.Module):
    r"""Predicts the targets of architectures, in the unit of their labels.

    Args:
        token_encoder (torch.nn.Module): Maps the raw tokens of a graph to node codes, for instance
            :class:`~narformer_pyg.nn.CellTokenEncoder`.
        model (GraphRegressor): Maps node codes and edges to positive numbers, for instance
            :class:`~narformer_pyg.nn.models.NARFormerV2`.
        target_names (sequence of str, optional): What each output is, for instance
            :obj:`["cifar10_test_acc"]`. (default: :obj:`None`)
        units (sequence of str, optional): The unit of each output, for instance
            :obj:`["percent"]`. (default: :obj:`None`)
        scale (float or sequence of float, optional): What the outputs of :obj:`model` are
            multiplied by to be in :obj:`units`, so that training deals with numbers around one.
            (default: :obj:`1.0`)
        average_equivalents (bool, optional): If set to :obj:`True`, :meth:`predict` takes cells of
            NAS-Bench-201 only, and predicts for each the mean over cells that compute the same
            function (see :func:`~narformer_pyg.spaces.equivalent_indices`).
            (default: :obj:`False`)
    """

    scale: Tensor

    def __init__(
        self,
        token_encoder: CellTokenEncoder | OperatorTokenEncoder,
        model: GraphRegressor | FrozenNARFormerV2,
        target_names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        scale: float | Sequence[float] = 1.0,
        average_equivalents: bool = False,
    ) -> None:
        super().__init__()
        if token_encoder.out_channels != model.in_channels:
            raise ValueError(
                "Expected 'model.in_channels' to be 'token_encoder.out_channels' "
                f"(got {model.in_channels} and {token_encoder.out_channels})"
            )
        if token_encoder.static_channels != model.static_channels:
            raise ValueError(
                "Expected 'model.static_channels' to be 'token_encoder.static_channels' "
                f"(got {model.static_channels} and {token_encoder.static_channels})"
            )
        num_targets = model.out_channels
        self.target_names = _as_names("target_names", target_names, num_targets, "target_{}")
        self.units = _as_names("units", units, num_targets, "")
        values = torch.as_tensor(scale, dtype=torch.float).flatten()
        if values.numel() not in (1, num_targets) or not (values.isfinite() & (values > 0)).all():
            raise ValueError(
                "Expected 'scale' to be a positive number, or one for each of the "
                f"{num_targets} targets (got {scale})"
            )
        if average_equivalents and not isinstance(token_encoder, CellTokenEncoder):
            raise ValueError(
                "Expected 'average_equivalents' to be set for cells of NAS-Bench-201 only (got a "
                f"{type(token_encoder).__name__})"
            )
        self.average_equivalents = average_equivalents
        #: For each target what :meth:`predict` maps predictions by; see :meth:`calibrate`.
        self.calibration: list[MonotoneMap | None] = [None] * num_targets
        self.token_encoder = token_encoder
        self.model = model
        self.register_buffer("scale", values.expand(num_targets).clone())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.scale.device

    @property
    def takes_neighbors(self) -> bool:
        """Whether lists of neighbors in a batch take the place of its edges."""
        return isinstance(self.model, GraphRegressor) and self.model.takes_neighbors

    def forward(self, data: Data) -> Tensor:
        r"""Predicts the targets of a graph or batch, in their units: :math:`(|G|, T)`.

        It is what training and validation during it see: neither averaged over equivalent cells nor
        calibrated, as :meth:`predict` is.

        Raises:
            ValueError: If an attribute of :obj:`data` is missing or not as the data contract says.
        """
        return self.forward_scaled(data) * self.scale

    def forward_scaled(self, data: Data) -> Tensor:
        r"""Predicts the targets divided by :obj:`scale`, which is what training compares."""
        edges: Tensor | SortedEdges = data.edge_index
        if "neighbor_ptr" in data and self.takes_neighbors:
            edges = SortedEdges.from_neighbors(
                data.neighbor_index, data.neighbor_ptr, data.neighbor_reverse
            )
        return self.model(
            self.token_encoder(data),
            edges,
            batch=data.batch,
            static=self.token_encoder.encode_static(data),
            batch_size=data.num_graphs if isinstance(data, Batch) else 1,
        )

    @torch.no_grad()
    def predict(
        self,
        architectures: Any,
        batch_size: int = 512,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        r"""Predicts the targets of architectures.

        Args:
            architectures: A single architecture, an iterable of them, or an in-memory dataset.
                An architecture is an arch string, a cell of a search space or a
                :class:`~torch_geometric.data.Data`; a :class:`~torch_geometric.data.Batch` is a
                sequence of them.
            batch_size (int, optional): Graphs in a batch; the predictions do not depend on it.
                (default: :obj:`512`)
            device (torch.device or str, optional): Where to run. By default, where the parameters
                are. The predictor stays where it is. (default: :obj:`None`)
            progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

        Returns:
            torch.Tensor: Predictions on the CPU: :math:`(n, T)`, or :math:`(T)` for a single one.

        Raises:
            ConversionError: If an architecture is malformed; the message says which.
            ValueError: If a graph or an argument is not as stated.
        """
        if isinstance(architectures, Batch):
            architectures = architectures.to_data_list()
        check_integer("batch_size", batch_size)
        device = self.device if device is None else resolve_device(device)
        single = isinstance(architectures, (str, Data)) or not isinstance(architectures, Iterable)
        if isinstance(architectures, InMemoryDataset):
            self.check_conventions(architectures)
        graphs: Any = architectures
        if not isinstance(architectures, InMemoryDataset) or architectures.transform is not None:
            listed = [architectures] if single else list(architectures)
            graphs = [self._read_graph(i, item) for i, item in enumerate(listed)]
        if len(graphs) == 0:
            return torch.empty(0, len(self.target_names))
        if self.average_equivalents:
            prediction = self._predict_averages(graphs, batch_size, device, progress)
        else:
            prediction = self._predict_graphs(graphs, batch_size, device, progress)
        for i, calibration in enumerate(self.calibration):
            if calibration is not None:
                prediction[:, i] = calibration(prediction[:, i])
        return prediction[0] if single else prediction

    def calibrate(
        self, graphs: Any, batch_size: int = 512, device: torch.device | str | None = None
    ) -> None:
        r"""Fits a map from predictions to labels that keeps their order, for :meth:`predict`.

        Losses that compare graphs sharpen the order and pull the values apart; on the training
        graphs, whose labels are known anyway, that can be seen and undone. The map is increasing
        and piecewise linear, one for each target.

        Args:
            graphs (InMemoryDataset or list of Data): Graphs with labels :obj:`y`.
            batch_size (int, optional): As in :meth:`predict`. (default: :obj:`512`)
            device (torch.device or str, optional): As in :meth:`predict`. (default: :obj:`None`)

        Raises:
            ValueError: If there is no graph, or labels are missing, not finite or not positive. The
                calibration there was stays.
        """
        graphs = graphs if isinstance(graphs, InMemoryDataset) else list(graphs)
        num_targets = len(self.target_names)
        labels: list[Tensor] = []
        for i, data in enumerate(graphs):
            y = data.y if "y" in data else None
            if (
                not isinstance(y, Tensor)
                or y.shape != (1, num_targets)
                or not bool((y.isfinite() & (y > 0)).all())
            ):
                raise ValueError(
                    f"Expected every graph of 'graphs' to have finite, positive labels 'y' of "
                    f"shape [1, {num_targets}] (got {y} in graph {i})"
                )
            labels.append(y)
        if not labels:
            raise ValueError("Expected 'graphs' to hold at least one graph (got none)")
        target = torch.cat(labels)
        before, self.calibration = self.calibration, [None] * num_targets
        try:
            prediction = self.predict(graphs, batch_size, device)
            after = [MonotoneMap.fit(prediction[:, i], target[:, i]) for i in range(num_targets)]
        except BaseException:
            self.calibration = before
            raise
        self.calibration = after

    def freeze(self, precision: str = "32-true") -> ArchitecturePredictor:
        r"""Returns a copy that predicts faster on the CPU, and can do nothing else.

        Worth it where many predictions are asked for one by one, as in a search. The copy does not
        follow later changes of this predictor; see
        :class:`~narformer_pyg.nn.models.FrozenNARFormerV2`.

        .. code-block:: python

            predictor = ArchitecturePredictor.from_pretrained("nasbench201-cifar10").freeze()

        Args:
            precision (str, optional): :obj:`"32-true"`, or :obj:`"bf16-mixed"`, which is faster yet
                where the processor multiplies bfloat16, and correct to two or three digits.
                (default: :obj:`"32-true"`)

        Raises:
            ValueError: If the model is not a :class:`~narformer_pyg.nn.models.NARFormerV2` with
                graph-aided attention, on the CPU in single precision.
        """
        frozen = ArchitecturePredictor(
            copy.deepcopy(self.token_encoder),
            FrozenNARFormerV2(self.model, precision),
            self.target_names,
            self.units,
            self.scale.tolist(),
            self.average_equivalents,
        )
        frozen.calibration = list(self.calibration)
        return frozen.eval()

    def _predict_averages(self, graphs: Any, *args: Any) -> Tensor:
        """Averages the predictions of the cells that are equivalent to each graph's."""
        functions = function_indices()[cell_indices(graphs)]
        functions, inverse = functions.unique(return_inverse=True)
        members = [equivalent_indices(i) for i in functions.tolist()]
        cells = [NASBench201Cell.from_index(i).to_data() for i in torch.cat(members).tolist()]
        sizes = torch.tensor([len(indices) for indices in members])
        group = torch.arange(len(members)).repeat_interleave(sizes)
        prediction = self._predict_graphs(cells, *args)
        return segment_mean(prediction, group, len(members))[inverse]

    def _predict_graphs(
        self, graphs: Any, batch_size: int, device: torch.device, progress: bool
    ) -> Tensor:
        before = self.device
        training = {module: module.training for module in self.modules()}
        self.to(device).eval()
        try:
            loader = DeviceLoader(graphs, batch_size, device=device)
            bar = tqdm(total=len(graphs), desc="Predicting", unit="graph", disable=not progress)
            parts = []
            with bar:
                for batch in loader:
                    parts.append(self(batch).float())
                    bar.update(batch.num_graphs)
            return torch.cat(parts).cpu()
        finally:
            self.to(before)
            for module, mode in training.items():  # parts may have been frozen with eval()
                module.training = mode

    def check_conventions(self, graphs: Data | InMemoryDataset, which: str = "") -> None:
        r"""Raises unless graphs were converted as the graphs this predictor is made for.

        Ids of operators and graph features mean something else by another vocabulary or counting,
        and predictions would be wrong without a sign. Graphs that do not say how they were
        converted pass.

        Args:
            graphs (Data or InMemoryDataset): One graph, or all of a dataset.
            which (str, optional): Which graphs, for the message. (default: :obj:`""`)

        Raises:
            ValueError: If :obj:`vocabulary` or :obj:`counting` differ.
        """
        store = graphs._data if isinstance(graphs, InMemoryDataset) else graphs
        for name in ("vocabulary", "counting"):
            theirs = getattr(store, name, None)
            mine = self.token_encoder.config.get(name)
            for value in sorted(set(theirs if isinstance(theirs, list) else [theirs]) - {None}):
                if value == mine:
                    continue
                advice = (
                    "this predictor is of cells, not of ONNX models"
                    if mine is None
                    else f"convert the models with {name}={mine!r}"
                )
                raise ValueError(
                    f"Expected '{name}'{which} to be that of the predictor, {mine!r} "
                    f"(got {value!r}); {advice}"
                )

    def _read_graph(self, position: int, architecture: Any) -> Data:
        """Converts one architecture and keeps what the model reads, so that all fit in a batch."""
        try:
            data = to_data(architecture)
        except ConversionError as error:
            raise ConversionError(f"{error} (architecture {position})") from error
        self.check_conventions(data, f" of architecture {position}")
        kept = {key: data[key] for key in self.token_encoder.tokens if key in data}
        edges = {"edge_index": data.edge_index} if "edge_index" in data else {}
        num_nodes = next((len(token) for token in kept.values()), data.num_nodes)
        return Data(**edges, **kept, num_nodes=num_nodes)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        r"""Writes configuration and parameters to :obj:`directory/predictor.pt`.

        The file is complete or absent, and replaces an older one only when it is complete.

        Args:
            directory (str or os.PathLike): The folder; created if missing.

        Returns:
            pathlib.Path: The file.

        Raises:
            ValueError: If encoder or model are not of this package, so that they could not be
                built again.
        """
        path = Path(directory) / FILE_NAME
        encoder = type(self.token_encoder)
        if isinstance(self.model, FrozenNARFormerV2):
            raise ValueError(
                "Expected a predictor with parameters (got a frozen one); save the one that it was "
                "made from"
            )
        if _ENCODERS.get(encoder.__name__) is not encoder:
            raise ValueError(
                f"Expected 'token_encoder' to be among {', '.join(_ENCODERS)}, so that it can be "
                f"saved (got {encoder.__name__}); save its 'state_dict()' yourself"
            )
        content = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "package_version": __version__,
            "config": {
                "token_encoder": {
                    "name": encoder.__name__,
                    **self.token_encoder.config,
                },
                "model": {"name": model_name(self.model), **self.model.config},
                "target_names": list(self.target_names),
                "units": list(self.units),
                "average_equivalents": self.average_equivalents,
                "calibration": [
                    None if calibration is None else calibration.to_list()
                    for calibration in self.calibration
                ],
            },
            "state_dict": {k: v.detach().cpu() for k, v in self.state_dict().items()},
        }
        with atomic_write(path) as temporary:
            torch.save(content, temporary)
        return path

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> ArchitecturePredictor:
        r"""Loads what :meth:`save_pretrained` wrote, or a predictor that is inside the package.

        Nothing in the file is executed (:obj:`weights_only=True`).

        .. code-block:: python

            predictor = ArchitecturePredictor.from_pretrained("nasbench201-cifar10")

        :obj:`"nasbench201-cifar10"` predicts the CIFAR-10 test accuracy of NAS-Bench-201 cells. It
        was trained by the recipe :obj:`"best"` on the labels :obj:`cifar10_estimated_acc` of 1,563
        cells (see :class:`~narformer_pyg.datasets.NASBench201`).

        Args:
            path (str or os.PathLike): The folder, or the file inside, or the name of a predictor
                inside the package, one of :func:`list_pretrained`.
            device (torch.device or str, optional): Where to put it. (default: :obj:`"cpu"`)

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file is corrupt or is something else.
        """
        name, path = os.fspath(path), Path(path)
        if not path.exists() and name in list_pretrained():
            path = _PRETRAINED / name
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f"Expected 'path' to be a folder with '{FILE_NAME}', such a file, or a predictor "
                f"inside the package: {', '.join(list_pretrained())} (got {name!r})"
            )
        content = read_checkpoint(file, "path")
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise CheckpointError(
                f"Expected 'path' to be written by 'ArchitecturePredictor.save_pretrained' (got "
                f"{os.fspath(file)!r}). For a file of the authors' code use "
                "'NARFormerV2.from_released_checkpoint', and for one to go on training from, the "
                "'resume' argument of training"
            )
        version = content.get("format_version")
        if not isinstance(version, int):
            raise CheckpointError(
                f"Cannot read 'path' (got {os.fspath(file)!r}): it has no valid format version "
                f"({version!r})"
            )
        if version > _FORMAT_VERSION:
            raise CheckpointError(
                f"Expected 'path' to have format version {_FORMAT_VERSION} or lower (got "
                f"{version} in {os.fspath(file)!r}, written by narformer_pyg "
                f"{content.get('package_version')}); update with 'pip install -U narformer-pyg'"
            )
        try:
            config = content["config"]
            encoder = dict(config["token_encoder"])
            model = dict(config["model"])
            predictor = cls(
                _ENCODERS[encoder.pop("name")](**encoder),
                create_model(model.pop("name"), **model),
                config["target_names"],
                config["units"],
                average_equivalents=config.get("average_equivalents", False),
            )
            predictor.load_state_dict(content["state_dict"])
            predictor.calibration = [
                None if knots is None else MonotoneMap.from_list(knots)
                for knots in config.get("calibration", [None] * len(predictor.target_names))
            ]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(
                f"Cannot rebuild the predictor in {os.fspath(file)!r} "
                f"({type(error).__name__}: {' '.join(str(error).split())})"
            ) from error
        return predictor.to(resolve_device(device)).eval()


def list_pretrained() -> list[str]:
    """Returns the names of the predictors inside the package."""
    return sorted(folder.name for folder in _PRETRAINED.iterdir() if folder.is_dir())


def _as_names(
    argument: str, names: Sequence[str] | None, num_targets: int, default: str
) -> tuple[str, ...]:
    if names is None:
        return tuple(default.format(i) for i in range(num_targets))
    if isinstance(names, str) or len(names) != num_targets:
        raise ValueError(
            f"Expected '{argument}' to have one entry for each of the {num_targets} outputs of "
            f"'model' (got {names!r})"
        )
    return tuple(names)
