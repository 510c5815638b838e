"""Predictions of NAS-Bench-201 cells, averaged over cells that compute the same function."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.readout import segment_mean
from narformer_pyg.predictor.predictor import PREDICTORS, ArchitecturePredictor
from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.spaces.nasbench201 import cell_indices, function_indices


@PREDICTORS.register("averaged")
class AveragedPredictor(ArchitecturePredictor):
    r"""A predictor of NAS-Bench-201 cells that averages over cells that compute the same function.

    In evaluation mode a cell is predicted as the mean over its equivalents (see
    :func:`~narformer_pyg.spaces.equivalent_indices`), which is then calibrated. In training mode
    every graph counts for itself: there the equivalents are the augmentation.

    Args:
        predictor (ArchitecturePredictor): A predictor of cells. Encoder, model and calibration
            become those of the new predictor, which takes its place from then on.

    Raises:
        ValueError: If :obj:`predictor` is not of cells, or of another space; on use, if a graph is
            not a cell of NAS-Bench-201.
    """

    def __init__(self, predictor: ArchitecturePredictor) -> None:
        encoder, space = predictor.token_encoder, predictor.space
        if not isinstance(encoder, CellTokenEncoder) or space not in (None, "nasbench201"):
            raise ValueError(
                "Expected 'predictor' to be of cells of NAS-Bench-201, whose equivalent cells are "
                f"known (got one with a {type(encoder).__name__} for the space {space!r})"
            )
        super().__init__(
            encoder,
            predictor.model,
            predictor.target_names,
            predictor.units,
            space="nasbench201",
            metadata=predictor.metadata,
        )
        self.scale = predictor.scale
        self.calibration = predictor.calibration
        self.training = predictor.training

    @classmethod
    def wrap(cls, predictor: ArchitecturePredictor) -> AveragedPredictor:
        """Returns a predictor of this class with the parts of a plain one."""
        return cls(predictor)

    def forward(self, data: Data) -> Tensor:
        r"""Predicts the targets of a graph or batch, in their units: :math:`(|G|, T)`."""
        if self.training:
            return self.forward_scaled(data) * self.scale
        data = copy.copy(data).to("cpu")  # the cells are looked up there
        return self._predict_graphs(data.to_data_list() if isinstance(data, Batch) else [data])

    def _predict_graphs(
        self, graphs: Sequence[Data], batch_size: int = 512, progress: bool = False
    ) -> Tensor:
        functions = function_indices()[cell_indices(graphs)]
        functions, inverse = functions.unique(return_inverse=True)
        members = [equivalent_indices(i) for i in functions.tolist()]
        cells = [NASBench201Cell.from_index(i).to_data() for i in torch.cat(members).tolist()]
        sizes = torch.tensor([len(indices) for indices in members])
        group = torch.arange(len(members)).repeat_interleave(sizes).to(self.device)

        prediction = self._map(self.forward_scaled, cells, batch_size, progress) * self.scale
        mean = segment_mean(prediction, group, len(members))
        return self.calibration(mean)[inverse.to(self.device)]
