"""Which library multiplies matrices of single precision on the CPU."""

from __future__ import annotations

import functools
import threading
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

# Multiplications from which on a product of oneDNN takes no longer than one of MKL.
_MIN_MULTIPLICATIONS = 1 << 21
_PROBE = threading.Lock()


class OneDNNProducts:
    r"""A context in which PyTorch multiplies matrices of single precision by oneDNN.

    By default it takes MKL, which uses a part of the instructions of processors that are not
    Intel's: there oneDNN, which PyTorch brings along, is up to twice as fast. PyTorch asks oneDNN
    where it may round single precision to bfloat16. This context allows that, on processors where
    oneDNN has no use for it: whether results keep their precision is tried out once. Elsewhere, for
    small products, for other types and devices, where the precision of products is set already,
    and before PyTorch 2.9, it does nothing. Nor does it gain anything without AVX-512, where
    PyTorch stays with MKL.

    The setting is that of the whole process: other code should not run within.

    Args:
        like (torch.Tensor): A matrix that is multiplied.
        num_multiplications (int): Multiplications of one product.
    """

    __slots__ = ("_is_active",)

    def __init__(self, like: Tensor, num_multiplications: int) -> None:
        self._is_active = (
            num_multiplications >= _MIN_MULTIPLICATIONS
            and type(like) in (Tensor, torch.nn.Parameter)
            and like.dtype == torch.float32
            and like.device.type == "cpu"
            and torch.backends.mkldnn.enabled
            and getattr(_settings(), "fp32_precision", None) == "none"
            and is_exact()
        )

    def __enter__(self) -> None:
        if self._is_active:
            _settings().fp32_precision = "bf16"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_active:
            _settings().fp32_precision = "none"


def is_exact() -> bool:
    """Whether products keep single precision where oneDNN may round to bfloat16."""
    with _PROBE:  # which changes a setting of the process
        return _probe()


@functools.cache
def _probe() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(_settings(), "fp32_precision"):  # before PyTorch 2.9
        return False
    before = _settings().fp32_precision
    numbers = torch.arange(4 * 128 * 256, dtype=torch.float64, device="cpu").mul_(0.7).sin_()
    left, right = numbers.view(2, 2, 128, 256)
    right = right.transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        try:
            _settings().fp32_precision = "bf16"
            batch = torch.bmm(left.float(), right.float())
            single = torch.mm(left[0].float(), right[0].float())
        finally:
            _settings().fp32_precision = before
    # Sums of 256 products: rounding to bfloat16 leaves errors of 0.03, single precision of 1e-5.
    errors = torch.cat([batch, single.unsqueeze(0)]) - torch.bmm(left, right)[[0, 1, 0]]
    return bool(errors.abs().max() < 1e-3)


def _settings() -> Any:
    return getattr(torch.backends.mkldnn, "matmul", None)
