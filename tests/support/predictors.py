from __future__ import annotations

from typing import Any

import torch

from narformer_pyg.nn import CellTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
OTHER = "|none~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


def small_predictor(
    scale: Any = 1.0, seed: int = 0, num_targets: int = 1, model: Any = None, **kwargs: Any
) -> ArchitecturePredictor:
    """A predictor of cells with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    encoder = CellTokenEncoder(7, 8, num_frequencies=4)
    sizes = {"hidden_channels": 16, "num_blocks": 2, "out_channels": num_targets}
    network = create_model("narformer_v2", encoder.out_channels, **{**sizes, **(model or {})})
    return ArchitecturePredictor(encoder, network, scale=scale, **kwargs).eval()
