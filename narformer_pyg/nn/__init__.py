"""Layers, encoders, readouts and losses."""

from narformer_pyg.nn.block import NARFormerV2Block
from narformer_pyg.nn.conv import GraphAidedAttentionConv, SoftmaxAttentionConv
from narformer_pyg.nn.dropout import Dropout
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
from narformer_pyg.nn.linear import Linear
from narformer_pyg.nn.losses import (
    LOSSES,
    ArchitectureConsistencyLoss,
    LogRatioLoss,
    PairwiseRankingLoss,
    RelativeMSELoss,
    SequenceRankingLoss,
    register_loss,
)
from narformer_pyg.nn.readout import (
    READOUTS,
    FusionReadout,
    MeanReadout,
    SumReadout,
    register_readout,
)

__all__ = [
    "ENCODERS",
    "LOSSES",
    "READOUTS",
    "ArchitectureConsistencyLoss",
    "CellTokenEncoder",
    "Dropout",
    "FusionReadout",
    "GraphAidedAttentionConv",
    "GroupedFeedForward",
    "GroupedLinear",
    "Linear",
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
    "register_loss",
    "register_readout",
    "trans_code",
]
