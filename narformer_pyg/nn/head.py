"""The regression head, whose predictions are positive."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from narformer_pyg.nn.dropout import relu_dropout
from narformer_pyg.nn.linear import linear


class PositiveRegressionHead(torch.nn.Module):
    r"""Two hidden layers and a linear one, made positive by a softplus.

    .. math::
        \hat{\mathbf{y}} = -\log \sigma(\mathrm{MLP}(\mathbf{z})) = \mathrm{softplus}(
        -\mathrm{MLP}(\mathbf{z}))

    Accuracies, losses and latencies are all positive, so relative errors are well defined. The
    sign inside is that of the authors' release, whose checkpoints would otherwise not load.

    Args:
        in_channels (int): Size of each graph state.
        hidden_channels (int): Size of the hidden layers.
        out_channels (int, optional): The number of targets. (default: :obj:`1`)
        dropout (float, optional): Dropout probability after each activation.
            (default: :obj:`0.05`)

    Shapes:
        - **input:** graph states :math:`(|\mathcal{G}|, F_{in})`
        - **output:** predictions :math:`(|\mathcal{G}|, T)`
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int = 1, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.lin_1 = torch.nn.Linear(in_channels, hidden_channels)
        self.lin_2 = torch.nn.Linear(hidden_channels, hidden_channels)
        self.lin_3 = torch.nn.Linear(hidden_channels, out_channels)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for lin in (self.lin_1, self.lin_2, self.lin_3):
            lin.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Maps graph states to positive predictions."""
        for lin in (self.lin_1, self.lin_2):
            x = relu_dropout(linear(x, lin), self.dropout, self.training)
        return F.softplus(-linear(x, self.lin_3))
