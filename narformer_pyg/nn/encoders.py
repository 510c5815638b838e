"""Token encoders: from the raw tokens of a graph to the node codes that models read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from narformer_pyg._checks import check_integer


def nerf_code(value: Tensor, num_frequencies: int = 32) -> Tensor:
    r"""The sinusoidal code of the paper for operations and positions.

    .. math::
        [\sin(\pi f_1 v), \cos(\pi f_1 v), \dots, \sin(\pi f_L v), \cos(\pi f_L v)], \quad
        f = \mathrm{linspace}(2^0, 2^{L-1}, L)

    The frequencies are spaced linearly (authors' release), which makes the codes of small integers
    nearly orthogonal. They reach :math:`2^{L-1}`, so all is computed in double precision.

    Args:
        value (torch.Tensor): Integers or floats of shape :math:`(*)`.
        num_frequencies (int, optional): The number of frequencies :math:`L`. (default: :obj:`32`)

    Returns:
        torch.Tensor: The float64 codes :math:`(*, 2L)`.
    """
    f = torch.linspace(
        1.0, 2.0 ** (num_frequencies - 1), num_frequencies, dtype=torch.double, device=value.device
    )
    angle = math.pi * f * value.double().unsqueeze(-1)  # [*, num_frequencies]
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class CellTokenEncoder(torch.nn.Module):
    r"""Codes of the nodes of a cell: operation next to position, 128 numbers in the paper.

    Both are fixed (:func:`nerf_code`), so they are kept as tables and looked up on the device.

    Args:
        num_operations (int, optional): Operation ids are below this number. (default: :obj:`32`)
        num_positions (int, optional): Topological positions are below this number.
            (default: :obj:`128`)
        num_frequencies (int, optional): Frequencies of each of the two codes. (default: :obj:`32`)

    Shapes:
        - **input:** a graph or batch with :obj:`op` and :obj:`position`, long
          :math:`(|\mathcal{V}|)` each
        - **output:** node codes :math:`(|\mathcal{V}|, 4L)`
    """

    #: The attributes of a graph that are read.
    tokens = ("op", "position")

    operations: Tensor
    positions: Tensor

    def __init__(
        self, num_operations: int = 32, num_positions: int = 128, num_frequencies: int = 32
    ) -> None:
        super().__init__()
        self.config = {
            "num_operations": num_operations,
            "num_positions": num_positions,
            "num_frequencies": num_frequencies,
        }
        for name, value in self.config.items():
            check_integer(name, value)
        # Not in the state dict: the configuration says it all.
        for name, size in (("operations", num_operations), ("positions", num_positions)):
            table = nerf_code(torch.arange(size), num_frequencies).float()
            self.register_buffer(name, table, persistent=False)

    @property
    def out_channels(self) -> int:
        """Size of each node code."""
        return 4 * self.config["num_frequencies"]

    @property
    def static_channels(self) -> int:
        """Size of the code of the graph features: cells have none."""
        return 0

    def forward(self, data: Data) -> Tensor:
        r"""Looks up the code of each node.

        Raises:
            ValueError: If :obj:`op` or :obj:`position` is missing, of the wrong type or, on the
                CPU, out of the range of the tables.
        """
        op = _look_up(self.operations, data, "op", "num_operations")
        return torch.cat([op, _look_up(self.positions, data, "position", "num_positions")], dim=-1)

    def encode_static(self, data: Data) -> Tensor | None:
        r"""Returns :obj:`None`: cells have no graph features."""
        return None

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.config.items())
        return f"{self.__class__.__name__}({arguments})"


def _look_up(table: Tensor, data: Data, name: str, limit: str) -> Tensor:
    token: Any = getattr(data, name, None)
    if not isinstance(token, Tensor) or token.dtype not in (torch.long, torch.int32):
        got = f"{token.dtype}" if isinstance(token, Tensor) else f"{type(token).__name__}"
        raise ValueError(
            f"Expected 'data.{name}' to be a tensor of type torch.long, one number per node "
            f"(got {got})"
        )
    if token.dim() != 1:
        raise ValueError(
            f"Expected 'data.{name}' to have shape [num_nodes], one number per node "
            f"(got {list(token.shape)})"
        )
    if token.device.type == "cpu" and token.numel() > 0 and not torch.compiler.is_compiling():
        low, high = torch.aminmax(token)
        if low < 0 or high >= table.size(0):
            raise ValueError(
                f"Expected 'data.{name}' to be between 0 and {table.size(0) - 1} "
                f"(got {int(low) if low < 0 else int(high)}); the limit is the argument '{limit}'"
            )
    return table.index_select(0, token)
