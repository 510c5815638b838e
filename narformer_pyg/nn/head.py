"""The regression head, with positive predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.resolver import activation_resolver

from narformer_pyg.nn.dropout import Dropout
from narformer_pyg.nn.linear import Linear


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
        act (str or Callable, optional): The activation. (default: :obj:`"relu"`)

    Shapes:
        - **input:** graph states :math:`(|\mathcal{G}|, F_{in})`
        - **output:** predictions :math:`(|\mathcal{G}|, T)`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int = 1,
        dropout: float = 0.05,
        act: str | torch.nn.Module = "relu",
    ) -> None:
        super().__init__()
        self.lin_1 = Linear(in_channels, hidden_channels)
        self.lin_2 = Linear(hidden_channels, hidden_channels)
        self.lin_3 = Linear(hidden_channels, out_channels)
        self.act = activation_resolver(act)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for lin in (self.lin_1, self.lin_2, self.lin_3):
            lin.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Maps graph states to positive predictions."""
        for lin in (self.lin_1, self.lin_2):
            x = self.dropout(self.act(lin(x)))
        return F.softplus(-self.lin_3(x))
