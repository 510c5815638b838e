"""The network that NAS-Bench-201 trains around each cell."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from narformer_pyg.spaces._images import check_images
from narformer_pyg.spaces.nasbench201 import CELL_EDGES, NASBench201Cell


class NASBench201Network(nn.Module):
    r"""The macro skeleton of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ around a cell.

    A 3x3 convolution with batch normalisation, three stages of :obj:`N` cells with :obj:`C`,
    :obj:`2C` and :obj:`4C` channels, a residual block that halves the resolution between two
    stages, then batch normalisation, ReLU, global average pooling and a linear classifier. With
    the default arguments the networks of the space have 0.073306 to 1.531546 million parameters.

    Args:
        cell (NASBench201Cell): The cell.
        num_classes (int, optional): The number of classes. (default: :obj:`10`)
        C (int, optional): The channels of the first stage. (default: :obj:`16`)
        N (int, optional): The cells in each stage. (default: :obj:`5`)

    Shapes:
        - **input:** images :math:`(B, 3, H, W)`, height and width divisible by 4
        - **output:** logits :math:`(B, \text{num\_classes})`

    Raises:
        TypeError: If :obj:`cell` is not a :class:`NASBench201Cell`.
        ValueError: If a number is not a positive integer.
    """

    def __init__(
        self, cell: NASBench201Cell, num_classes: int = 10, C: int = 16, N: int = 5
    ) -> None:
        super().__init__()
        if not isinstance(cell, NASBench201Cell):
            raise TypeError(f"Expected 'cell' to be a NASBench201Cell (got {cell!r})")
        for name, value in (("num_classes", num_classes), ("C", C), ("N", N)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Expected '{name}' to be a positive integer (got {value!r})")
        self.cell = cell
        self.num_classes = num_classes

        self.stem = nn.Sequential(nn.Conv2d(3, C, 3, padding=1, bias=False), nn.BatchNorm2d(C))
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage in range(3):
            channels = C * 2**stage
            if stage > 0:
                stages[f"reduction{stage}"] = _ReductionBlock(channels // 2, channels)
            for k in range(N):
                stages[f"cell{stage * N + k}"] = _Cell(cell, channels)
        self.stages = nn.Sequential(stages)
        self.norm = nn.BatchNorm2d(4 * C)
        self.classifier = nn.Linear(4 * C, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        r"""Returns the logits of a batch of images.

        Args:
            x (Tensor): The images.

        Raises:
            ValueError: If the images have another shape.
        """
        check_images(x)
        x = self.stages(self.stem(x))  # [B, 4 * C, H / 4, W / 4]
        x = self.norm(x).relu().mean(dim=(2, 3))
        return self.classifier(x)  # [B, num_classes]

    def extra_repr(self) -> str:
        """Names the cell in the module's text."""
        return f"cell={str(self.cell)!r}"


class _Cell(nn.Module):
    def __init__(self, cell: NASBench201Cell, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(_make_operation(name, channels) for name in cell.operations)

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
            _relu_conv_norm(in_channels, out_channels, kernel_size=3, stride=2),
            _relu_conv_norm(out_channels, out_channels, kernel_size=3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x) + self.shortcut(x)


class _Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0  # new zeros would be exported as a weight


def _relu_conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )


def _make_operation(name: str, channels: int) -> nn.Module:
    if name == "nor_conv_1x1":
        return _relu_conv_norm(channels, channels, kernel_size=1)
    if name == "nor_conv_3x3":
        return _relu_conv_norm(channels, channels, kernel_size=3)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity() if name == "skip_connect" else _Zero()
