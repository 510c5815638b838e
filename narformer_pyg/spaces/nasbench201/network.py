"""The network that NAS-Bench-201 trains around each cell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from narformer_pyg._checks import check_integer
from narformer_pyg.spaces._checks import check_images
from narformer_pyg.spaces._layers import relu_conv_norm
from narformer_pyg.spaces.nasbench201.graph import CELL_EDGES, check_operations


class NASBench201Network(nn.Module):
    r"""The macro skeleton of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ around a cell.

    A 3x3 convolution with batch normalisation, three stages of :obj:`N` cells with :obj:`C`,
    :obj:`2C` and :obj:`4C` channels, a residual block that halves the resolution between two
    stages, then batch normalisation, ReLU, global average pooling and a linear classifier. With
    the default arguments the networks of the space have 0.073306 to 1.531546 million parameters.

    Args:
        operations (sequence of str): The six operations of the cell, see
            :class:`~narformer_pyg.spaces.NASBench201Cell`.
        num_classes (int, optional): The number of classes. (default: :obj:`10`)
        C (int, optional): The channels of the first stage. (default: :obj:`16`)
        N (int, optional): The cells in each stage. (default: :obj:`5`)

    Shapes:
        - **input:** images :math:`(B, 3, H, W)`, height and width divisible by 4
        - **output:** logits :math:`(B, \text{num\_classes})`

    Raises:
        ConversionError: If the operations are not those of a cell.
        TypeError: If :obj:`operations` is not a sequence of names.
        ValueError: If a number is not a positive integer.
    """

    def __init__(
        self, operations: Sequence[str], num_classes: int = 10, C: int = 16, N: int = 5
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("C", C), ("N", N)):
            check_integer(name, value)
        #: The operations of the cell.
        self.operations = check_operations(operations)
        self.num_classes = num_classes

        self.stem = nn.Sequential(nn.Conv2d(3, C, 3, padding=1, bias=False), nn.BatchNorm2d(C))
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage in range(3):
            channels = C * 2**stage
            if stage > 0:
                stages[f"reduction{stage}"] = _ReductionBlock(channels // 2, channels)
            for k in range(N):
                stages[f"cell{stage * N + k}"] = _Cell(self.operations, channels)
        self.stages = nn.Sequential(stages)
        self.norm = nn.BatchNorm2d(4 * C)
        self.classifier = nn.Linear(4 * C, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a batch of images."""
        check_images(x)
        x = self.stages(self.stem(x))  # [B, 4 * C, H / 4, W / 4]
        x = self.norm(x).relu().mean(dim=(2, 3))
        return self.classifier(x)  # [B, num_classes]

    def extra_repr(self) -> str:
        """Returns the operations for the module's text."""
        return f"operations={self.operations}"


class _Cell(nn.Module):
    def __init__(self, operations: Sequence[str], channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(_make_operation(name, channels) for name in operations)

    def forward(self, x: Tensor) -> Tensor:
        features: dict[int, Tensor] = {0: x}
        for (source, target), operation in zip(CELL_EDGES, self.operations, strict=True):
            out = operation(features[source])
            features[target] = features[target] + out if target in features else out
        return features[3]


class _ReductionBlock(nn.Module):
    """A residual block of two convolutions that halves height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            relu_conv_norm(in_channels, out_channels, kernel_size=3, stride=2),
            relu_conv_norm(out_channels, out_channels, kernel_size=3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x) + self.shortcut(x)


class _Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0  # new zeros would be exported as a weight


def _make_operation(name: str, channels: int) -> nn.Module:
    if name == "nor_conv_1x1":
        return relu_conv_norm(channels, channels, kernel_size=1)
    if name == "nor_conv_3x3":
        return relu_conv_norm(channels, channels, kernel_size=3)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity() if name == "skip_connect" else _Zero()
