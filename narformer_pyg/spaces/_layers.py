"""Layers that the networks of several spaces share."""

from __future__ import annotations

from torch import nn


def relu_conv_norm(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1
) -> nn.Module:
    """Returns a ReLU, a convolution that keeps the resolution but for its stride, and a norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )
