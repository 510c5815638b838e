"""The network that DARTS trains to evaluate a genotype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from narformer_pyg._checks import check_integer
from narformer_pyg.spaces._checks import check_images
from narformer_pyg.spaces._layers import relu_conv_norm
from narformer_pyg.spaces.darts.graph import INTERMEDIATE_NODES, Edge, check_cell

_STEMS = ("cifar", "imagenet")


class DARTSNetwork(nn.Module):
    r"""The evaluation network of `DARTS <https://arxiv.org/abs/1806.09055>`_ around a genotype.

    A stem, :obj:`layers` cells, global average pooling and a linear classifier. Cells
    :obj:`layers // 3` and :obj:`2 * layers // 3` are reduction cells that double the channels, all
    other cells are normal ones. A cell concatenates four nodes, so the three stages have
    :obj:`4C`, :obj:`8C` and :obj:`16C` channels.

    With :obj:`stem="cifar"`, the stem is a 3x3 convolution to :obj:`3C` channels at full
    resolution. With :obj:`stem="imagenet"`, three 3x3 convolutions divide the resolution by eight;
    DARTS then takes :obj:`C=48`, :obj:`layers=14` and :obj:`num_classes=1000`.

    The number of parameters without the second classifier is that published: 3,349,342 for
    :obj:`DARTS_V2` with the default arguments, and 4.719 million for it on ImageNet (`the authors'
    release <https://github.com/quark0/darts>`_); 3,433,798 for :obj:`PDARTS`, and 3,910,224 with
    the second classifier (`issue 7 of its release <https://github.com/chenxin061/pdarts/issues/7>`_).

    In training, every operation but the identity drops whole images with the probability
    :attr:`drop_path`, a number that can grow as in DARTS:
    :obj:`network.drop_path = 0.2 * epoch / epochs`.

    Args:
        normal (sequence): The operations of the normal cell, see
            :class:`~narformer_pyg.spaces.DARTSGenotype`.
        reduce (sequence): The operations of the reduction cell.
        num_classes (int, optional): The number of classes. (default: :obj:`10`)
        C (int, optional): The channels of each node in the first cells. (default: :obj:`36`)
        layers (int, optional): The number of cells. (default: :obj:`20`)
        auxiliary (bool, optional): Whether there is a second classifier after the second reduction
            cell, whose loss DARTS adds with the weight 0.4. (default: :obj:`False`)
        drop_path (float, optional): The probability with which the result of an operation is
            dropped in training. (default: :obj:`0.0`)
        stem (str, optional): :obj:`"cifar"` or :obj:`"imagenet"`. (default: :obj:`"cifar"`)

    Shapes:
        - **input:** images :math:`(B, 3, H, W)`, height and width divisible by 4, or by 32 with
          :obj:`stem="imagenet"`
        - **output:** logits :math:`(B, \text{num\_classes})`, or a pair of them

    Raises:
        ConversionError: If the operations are not those of a cell.
        TypeError: If a cell is not a sequence of pairs.
        ValueError: If another argument is wrong.
    """

    def __init__(
        self,
        normal: Sequence[Edge],
        reduce: Sequence[Edge],
        num_classes: int = 10,
        C: int = 36,
        layers: int = 20,
        *,
        auxiliary: bool = False,
        drop_path: float = 0.0,
        stem: Literal["cifar", "imagenet"] = "cifar",
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("C", C), ("layers", layers)):
            check_integer(name, value)
        if stem not in _STEMS:
            raise ValueError(f"Expected 'stem' to be 'cifar' or 'imagenet' (got {stem!r})")
        if stem == "imagenet" and C % 2:
            raise ValueError(f"Expected 'C' to be even with 'stem' {stem!r} (got {C})")
        #: The operations of the two cells.
        self.normal, self.reduce = check_cell("normal", normal), check_cell("reduce", reduce)
        self.num_classes = num_classes
        self.drop_path = _check_drop_path(drop_path)
        self.divisor = 4 if stem == "cifar" else 32

        is_imagenet = stem == "imagenet"
        self.stem = nn.ModuleList(_imagenet_stem(C) if is_imagenet else [_cifar_stem(3 * C)])
        # Channels of the last two outputs, and of each node of the next cell.
        before_last = last = C if is_imagenet else 3 * C
        width = C
        # The stem for ImageNet halves the resolution between its two outputs, as a reduction does.
        reduced = is_imagenet
        self.cells = nn.ModuleList()
        self.auxiliary_after = 2 * layers // 3
        self.auxiliary_head: nn.Module | None = None
        for k in range(layers):
            reduction = k in (layers // 3, 2 * layers // 3)
            width *= 2 if reduction else 1
            cell = self.reduce if reduction else self.normal
            self.cells.append(_Cell(cell, before_last, last, width, reduction, reduced))
            reduced = reduction
            before_last, last = last, len(INTERMEDIATE_NODES) * width
            if auxiliary and k == self.auxiliary_after:
                self.auxiliary_head = _AuxiliaryHead(last, num_classes, is_imagenet)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor, return_auxiliary: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the logits of a batch of images, with those of the second classifier on request.

        The second classifier takes images of 32 x 32 pixels, or of 224 x 224 with the stem for
        ImageNet, or slightly more.
        """
        if return_auxiliary and self.auxiliary_head is None:
            raise ValueError(
                "Expected 'return_auxiliary' to be False, as the network was built without "
                "'auxiliary=True' (got True)"
            )
        check_images(x, self.divisor)
        auxiliary = None
        before_last = self.stem[0](x)
        last = before_last
        for part in self.stem[1:]:
            last = part(before_last)
        for k, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, self.drop_path)
            if return_auxiliary and self.auxiliary_head is not None and k == self.auxiliary_after:
                auxiliary = self.auxiliary_head(last)
        logits = self.classifier(last.mean(dim=(2, 3)))  # [B, num_classes]
        return logits if auxiliary is None else (logits, auxiliary)

    def extra_repr(self) -> str:
        """Returns the cells for the module's text."""
        return f"normal={self.normal}, reduce={self.reduce}, drop_path={self.drop_path}"


