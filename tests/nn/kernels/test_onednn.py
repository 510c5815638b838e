from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recorded_products import RecordedProducts
from torch import Tensor

from narformer_pyg.nn import GroupedFeedForward
from narformer_pyg.nn.kernels import onednn as products_module
from narformer_pyg.nn.kernels.onednn import is_exact, onednn_products

LARGE = 1 << 30
needs_onednn = pytest.mark.skipif(not is_exact(), reason="needs exact products of oneDNN")


def setting() -> Any:
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    products_module._probe.cache_clear()
    yield
    products_module._probe.cache_clear()


@needs_onednn
class TestContext:
    def test_holds_for_its_body(self) -> None:
        before = setting()
        context = onednn_products(torch.empty(1), LARGE)
        for _ in range(2):  # serves several times
            with context:
                assert setting() == "bf16"
            assert setting() == before
        with pytest.raises(KeyError), context:
            raise KeyError
        assert setting() == before

    def test_leaves_other_cases_alone(self) -> None:
        x = torch.empty(1)
        for like, size in ((x, 1000), (x.double(), LARGE), (x.bfloat16(), LARGE)):
            with onednn_products(like, size):
                assert setting() == "none"
        with onednn_products(torch.empty(1, device="meta"), LARGE):
            assert setting() == "none"

    def test_respects_what_is_set(self) -> None:
        try:
            torch.backends.mkldnn.matmul.fp32_precision = "ieee"
            with onednn_products(torch.empty(1), LARGE):
                assert setting() == "ieee"
            assert setting() == "ieee"
        finally:
            torch.backends.mkldnn.matmul.fp32_precision = "none"

    def test_respects_that_onednn_is_switched_off(self) -> None:
        with torch.backends.mkldnn.flags(enabled=False), onednn_products(torch.empty(1), LARGE):
            assert setting() == "none"

    def test_keeps_single_precision(self) -> None:
        torch.manual_seed(0)
        left, right = torch.randn(8, 96, 256), torch.randn(8, 256, 64)
        exact = left.double() @ right.double()
        with onednn_products(left, LARGE):
            batch = torch.bmm(left, right)
            single = torch.stack([a @ b for a, b in zip(left, right, strict=True)])
        for product in (batch, single):
            torch.testing.assert_close(product.double(), exact, atol=1e-4, rtol=1e-5)

    def test_feed_forward_network_of_a_size_that_it_serves(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.manual_seed(0)
        ffn = GroupedFeedForward(512, dropout=0.0)
        x = torch.randn(96, 512, requires_grad=True)
        weight = torch.randn(96, 512)
        inputs = [x, *ffn.parameters()]
        with RecordedProducts() as recorded:
            out = ffn(x)
            grads = torch.autograd.grad(out, inputs, weight)
            with torch.no_grad():
                without_gradients = ffn(x)
        assert recorded.settings == ["bf16"] * 8  # two maps: forward, two gradients, forward
        assert setting() == "none"
        monkeypatch.setattr(products_module, "is_exact", lambda: False)
        with RecordedProducts() as recorded:
            expected = ffn(x)
        assert recorded.settings == ["none", "none"]
        for result in (out, without_gradients):
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            grads, torch.autograd.grad(expected, inputs, weight), atol=2e-4, rtol=1e-4
        )


@needs_onednn
@pytest.mark.usefixtures("fresh_probe")
class TestProbe:
    def test_does_not_depend_on_autocast(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert is_exact()
        assert setting() == "none"

    def test_finds_rounded_products(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bmm = torch.bmm

        def rounded(left: Tensor, right: Tensor) -> Tensor:
            if left.dtype == torch.float32 and setting() == "bf16":
                left, right = left.bfloat16().float(), right.bfloat16().float()
            return bmm(left, right)

        monkeypatch.setattr(torch, "bmm", rounded)
        assert not is_exact()
        with onednn_products(torch.empty(1), LARGE):
            assert setting() == "none"

    def test_without_onednn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not is_exact()

    def test_before_there_was_a_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(products_module, "_MATMUL", None)
        assert not is_exact()
        with onednn_products(torch.empty(1), LARGE):
            pass
