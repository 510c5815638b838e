"""Node codes written into the graph, for models that read ``data.x``."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform


@functional_transform("encode_tokens")
class EncodeTokens(BaseTransform):
    r"""Writes the node codes :obj:`x` that a token encoder makes of a graph's raw tokens.

    Graphs hold raw tokens, which predictors encode on the device. This transform makes the codes
    part of the graphs, for any model of PyG that reads :obj:`data.x` and for
    :obj:`dataset.num_features`.

    .. code-block:: python

        from narformer_pyg.nn import CellTokenEncoder

        dataset = NASBench201(transform=EncodeTokens(CellTokenEncoder()))
        dataset.num_features  # 128

    The codes of the graph features become :obj:`static_x`, if the encoder has any.

    Args:
        encoder (torch.nn.Module): The token encoder, one of :obj:`narformer_pyg.nn` or any module
            with :obj:`forward(data)` and :obj:`encode_static(data)`.

    Raises:
        TypeError: If :obj:`encoder` is not such a module.
    """

    def __init__(self, encoder: torch.nn.Module) -> None:
        if not isinstance(encoder, torch.nn.Module) or not hasattr(encoder, "encode_static"):
            raise TypeError(
                "Expected 'encoder' to be a module with 'forward(data)' and 'encode_static(data)' "
                f"(got {encoder!r:.80})"
            )
        self.encoder = encoder

    @torch.no_grad()
    def forward(self, data: Data) -> Data:
        """Returns a copy of a graph with its codes."""
        data.x = self.encoder(data)  # [num_nodes, encoder.out_channels]
        static = self.encoder.encode_static(data)  # type: ignore[operator]
        if static is not None:
            data.static_x = static  # [1, encoder.static_channels]
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.encoder!r})"
