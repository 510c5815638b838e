"""A token encoder and a model together: from architectures to predictions in their units."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, InMemoryDataset
from tqdm.auto import tqdm

from narformer_pyg._checks import check_integer, resolve_device
from narformer_pyg._registry import Registry
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn.encoders import ENCODERS
from narformer_pyg.nn.models import MODELS, GraphRegressor, create_model
from narformer_pyg.predictor.architectures import CONVENTIONS, check_conventions, read_graphs
from narformer_pyg.predictor.batches import map_batches
from narformer_pyg.predictor.calibration import MonotoneCalibration, read_labels
from narformer_pyg.predictor.card import model_card
from narformer_pyg.predictor.checkpoint import read_config, read_weights, write_checkpoint
from narformer_pyg.predictor.hub import find_folder

#: Classes of predictors by the names that checkpoints call them by.
PREDICTORS = Registry("predictor")


@PREDICTORS.register("plain")
class ArchitecturePredictor(torch.nn.Module):
    r"""Predicts the targets of architectures, in the units of their labels.

    In evaluation mode :obj:`predictor(batch)` is what :meth:`predict` returns: the outputs of the
    model times their scale, calibrated. In training mode it is not calibrated.

    Args:
        token_encoder (torch.nn.Module): Maps the raw tokens of a graph to node codes, for instance
            :class:`~narformer_pyg.nn.CellTokenEncoder`.
        model (GraphRegressor): Maps node codes and edges to positive numbers, for instance
            :class:`~narformer_pyg.nn.models.NARFormerV2`.
        target_names (sequence of str, optional): A name for each output. (default: :obj:`None`)
        units (sequence of str, optional): A unit for each output. (default: :obj:`None`)
        scale (float or sequence of float, optional): The factor from the outputs of :obj:`model`
            to :obj:`units`, so that training deals with numbers around one.
            (default: :obj:`1.0`)
        space (str, optional): The search space of the cells, for instance :obj:`"nasbench201"`;
            graphs that say they are of another one are refused. (default: :obj:`None`, any)
        metadata (dict, optional): Facts that are saved and shown with the predictor, as JSON
            values: dataset, recipe, device of the labels, :obj:`metrics`, :obj:`description`,
            :obj:`license`. (default: :obj:`None`)
    """

    token_encoder: Any
    scale: Tensor
    calibration: MonotoneCalibration

    def __init__(
        self,
        token_encoder: torch.nn.Module,
        model: GraphRegressor,
        target_names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        scale: float | Sequence[float] | Tensor = 1.0,
        *,
        space: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for mine, theirs in (("in_channels", "out_channels"), ("static_channels",) * 2):
            if getattr(model, mine) not in (-1, getattr(token_encoder, theirs)):
                raise ValueError(
                    f"Expected 'model.{mine}' to be 'token_encoder.{theirs}' "
                    f"(got {getattr(model, mine)} and {getattr(token_encoder, theirs)})"
                )
        if space is not None and not isinstance(space, str):
            raise ValueError(f"Expected 'space' to be the name of a search space (got {space!r})")
        num_targets = model.out_channels
        self.target_names = _as_names("target_names", target_names, num_targets, "target_{}")
        self.units = _as_names("units", units, num_targets, "")
        self.space = space
        self.metadata = _as_json(metadata)
        self.token_encoder = token_encoder
        self.model = model
        self.register_buffer("scale", torch.tensor(_as_scale(scale, num_targets)))
        self.calibration = MonotoneCalibration(num_targets)

    @classmethod
    def wrap(cls, predictor: ArchitecturePredictor) -> ArchitecturePredictor:
        """Returns a predictor of this class with the parts of a plain one."""
        return predictor

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.scale.device

    @property
    def conventions(self) -> dict[str, str]:
        """How graphs have to be converted: :obj:`space`, :obj:`vocabulary`, :obj:`counting`."""
        known = {**self.token_encoder.config, "space": self.space}
        return {name: known[name] for name in CONVENTIONS if known.get(name) is not None}

    def forward(self, data: Data) -> Tensor:
        r"""Predicts the targets of a graph or batch, in their units: :math:`(|G|, T)`.

        Raises:
            ValueError: If an attribute of :obj:`data` is missing or breaks the data contract.
        """
        prediction = self.forward_scaled(data) * self.scale
        return prediction if self.training else self.calibration(prediction)

    def forward_scaled(self, data: Data) -> Tensor:
        r"""Predicts the targets divided by :obj:`scale`, which is what losses compare."""
        out: Tensor = self.model(
            self.token_encoder(data),
            data.edge_index,
            batch=data.batch,
            static=self.token_encoder.encode_static(data),
            batch_size=data.num_graphs if isinstance(data, Batch) else 1,
        )
        return out

    @torch.no_grad()
    def predict(
        self,
        architectures: Any,
        batch_size: int = 512,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        r"""Predicts the targets of architectures.

        The predictor stays as it is, so threads may share one. In training mode, or on another
        device, a copy predicts; call :meth:`eval` and :meth:`to` first where that matters.

        Args:
            architectures: One architecture, an iterable of them, or an in-memory dataset. An
                architecture is whatever :func:`~narformer_pyg.convert.to_data` takes: a
                :class:`~torch_geometric.data.Data`, a cell or its text for a predictor of cells; an
                ONNX file, an ONNX model or :obj:`(module, example_inputs)` for one of networks. A
                :class:`~torch_geometric.data.Batch` is a sequence of graphs.
            batch_size (int, optional): Graphs in a batch; the predictions do not depend on it.
                (default: :obj:`512`)
            device (torch.device or str, optional): Where to run. By default, where the parameters
                are. (default: :obj:`None`)
            progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

        Returns:
            torch.Tensor: Predictions on the CPU: :math:`(n, T)`, or :math:`(T)` for a single one.

        Raises:
            ConversionError: If an architecture is malformed; the message says which.
            ValueError: If a graph or an argument is not as stated.
        """
        check_integer("batch_size", batch_size)
        device = self.device if device is None else resolve_device(device)
        tokens = self.token_encoder.tokens
        graphs, single = read_graphs(architectures, tokens, self.conventions)
        if len(graphs) == 0:
            return torch.empty(0, len(self.target_names))
        predictor = self
        if self.device != device or any(module.training for module in self.modules()):
            predictor = copy.deepcopy(self).to(device).eval()
        prediction = predictor._predict_graphs(graphs, batch_size, progress).cpu()
        return prediction[0] if single else prediction

    def _predict_graphs(self, graphs: Any, batch_size: int, progress: bool) -> Tensor:
        return self._map(self, graphs, batch_size, progress)

    def _map(
        self, function: Callable[[Any], Tensor], graphs: Any, batch_size: int, progress: bool
    ) -> Tensor:
        """Joins what a function returns for the batches of graphs."""
        # Seeded, since a loader without a seed draws one from PyTorch's generator.
        loader = DeviceLoader(graphs, batch_size, device=self.device, seed=0)
        parts = []
        with tqdm(total=len(graphs), desc="Predicting", unit="graph", disable=not progress) as bar:
            for part in map_batches(function, loader, self.token_encoder.tokens):
                parts.append(part)
                bar.update(len(part))
        return torch.cat(parts)

    def calibrate(
        self, graphs: Any, batch_size: int = 512, device: torch.device | str | None = None
    ) -> None:
        r"""Fits an increasing map from predictions to labels for each target.

        Losses that compare graphs sharpen the order and pull the values apart; on the training
        graphs, whose labels are known anyway, that can be seen and undone. A new calibration
        replaces the old one.

        Args:
            graphs (InMemoryDataset or list of Data): Graphs with labels :obj:`y`, NaN where a
                target was not measured.
            batch_size (int, optional): As in :meth:`predict`. (default: :obj:`512`)
            device (torch.device or str, optional): As in :meth:`predict`. (default: :obj:`None`)

        Raises:
            ValueError: If labels are missing or not positive. The old calibration stays.
        """
        graphs = graphs if isinstance(graphs, InMemoryDataset) else list(graphs)
        labels = read_labels(graphs, len(self.target_names))
        plain = copy.deepcopy(self)
        plain.calibration = MonotoneCalibration(len(self.target_names)).to(self.scale)
        prediction = plain.eval().predict(graphs, batch_size, device)
        calibration = MonotoneCalibration.fit(prediction, labels).to(self.scale)
        self.calibration = calibration.train(self.training)

    def with_targets(
        self,
        target_names: Sequence[str],
        units: Sequence[str] | None = None,
        scale: float | Sequence[float] | Tensor = 1.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> ArchitecturePredictor:
        r"""Returns a predictor of other targets that starts from the weights of this one.

        All weights are copied but those of the last layer, which are new; there is no calibration.

        .. code-block:: python

            predictor = ArchitecturePredictor.from_pretrained("nasbench201-cifar10")
            predictor = predictor.with_targets(["latency"], ["ms"], scale=labels.mean())
            result = fit(predictor, train_set, recipe)

        The arguments are those of the constructor.
        """
        name, config = MODELS.name_of(self.model), self.model.config
        num_targets = len(target_names)
        model = create_model(name, **{**config, "out_channels": num_targets})
        # The last layer is where the number of targets changes a shape.
        with torch.device("meta"):
            wider = create_model(name, **{**config, "out_channels": num_targets + 1}).state_dict()
        state, new = self.model.state_dict(), model.state_dict()
        kept = {k: v for k, v in state.items() if v.shape == wider[k].shape == new[k].shape}
        model.load_state_dict({**new, **kept})
        encoder = copy.deepcopy(self.token_encoder)
        predictor = ArchitecturePredictor(
            encoder, model, target_names, units, scale, space=self.space, metadata=metadata
        )
        return type(self).wrap(predictor.to(self.scale).train(self.training))

    def check_conventions(self, graphs: Data | InMemoryDataset, which: str = "") -> None:
        r"""Raises unless graphs were converted as the graphs this predictor is made for.

        The same ids and features mean something else in another space, vocabulary or counting.
        Graphs that do not say how they were converted pass; a predictor without a space takes any.

        Args:
            graphs (Data or InMemoryDataset): One graph, or all of a dataset.
            which (str, optional): Which graphs, for the message. (default: :obj:`""`)

        Raises:
            ValueError: If :obj:`space`, :obj:`vocabulary` or :obj:`counting` differ.
        """
        check_conventions(graphs, self.conventions, which)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        r"""Writes :obj:`config.json`, :obj:`model.safetensors` and the model card to a folder.

        The folder is ready for Hugging Face's hub. A process that is killed while it writes leaves
        the old checkpoint or the new one.

        Args:
            folder (str or os.PathLike): The folder; created if missing. It is returned as a path.

        Raises:
            ValueError: If encoder, model or predictor are of classes that were not registered.
        """
        config = {
            "predictor": PREDICTORS.name_of(self),
            "token_encoder": {
                "name": ENCODERS.name_of(self.token_encoder),
                "config": self.token_encoder.config,
            },
            "model": {"name": MODELS.name_of(self.model), "config": self.model.config},
            "target_names": list(self.target_names),
            "units": list(self.units),
            "space": self.space,
            "metadata": _as_json(self.metadata),
        }
        size = sum(parameter.numel() for parameter in self.parameters())
        folder = Path(folder)
        card = model_card(folder.resolve().name, config, self.scale.tolist(), size)
        return write_checkpoint(folder, config, self.state_dict(), card)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        revision: str | None = None,
    ) -> ArchitecturePredictor:
        r"""Loads a predictor, in evaluation mode, from a folder, the package or Hugging Face's hub.

        Only JSON and safetensors are read, and nothing in them is executed.

        The package holds :obj:`"nasbench201-cifar10"`, the accuracy of NAS-Bench-201 cells.

        Args:
            path (str or os.PathLike): A folder that :meth:`save_pretrained` wrote, a name of
                :func:`~narformer_pyg.predictor.list_pretrained`, or a name :obj:`"user/name"` on
                the hub, which needs the package :obj:`huggingface_hub`.
            device (torch.device or str, optional): Where to put it. (default: :obj:`"cpu"`)
            revision (str, optional): A branch, tag or commit on the hub. (default: :obj:`None`)

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            CheckpointError: If it is damaged, of something else, or of a later version.
            ImportError: If :obj:`huggingface_hub` is needed but not installed.
        """
        device = resolve_device(device)
        folder = find_folder(path, revision)
        config = read_config(folder)

        def build() -> ArchitecturePredictor:
            encoder, model = config["token_encoder"], config["model"]
            predictor = ArchitecturePredictor(
                ENCODERS.get(encoder["name"])(**encoder["config"]),
                create_model(model["name"], **model["config"]),
                config["target_names"] or (),  # never as many names as there are outputs
                config["units"] or (),
                space=config["space"],
                metadata=config["metadata"],
            )
            return PREDICTORS.get(config["predictor"]).wrap(predictor)

        return read_weights(folder, config, build).to(device).eval()

    def check(self) -> None:
        """Raises a :class:`ValueError` if scale or calibration hold impossible numbers."""
        _as_scale(self.scale, len(self.target_names))
        self.calibration.check()

    def extra_repr(self) -> str:
        """Returns targets and metadata."""
        facts: dict[str, Any] = {"targets": ", ".join(self.target_names)}
        facts |= {"units": ", ".join(self.units), "space": self.space or "any", **self.metadata}
        return "\n".join(f"{key}: {value}" for key, value in facts.items())


def _as_names(
    argument: str, names: Sequence[str] | None, num_targets: int, default: str
) -> tuple[str, ...]:
    if names is None:
        return tuple(default.format(i) for i in range(num_targets))
    is_list = not isinstance(names, str) and all(isinstance(name, str) for name in names)
    if not is_list or len(names) != num_targets:
        raise ValueError(
            f"Expected '{argument}' to be one text for each of the {num_targets} outputs of "
            f"'model' (got {names!r})"
        )
    return tuple(names)


def _as_scale(scale: float | Sequence[float] | Tensor, num_targets: int) -> list[float]:
    # As numbers, since a tensor on the meta device has no values to look at.
    given = scale.flatten().tolist() if isinstance(scale, Tensor) else scale
    values = [float(value) for value in (given if isinstance(given, Sequence) else [given])]
    if len(values) not in (1, num_targets) or not all(0 < v < math.inf for v in values):
        raise ValueError(
            "Expected 'scale' to be a positive number, or one for each of the "
            f"{num_targets} targets (got {given})"
        )
    return values if len(values) == num_targets else values * num_targets


def _as_json(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns a copy, or raises unless it is made of JSON values."""
    try:
        return dict(json.loads(json.dumps(metadata or {}, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected 'metadata' to be a dictionary of JSON values (got {metadata!r})"
        ) from error
