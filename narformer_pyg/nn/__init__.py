"""Layers, encoders, readouts and losses."""

from narformer_pyg.nn.block import NARFormerV2Block
from narformer_pyg.nn.conv import GraphAidedAttentionConv, SoftmaxAttentionConv
from narformer_pyg.nn.encoders import (
    ENCODERS,
    CellTokenEncoder,
    OperatorTokenEncoder,
    nerf_code,
    register_encoder,
    trans_code,
)
from narformer_pyg.nn.grouped_feed_forward import GroupedFeedForward
from narformer_pyg.nn.grouped_linear import GroupedLinear
from narformer_pyg.nn.head import PositiveRegressionHead
from narformer_pyg.nn.losses import (
    ArchitectureConsistencyLoss,
    LogRatioLoss,
    PairwiseRankingLoss,
    RelativeMSELoss,
    SequenceRankingLoss,
)
from narformer_pyg.nn.readout import FusionReadout, MeanReadout, SumReadout

__all__ = [
    "ENCODERS",
    "ArchitectureConsistencyLoss",
    "CellTokenEncoder",
    "FusionReadout",
    "GraphAidedAttentionConv",
    "GroupedFeedForward",
    "GroupedLinear",
    "LogRatioLoss",
    "MeanReadout",
    "NARFormerV2Block",
    "OperatorTokenEncoder",
    "PairwiseRankingLoss",
    "PositiveRegressionHead",
    "RelativeMSELoss",
    "SequenceRankingLoss",
    "SoftmaxAttentionConv",
    "SumReadout",
    "nerf_code",
    "register_encoder",
    "trans_code",
]
