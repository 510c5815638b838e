"""Token encoders: from the raw tokens of a graph to the node codes that models read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from narformer_pyg._checks import check_integer, value_range
from narformer_pyg._registry import Registry
from narformer_pyg.vocabulary import COUNTINGS, NUM_OUTPUT_DIMS, NUM_SLOTS, get_vocabulary

#: FLOPs, parameters and memory access are coded in billions.
_GIGA = 1e9
_NUM_STATIC = 4
_STATIC_SCALES = ("billions", "log")

#: Token encoders by name. A checkpoint names the class of its encoder, so :func:`register_encoder`
#: makes an encoder of one's own savable. It needs :obj:`config` (its arguments),
#: :obj:`out_channels`, :obj:`static_channels`, :obj:`tokens`, :meth:`forward` and
#: :meth:`encode_static`, as the two encoders here.
ENCODERS = Registry("token_encoder")
register_encoder = ENCODERS.register


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


def trans_code(value: Tensor, num_frequencies: int = 5) -> Tensor:
    r"""The sinusoidal code of the paper for attributes, shapes and graph features.

    .. math::
        [\sin(w_0 v), \cos(w_0 v), \dots, \sin(w_{L-1} v), \cos(w_{L-1} v)], \quad
        w_j = 10000^{-j/L}

    Args:
        value (torch.Tensor): Numbers of shape :math:`(*)`.
        num_frequencies (int, optional): The number of frequencies :math:`L`. (default: :obj:`5`)

    Returns:
        torch.Tensor: The float64 codes :math:`(*, 2L)`.
    """
    j = torch.arange(num_frequencies, dtype=torch.double, device=value.device)
    angle = value.double().unsqueeze(-1) * 10000.0 ** (-j / num_frequencies)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


@register_encoder("cell")
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


@register_encoder("operator")
class OperatorTokenEncoder(torch.nn.Module):
    r"""Codes of the operators of a network: type, definition and output shape.

    The one-hot code of the operator, then a :func:`trans_code` for each of its 8 definition slots
    and 4 output dimensions: :math:`32 + 12 \cdot 10 = 152` numbers in the paper, which is
    :obj:`vocabulary="nnlqp"`. Slots that an operator does not have are coded as zeros, dimensions
    that its output does not have as the number zero, as in the authors' release. Positions are not
    coded. The code of the graph features is that of batch size, and of FLOPs, parameters and memory
    access in billions.

    Args:
        vocabulary (str, optional): The name of the vocabulary that graphs were converted with, see
            :class:`~narformer_pyg.vocabulary.OperatorVocabulary`. (default: :obj:`"onnx"`)
        num_frequencies (int, optional): Frequencies of the code of each number.
            (default: :obj:`5`)
        counting (str, optional): How the graph features were counted, :obj:`"standard"` or
            :obj:`"nnlqp"`, as :func:`~narformer_pyg.convert.from_onnx` was told. It changes no
            code, but is kept with a predictor, which refuses graphs of another convention.
            (default: :obj:`"standard"`)
        static_scale (str, optional): What graph features are coded as: :obj:`"billions"`, as in the
            paper, or :obj:`"log"`, the logarithm of one plus the number, which tells networks of
            a million FLOPs apart as well as those of a billion. (default: :obj:`"billions"`)

    Shapes:
        - **input:** a graph or batch with :obj:`op`, long :math:`(|\mathcal{V}|)`, :obj:`attr`,
          float :math:`(|\mathcal{V}|, 12)`, and :obj:`static`, float :math:`(|\mathcal{G}|, 4)`
        - **output:** node codes :math:`(|\mathcal{V}|, W + 24L)` with the width :math:`W` of the
          vocabulary's one-hot code; graph features :math:`(|\mathcal{G}|, 8L)`
    """

    #: The attributes of a graph that are read.
    tokens = ("op", "attr", "static")

    operators: Tensor
    slots: Tensor

    def __init__(
        self,
        vocabulary: str = "onnx",
        num_frequencies: int = 5,
        counting: str = "standard",
        static_scale: str = "billions",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "vocabulary": vocabulary,
            "num_frequencies": num_frequencies,
            "counting": counting,
            "static_scale": static_scale,
        }
        for name, value, known in (
            ("counting", counting, COUNTINGS),
            ("static_scale", static_scale, _STATIC_SCALES),
        ):
            if value not in known:
                raise ValueError(
                    f"Expected '{name}' to be among {', '.join(map(repr, known))} (got {value!r})"
                )
        self._static_scale = static_scale
        table = get_vocabulary(vocabulary)
        self._num_frequencies = check_integer("num_frequencies", num_frequencies)
        operators = torch.zeros(len(table), table.width)
        operators.fill_diagonal_(1.0)  # ids from the width on have no place in the code
        slots = torch.zeros(len(table), NUM_SLOTS + NUM_OUTPUT_DIMS)
        slots[:, NUM_SLOTS:] = 1.0
        for i, names in enumerate(table.slots):
            slots[i, : len(names)] = 1.0
        # Not in the state dict: the configuration says it all.
        self.register_buffer("operators", operators, persistent=False)
        self.register_buffer("slots", slots, persistent=False)

    @property
    def out_channels(self) -> int:
        """Size of each node code."""
        return self.operators.size(1) + self.slots.size(1) * 2 * self._num_frequencies

    @property
    def static_channels(self) -> int:
        """Size of the code of the graph features."""
        return _NUM_STATIC * 2 * self._num_frequencies

    def forward(self, data: Data) -> Tensor:
        r"""Computes the code of each node.

        Raises:
            ValueError: If :obj:`op` or :obj:`attr` is missing, of the wrong type or shape or, on
                the CPU, if an id is not one of the vocabulary.
        """
        op = _look_up(self.operators, data, "op", "vocabulary")  # [num_nodes, width]
        attr = _numbers(data, "attr", self.slots.size(1))
        if attr.size(0) != op.size(0):
            raise ValueError(
                "Expected 'data.attr' to have one row for each number in 'data.op' "
                f"(got {attr.size(0)} and {op.size(0)})"
            )
        mask = self.slots.index_select(0, data.op)  # [num_nodes, 12]
        code = trans_code(attr, self._num_frequencies).to(op.dtype) * mask.unsqueeze(-1)
        return torch.cat([op, code.flatten(1)], dim=-1)

    def encode_static(self, data: Data) -> Tensor:
        r"""Computes the code of the graph features.

        Raises:
            ValueError: If :obj:`static` is missing or of the wrong type or shape.
        """
        static = _numbers(data, "static", _NUM_STATIC).double()
        if self._static_scale == "log":
            scaled = static.log1p()
        else:
            # No tensor of constants, since a GPU would wait for its copy.
            scaled = torch.cat([static[:, :1], static[:, 1:] / _GIGA], dim=1)
        return trans_code(scaled, self._num_frequencies).to(self.slots.dtype).flatten(1)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"{self.__class__.__name__}({arguments})"


def _numbers(data: Data, name: str, num_columns: int) -> Tensor:
    value: Any = getattr(data, name, None)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = f"{value.dtype}" if isinstance(value, Tensor) else f"{type(value).__name__}"
        raise ValueError(f"Expected 'data.{name}' to be a tensor of floats (got {got})")
    if value.dim() != 2 or value.size(1) != num_columns:
        raise ValueError(
            f"Expected 'data.{name}' to have shape [*, {num_columns}] (got {list(value.shape)})"
        )
    return value


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
    low, high = value_range(token) or (0, 0)
    if low < 0 or high >= table.size(0):
        raise ValueError(
            f"Expected 'data.{name}' to be between 0 and {table.size(0) - 1} "
            f"(got {low if low < 0 else high}); the limit is the argument '{limit}'"
        )
    return table.index_select(0, token)
