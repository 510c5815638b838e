"""Single-precision matrix products by oneDNN instead of MKL on the CPU."""

from __future__ import annotations

import functools
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from narformer_pyg.nn.kernels.door import Kernel, is_on

# Smaller products and weights are no faster by oneDNN.
_MIN_MULTIPLICATIONS = 1 << 23
_MIN_WEIGHTS = 1 << 14
_PROBE = threading.Lock()
# The setting came with PyTorch 2.9.
_MATMUL: Any = getattr(torch.backends.mkldnn, "matmul", None)


class _Products:
    r"""A context in which PyTorch multiplies single-precision matrices by oneDNN.

    MKL, PyTorch's default, leaves AVX-512 unused on some processors that are not Intel's; oneDNN,
    which PyTorch ships, is up to twice as fast there. PyTorch calls oneDNN where products may round
    to bfloat16. The context permits that; :func:`onednn_products` returns it only where oneDNN
    cannot make use of the permission, so that results keep their precision. The setting belongs to
    the process: no other code should run inside.
    """

    def __enter__(self) -> None:
        _MATMUL.fp32_precision = "bf16"

    def __exit__(self, *exc_info: object) -> None:
        _MATMUL.fp32_precision = "none"


_PRODUCTS = _Products()
_DEFAULT: AbstractContextManager[None] = nullcontext()


def onednn_products(like: Tensor, num_multiplications: int) -> AbstractContextManager[None]:
    r"""Returns a context for products of :obj:`like`: by oneDNN if that is faster and as exact.

    Args:
        like (torch.Tensor): A factor of the products.
        num_multiplications (int): Multiplications of one product.
    """
    if (
        num_multiplications >= _MIN_MULTIPLICATIONS
        and like.dtype == torch.float32
        and like.device.type == "cpu"
        and is_on("onednn_linear")
        and torch.backends.mkldnn.enabled
        and getattr(_MATMUL, "fp32_precision", None) == "none"
        and is_exact()
    ):
        return _PRODUCTS
    return _DEFAULT


def is_exact() -> bool:
    """Whether oneDNN keeps single precision here even where it may round to bfloat16."""
    with _PROBE:  # the probe changes a setting of the process
        return _probe()


@functools.cache
def _probe() -> bool:
    if not torch.backends.mkldnn.is_available() or not hasattr(_MATMUL, "fp32_precision"):
        return False
    before = _MATMUL.fp32_precision
    numbers = torch.arange(4 * 128 * 256, dtype=torch.float64, device="cpu").mul_(0.7).sin_()
    left, right = numbers.view(2, 2, 128, 256)
    right = right.transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        try:
            _MATMUL.fp32_precision = "bf16"
            batch = torch.bmm(left.float(), right.float())
            single = torch.mm(left[0].float(), right[0].float())
        finally:
            _MATMUL.fp32_precision = before
    # Sums of 256 products: rounding to bfloat16 leaves errors of 0.03, single precision of 1e-5.
    errors = torch.cat([batch, single.unsqueeze(0)]) - torch.bmm(left, right)[[0, 1, 0]]
    return bool(errors.abs().max() < 1e-3)


# Weights as oneDNN reads them fastest, for as long as they live unchanged.
_PACKED: Any = WeakIdKeyDictionary()
# For so few rows, reading the weights takes longer than multiplying; one row is a product with a
# vector, which has its own form.
_PACKED_ROWS = range(2, 65)


def _packed(weight: Tensor) -> Tensor | None:
    """Returns the weights in oneDNN's layout, from the second use on, or None."""
    if weight.is_inference():
        return None
    version, known = _PACKED.get(weight, (None, None))
    if version != weight._version:
        _PACKED[weight] = (weight._version, None)  # a weight that is trained is not worth packing
        return None
    if known is None:
        known = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS[-1])
        _PACKED[weight] = (version, known)
    return known


def _accepts(module: Any, x: Tensor) -> bool:
    weight = module.weight
    if (
        x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.device.type != "cpu"
        or weight.numel() < _MIN_WEIGHTS
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    num_rows = x.numel() // x.size(-1)
    if num_rows in _PACKED_ROWS:
        return not torch.is_grad_enabled() and _packs()
    return onednn_products(x, num_rows * weight.numel()) is _PRODUCTS


@functools.cache
def _packs() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def packed_linear(module: Any, x: Tensor) -> Tensor:
    r"""Maps a few rows :math:`(N, F_{in})` to :math:`(N, F_{out})`, without a gradient."""
    weight, bias = module.weight, module.bias
    layout = _packed(weight) if _packs() and weight.numel() >= _MIN_WEIGHTS else None
    if layout is None:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")


def _run(module: Any, x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return _Linear.apply(x, module.weight, module.bias)
    if x.numel() // x.size(-1) in _PACKED_ROWS:
        return packed_linear(module, x)
    with _PRODUCTS:
        return F.linear(x, module.weight, module.bias)


class _Linear(torch.autograd.Function):
    """All three products by oneDNN: of the forward pass and of both gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        with _PRODUCTS:
            return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.size(-1))
        with _PRODUCTS:
            return (
                grad @ weight if needs_x else None,
                rows.t() @ x.reshape(-1, x.size(-1)) if needs_weight else None,
                rows.sum(0) if needs_bias else None,
            )


#: Large linear maps in single precision, on AMD's processors with AVX-512.
onednn_linear = Kernel("onednn_linear", _accepts, _run)
