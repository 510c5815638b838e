"""Losses of the paper (supplement, section C.3, and the authors' release), and two of our own.

Labels that were not measured are NaN and left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from narformer_pyg._registry import Registry

#: Losses by name, as recipes weigh them; :func:`register_loss` adds one. A loss is a module that
#: maps predictions and labels :math:`(n, T)` to a scalar and leaves out labels that are NaN, or, if
#: its :obj:`compares_copies` is set, predictions of graphs and of their augmented copies.
LOSSES = Registry("loss")
register_loss = LOSSES.register


class _Loss(torch.nn.Module):
    #: Whether the second argument is the prediction of the augmented copies, not the labels.
    compares_copies = False


@register_loss("relative_mse")
class RelativeMSELoss(_Loss):
    r"""The mean squared relative error.

    .. math::
        \mathcal{L} = \frac{1}{n} \sum_i \left( \frac{\hat{y}_i}{y_i} - 1 \right)^2

    The paper writes MSE; its released code divides by the label, for accuracy and for latency.
    Labels must be positive. Shapes: prediction and target are equal, the loss is a scalar.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        r"""Computes the loss."""
        _check_shapes(prediction, target)
        target, measured = _fill(prediction, target)
        return _mean((prediction / target - 1.0).square(), measured)


@register_loss("log_ratio")
class LogRatioLoss(_Loss):
    r"""The logarithm of the ratio of prediction and label, as a Huber loss.

    .. math::
        \mathcal{L} = \frac{1}{n} \sum_i h \left( \log \frac{\hat{y}_i}{y_i} \right), \quad
        h(r) = \begin{cases} r^2 / (2 \delta) & |r| < \delta \\ |r| - \delta / 2 & \text{else}
        \end{cases}

    Twice the label is as wrong as half of it, whereas :class:`RelativeMSELoss` asks a positive
    prediction never more than 1 for being too small, and so prefers predictions below the label.
    Beyond :math:`\delta` it grows as the percentage error does, so that few outliers do not rule
    (not in the paper). Labels and predictions must be positive. Shapes: prediction and target are
    equal, the loss is a scalar.

    Args:
        delta (float, optional): Where the square ends. (default: :obj:`0.1`)
    """

    def __init__(self, delta: float = 0.1) -> None:
        super().__init__()
        if not delta > 0:
            raise ValueError(f"Expected 'delta' to be positive (got {delta})")
        self.delta = delta

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        r"""Computes the loss."""
        _check_shapes(prediction, target)
        # A softplus reaches zero in floating point, whose logarithm would end the training.
        tiny = torch.finfo(prediction.dtype).tiny
        target, measured = _fill(prediction, target)
        log_ratio = prediction.clamp(min=tiny).log() - target.clamp(min=tiny).log()
        zeros = torch.zeros_like(log_ratio)
        return _mean(
            F.smooth_l1_loss(log_ratio, zeros, reduction="none", beta=self.delta), measured
        )


@register_loss("sequence_ranking")
class SequenceRankingLoss(_Loss):
    r"""The error of the differences between randomly paired graphs (SR).

    .. math::
        \mathcal{L} = \frac{1}{n} \sum_i \left| (\hat{y}_i - \hat{y}_{\pi(i)}) - (y_i - y_{\pi(i)})
        \right|

    with one random permutation :math:`\pi` of the batch a call, drawn from torch's global
    generator. Shapes: prediction and target are equal, graphs in dimension 0.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        r"""Computes the loss."""
        _check_shapes(prediction, target)
        permutation = torch.randperm(prediction.size(0), device=prediction.device)
        target, measured = _fill(prediction, target)
        error = prediction - target
        return _mean((error - error[permutation]).abs(), measured & measured[permutation])


@register_loss("architecture_consistency")
class ArchitectureConsistencyLoss(_Loss):
    r"""The difference between the predictions of a graph and of its augmented copy (AC).

    .. math::
        \mathcal{L} = \frac{1}{n} \sum_i \left| \hat{y}_{\mathrm{copy}(i)} - \hat{y}_i \right|

    Shapes: both predictions are equal, the loss is a scalar.
    """

    compares_copies = True

    def forward(self, prediction: Tensor, copy_prediction: Tensor) -> Tensor:
        r"""Computes the loss."""
        _check_shapes(prediction, copy_prediction, "copy_prediction")
        return (copy_prediction - prediction).abs().mean()


@register_loss("pairwise_ranking")
class PairwiseRankingLoss(_Loss):
    r"""The logistic loss of the order of all pairs of graphs in a batch.

    .. math::
        \mathcal{L} = \frac{1}{|P|} \sum_{(i, j) \in P} \log \left( 1 + \exp \left(
        -\frac{\hat{y}_i - \hat{y}_j}{\tau} \right) \right), \quad P = \{ (i, j) : y_i > y_j \}

    It asks for the right order directly (not in the paper). Zero if all labels are equal.

    Args:
        temperature (float, optional): The difference :math:`\tau` of two predictions, in the scale
            the model is trained in, at which a pair counts as clearly ordered.
            (default: :obj:`1.0`)

    Shapes: prediction and target are :math:`(n, T)`; pairs are formed within each target.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"Expected 'temperature' to be positive (got {temperature})")
        self.temperature = temperature

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        r"""Computes the loss."""
        _check_shapes(prediction, target)
        ordered = target.unsqueeze(1) > target.unsqueeze(0)  # [n, n, num_targets]
        difference = prediction.unsqueeze(1) - prediction.unsqueeze(0)
        loss = F.softplus(-difference / self.temperature) * ordered
        return loss.sum() / ordered.sum().clamp(min=1)


def _fill(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the labels, with predictions where they are missing, and where they are not.

    A loss of a missing label is masked; it must be finite all the same, as must its gradient.
    """
    measured = ~target.isnan()
    return torch.where(measured, target, prediction.detach()), measured


def _mean(loss: Tensor, measured: Tensor) -> Tensor:
    """Returns the mean over measured elements, 0 without any; no branch waits for a GPU."""
    return (loss * measured).sum() / measured.sum().clamp(min=1)


def _check_shapes(prediction: Tensor, target: Tensor, name: str = "target") -> None:
    """Refuses what would be broadcast, for instance [n, 1] and [n] to [n, n]."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"Expected 'prediction' and '{name}' to have the same shape "
            f"(got {list(prediction.shape)} and {list(target.shape)})"
        )
