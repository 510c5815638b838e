"""A token encoder and a model together: from architectures to predictions in their unit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, InMemoryDataset

from narformer_pyg import __version__
from narformer_pyg._files import atomic_write
from narformer_pyg.convert import to_data
from narformer_pyg.errors import CheckpointError
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.nn.encoders import CellTokenEncoder
from narformer_pyg.nn.models.checkpoint_file import read_checkpoint
from narformer_pyg.nn.models.graph_regressor import GraphRegressor
from narformer_pyg.nn.models.registry import create_model, model_name

FILE_NAME = "predictor.pt"
_FORMAT = "narformer_pyg.ArchitecturePredictor"
_FORMAT_VERSION = 1
_ENCODERS = {"CellTokenEncoder": CellTokenEncoder}


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
    """

    scale: Tensor

    def __init__(
        self,
        token_encoder: CellTokenEncoder,
        model: GraphRegressor,
        target_names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        scale: float | Sequence[float] = 1.0,
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
        self.token_encoder = token_encoder
        self.model = model
        self.register_buffer("scale", values.expand(num_targets).clone())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.scale.device

    def forward(self, data: Data) -> Tensor:
        r"""Predicts the targets of a graph or batch, in their units: :math:`(|G|, T)`.

        Raises:
            ValueError: If an attribute of :obj:`data` is missing or not as the data contract says.
        """
        return self.forward_scaled(data) * self.scale

    def forward_scaled(self, data: Data) -> Tensor:
        r"""Predicts the targets divided by :obj:`scale`, which is what training compares."""
        return self.model(
            self.token_encoder(data),
            data.edge_index,
            batch=data.batch,
            static=self.token_encoder.encode_static(data),
            batch_size=data.num_graphs if isinstance(data, Batch) else 1,
        )

    @torch.no_grad()
    def predict(
        self, architectures: Any, batch_size: int = 512, device: torch.device | str | None = None
    ) -> Tensor:
        r"""Predicts the targets of architectures.

        Args:
            architectures: A single architecture, a sequence of them, or an in-memory dataset.
                An architecture is an arch string, a cell of a search space or a
                :class:`~torch_geometric.data.Data`; a :class:`~torch_geometric.data.Batch` is a
                sequence of them.
            batch_size (int, optional): Graphs in a batch; the predictions do not depend on it.
                (default: :obj:`512`)
            device (torch.device or str, optional): Where to run. By default, where the parameters
                are. The predictor stays where it is. (default: :obj:`None`)

        Returns:
            torch.Tensor: Predictions on the CPU: :math:`(n, T)`, or :math:`(T)` for a single one.

        Raises:
            ConversionError: If an architecture is malformed; the message says which.
        """
        if isinstance(architectures, Batch):
            architectures = architectures.to_data_list()
        single = isinstance(architectures, str) or not isinstance(
            architectures, (Sequence, InMemoryDataset)
        )
        graphs: Any = architectures
        if not isinstance(architectures, InMemoryDataset):
            listed = [architectures] if single else list(architectures)
            if not listed:
                return torch.empty(0, len(self.target_names))
            graphs = [_strip_labels(to_data(architecture)) for architecture in listed]

        before = self.device
        training = {module: module.training for module in self.modules()}
        device = before if device is None else torch.device(device)
        self.to(device).eval()
        try:
            loader = DeviceLoader(graphs, batch_size, device=device)
            prediction = torch.cat([self(batch).float() for batch in loader]).cpu()
        finally:
            self.to(before)
            for module, mode in training.items():  # parts may have been frozen with eval()
                module.training = mode
        return prediction[0] if single else prediction

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        r"""Writes configuration and parameters to :obj:`directory/predictor.pt`.

        The file is complete or absent, and replaces an older one only when it is complete.

        Args:
            directory (str or os.PathLike): The folder; created if missing.

        Returns:
            pathlib.Path: The file.
        """
        path = Path(directory) / FILE_NAME
        content = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "package_version": __version__,
            "config": {
                "token_encoder": {
                    "name": type(self.token_encoder).__name__,
                    **self.token_encoder.config,
                },
                "model": {"name": model_name(self.model), **self.model.config},
                "target_names": list(self.target_names),
                "units": list(self.units),
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
        r"""Loads what :meth:`save_pretrained` wrote.

        Nothing in the file is executed (:obj:`weights_only=True`).

        Args:
            path (str or os.PathLike): The folder, or the file inside.
            device (torch.device or str, optional): Where to put it. (default: :obj:`"cpu"`)

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file is corrupt or is something else.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f"Expected 'path' to be a folder with '{FILE_NAME}' or such a file "
                f"(got {os.fspath(path)!r})"
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
            )
            predictor.load_state_dict(content["state_dict"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(
                f"Cannot rebuild the predictor in {os.fspath(file)!r} "
                f"({type(error).__name__}: {error})"
            ) from error
        return predictor.to(device).eval()


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


def _strip_labels(data: Data) -> Data:
    """Drops labels, so that labelled and unlabelled graphs fit in one batch."""
    if "y" not in data:
        return data
    data = data.clone()
    del data.y
    return data
