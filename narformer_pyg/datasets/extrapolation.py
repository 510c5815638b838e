"""Extrapolation of accuracies to networks trained on more data."""

from __future__ import annotations

import math

from torch import Tensor


def extrapolate_accuracy(train_acc: Tensor, valid_acc: Tensor, data_ratio: float) -> Tensor:
    r"""Estimates the accuracy on unseen data of networks trained on more data.

    .. math::
        a(r) = a_{train} - \frac{a_{train} - a_{valid}}{\sqrt{r}}

    It assumes that the gap between training and unseen data shrinks with the square root of the
    number of training examples, the classical rate of statistical learning, and that the training
    accuracy stays. Both accuracies come from one run, without any test label. The estimate ranks
    networks of high capacity higher than their validation accuracy does.

    Args:
        train_acc (torch.Tensor): Accuracies on the training data.
        valid_acc (torch.Tensor): Accuracies on validation data, in the same unit and shape.
        data_ratio (float): How many times as much training data :math:`r` there will be.

    Raises:
        ValueError: If the shapes differ, or :obj:`data_ratio` is not a positive number.
    """
    if train_acc.shape != valid_acc.shape:
        raise ValueError(
            f"Expected 'valid_acc' to have the shape of 'train_acc', {list(train_acc.shape)} "
            f"(got {list(valid_acc.shape)})"
        )
    if not (math.isfinite(data_ratio) and data_ratio > 0):
        raise ValueError(f"Expected 'data_ratio' to be a positive number (got {data_ratio})")
    return train_acc - (train_acc - valid_acc) / math.sqrt(data_ratio)
