"""The network that NAS-Bench-101 trains around each cell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from narformer_pyg._checks import check_integer
from narformer_pyg.spaces._checks import check_images
from narformer_pyg.spaces.nasbench101.codes import vertex_channels
from narformer_pyg.spaces.nasbench101.graph import MAX_VERTICES, read_cell


class NASBench101Network(nn.Module):
    r"""The macro skeleton of `NAS-Bench-101 <https://arxiv.org/abs/1902.09635>`_ around a cell.

    A 3x3 convolution to :obj:`C` channels, three stacks of :obj:`N` modules with :obj:`C`,
    :obj:`2C` and :obj:`4C` channels, a 2x2 max pooling between two stacks, then global average
    pooling and a linear classifier. Every convolution is followed by batch normalisation and ReLU.

    In a module, the vertices that the output concatenates share its channels (see
    :func:`~narformer_pyg.spaces.nasbench101.vertex_channels`). A vertex cuts its inputs to its own
    number of channels, sums them and applies its operation. The module's input passes a 1x1
    convolution on every edge, and an edge from input to output is added to the concatenation.

    Args:
        matrix (array_like): The adjacency matrix of the cell, see
            :class:`~narformer_pyg.spaces.NASBench101Cell`.
        operations (sequence of str): The operation of each vertex.
        num_classes (int, optional): The number of classes. (default: :obj:`10`)
        C (int, optional): The channels of the stem and of the first stack. (default: :obj:`128`)
        N (int, optional): The modules in each of the three stacks. (default: :obj:`3`)

    Shapes:
        - **input:** images :math:`(B, 3, H, W)`, height and width divisible by 4
        - **output:** logits :math:`(B, \text{num\_classes})`

    Raises:
        ConversionError: If matrix and operations are not a cell.
        TypeError: If :obj:`operations` is not a sequence of names.
        ValueError: If a number is not a positive integer, or :obj:`C` is smaller than the number
            of vertices that the output concatenates.
    """

    def __init__(
        self,
        matrix: Any,
        operations: Sequence[str],
        num_classes: int = 10,
        C: int = 128,
        N: int = 3,
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("C", C), ("N", N)):
            check_integer(name, value)
        predecessors, operations = read_cell(matrix, operations)
        degree = (predecessors[-1] >> 1).bit_count()  # the input is added, not concatenated
        if degree > C:
            raise ValueError(
                f"Expected 'C' to be at least {degree}, so that each vertex that the output "
                f"concatenates has a channel (got {C})"
            )
        #: The operations of the cell.
        self.operations = operations
        self.num_classes = num_classes

        self.stem = _conv_norm_relu(3, C, kernel_size=3)
        stacks: OrderedDict[str, nn.Module] = OrderedDict()
        channels = C
        for stack in range(3):
            if stack > 0:
                stacks[f"pool{stack}"] = nn.MaxPool2d(2, stride=2)
            for k in range(N):
                stacks[f"module{stack * N + k}"] = _CellModule(
                    predecessors, operations, channels, C * 2**stack
                )
                channels = C * 2**stack
        self.stacks = nn.Sequential(stacks)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a batch of images."""
        check_images(x)
        x = self.stacks(self.stem(x))  # [B, 4 * C, H / 4, W / 4]
        return self.classifier(x.mean(dim=(2, 3)))  # [B, num_classes]

    def extra_repr(self) -> str:
        """Returns the operations for the module's text."""
        return f"operations={self.operations}"


class _CellModule(nn.Module):
    def __init__(
        self,
        predecessors: Sequence[int],
        operations: Sequence[str],
        in_channels: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        n = len(predecessors)
        #: The intermediate vertices that each vertex reads.
        self.sources = [[x for x in range(1, y) if p >> x & 1] for y, p in enumerate(predecessors)]
        adjacency = np.zeros((1, MAX_VERTICES, MAX_VERTICES), dtype=bool)
        for y, p in enumerate(predecessors):
            adjacency[0, :n, y] = [p >> x & 1 for x in range(n)]
        width = vertex_channels(adjacency, np.array([n]), out_channels)[0].tolist()
        width = self.width = [*width[: n - 1], out_channels]
        self.operations = nn.ModuleDict(
            {str(v): _make_operation(operations[v], width[v]) for v in range(1, n - 1)}
        )
        self.projections = nn.ModuleDict(
            {
                str(v): _conv_norm_relu(in_channels, width[v], kernel_size=1)
                for v in range(1, n)
                if predecessors[v] & 1
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        features: dict[int, Tensor] = {}
        for v in range(1, len(self.sources) - 1):
            summands = [features[source][:, : self.width[v]] for source in self.sources[v]]
            features[v] = self.operations[str(v)](self._sum(summands, v, x))
        output = len(self.sources) - 1
        concatenated = [features[source] for source in self.sources[output]]
        return self._sum([torch.cat(concatenated, dim=1)] if concatenated else [], output, x)

    def _sum(self, summands: list[Tensor], vertex: int, x: Tensor) -> Tensor:
        """Returns the sum of the summands and the module's input, if the vertex reads it."""
        if str(vertex) in self.projections:
            summands = [*summands, self.projections[str(vertex)](x)]
        total = summands[0]
        for summand in summands[1:]:
            total = total + summand
        return total


def _conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        # As in the benchmark: TensorFlow's momentum of 0.997 is PyTorch's 0.003.
        nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.003),
        nn.ReLU(),
    )


def _make_operation(name: str, channels: int) -> nn.Module:
    if name == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return _conv_norm_relu(channels, channels, kernel_size=1 if name == "conv1x1-bn-relu" else 3)