class _Cell(nn.Module):
    """A cell: two inputs of other sizes are brought to the nodes' channels and resolution."""

    def __init__(
        self,
        cell: Sequence[Edge],
        before_last: int,
        last: int,
        channels: int,
        reduction: bool,
        reduced: bool,
    ) -> None:
        super().__init__()
        self.preprocess = nn.ModuleList(
            [
                _FactorizedReduce(before_last, channels)
                if reduced
                else relu_conv_norm(before_last, channels),
                relu_conv_norm(last, channels),
            ]
        )
        self.sources = [source for _, source in cell]
        self.operations = nn.ModuleList(
            _make_operation(name, channels, stride=2 if reduction and source < 2 else 1)
            for name, source in cell
        )

    def forward(self, before_last: Tensor, last: Tensor, drop_path: float) -> Tensor:
        states = [self.preprocess[0](before_last), self.preprocess[1](last)]
        summands = []
        for operation, source in zip(self.operations, self.sources, strict=True):
            summand = operation(states[source])
            if self.training and drop_path > 0 and not isinstance(operation, nn.Identity):
                summand = _drop(summand, drop_path)
            summands.append(summand)
            if len(summands) % 2 == 0:
                states.append(summands[-2] + summands[-1])
        return torch.cat(states[2:], dim=1)  # [B, 4 * channels, H, W]


class _FactorizedReduce(nn.Module):
    """Halves the resolution: two 1x1 convolutions read the pixels at even and at odd places."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False) for _ in range(2)
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        halves = [self.convs[0](x), self.convs[1](x[:, :, 1:, 1:])]
        return self.norm(torch.cat(halves, dim=1))


class _AuxiliaryHead(nn.Module):
    """A classifier of a feature map of 8 x 8 pixels, or of 7 x 7 for ImageNet."""

    def __init__(self, in_channels: int, num_classes: int, is_imagenet: bool) -> None:
        super().__init__()
        self.stride = 2 if is_imagenet else 3
        # The authors left out the last normalisation by mistake, and kept it so for ImageNet.
        norm = nn.Identity() if is_imagenet else nn.BatchNorm2d(768)
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, self.stride),
            nn.Conv2d(in_channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            norm,
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)
        self.usual = 224 if is_imagenet else 32

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if any((size - 5) // self.stride + 1 != 2 for size in (height, width)):
            raise ValueError(
                f"Expected 'x' to be images of {self.usual} x {self.usual} pixels or a little more "
                f"for 'return_auxiliary' (got a feature map of {height} x {width} pixels, which is "
                "not pooled to 2 x 2)"
            )
        return self.classifier(self.features(x).flatten(1))


def _cifar_stem(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def _imagenet_stem(channels: int) -> list[nn.Module]:
    """Returns the layers of the first output, at a quarter of the resolution, and of the second."""

    def halve(in_channels: int, out_channels: int) -> list[nn.Module]:
        conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(out_channels)]

    return [
        nn.Sequential(*halve(3, channels // 2), nn.ReLU(), *halve(channels // 2, channels)),
        nn.Sequential(nn.ReLU(), *halve(channels, channels)),
    ]


def _depthwise(channels: int, size: int, stride: int, dilation: int) -> nn.Module:
    """A ReLU, a depthwise and a pointwise convolution, and normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, size, stride,
            padding=dilation * (size // 2), dilation=dilation, groups=channels, bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )  # fmt: skip


def _make_operation(name: str, channels: int, stride: int) -> nn.Module:
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else _FactorizedReduce(channels, channels)
    kind, size = name[:-4], int(name[-1])
    if kind == "max_pool":
        return nn.MaxPool2d(size, stride, padding=size // 2)
    if kind == "avg_pool":
        return nn.AvgPool2d(size, stride, padding=size // 2, count_include_pad=False)
    if kind == "dil_conv":
        return _depthwise(channels, size, stride, dilation=2)
    return nn.Sequential(
        _depthwise(channels, size, stride, dilation=1), _depthwise(channels, size, 1, dilation=1)
    )


def _drop(x: Tensor, probability: float) -> Tensor:
    """Sets whole images to zero, and scales up the rest to keep the mean."""
    kept = 1.0 - probability
    return x / kept * x.new_empty(x.size(0), 1, 1, 1).bernoulli_(kept)


def _check_drop_path(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"Expected 'drop_path' to be a number in [0, 1) (got {value!r})")
    return float(value)
