from __future__ import annotations

import torch
from dense_reference import randomize

from narformer_pyg.nn import PositiveRegressionHead
from narformer_pyg.testing import assert_all_parameters_receive_gradients


class TestPositiveRegressionHead:
    def test_reference(self) -> None:
        head = PositiveRegressionHead(6, 5, out_channels=2, dropout=0.5).double().eval()
        randomize(head)
        x = torch.randn(4, 6, dtype=torch.double)
        hidden = (x @ head.lin_1.weight.t() + head.lin_1.bias).clamp(min=0)
        hidden = (hidden @ head.lin_2.weight.t() + head.lin_2.bias).clamp(min=0)
        out = hidden @ head.lin_3.weight.t() + head.lin_3.bias
        expected = -torch.log(1 / (1 + torch.exp(-out)))
        torch.testing.assert_close(head(x), expected, rtol=1e-10, atol=1e-12)
        assert (head(x) > 0).all()

    def test_stable(self) -> None:
        head = PositiveRegressionHead(1, 1).eval()
        with torch.no_grad():
            for p in head.parameters():
                p.fill_(1.0)
            head.lin_3.weight.fill_(-1.0)
            head.lin_3.bias.zero_()
        x = torch.tensor([[998.0]], requires_grad=True)
        out = head(x)  # -logsigmoid(-1000)
        torch.testing.assert_close(out, torch.tensor([[1000.0]]))
        out.sum().backward()
        torch.testing.assert_close(x.grad, torch.ones(1, 1))

    def test_dropout_and_gradients(self) -> None:
        torch.manual_seed(0)
        head = PositiveRegressionHead(6, 50, dropout=0.4)
        x = torch.randn(1, 6).expand(64, 6)
        out = head(x)
        assert out.std() > 1e-4
        assert head.eval()(x).std() < 1e-6
        assert_all_parameters_receive_gradients(head, out.sum())

    def test_reset_parameters(self) -> None:
        head = PositiveRegressionHead(25, 16)
        before = [p.clone() for p in head.parameters()]
        randomize(head, scale=10.0)
        head.reset_parameters()
        assert all(not torch.equal(p, q) for p, q in zip(head.parameters(), before, strict=True))
        for lin, bound in ((head.lin_1, 1 / 5), (head.lin_2, 1 / 4), (head.lin_3, 1 / 4)):
            assert lin.weight.abs().max() <= bound
            assert lin.bias.abs().max() <= bound
