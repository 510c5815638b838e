from __future__ import annotations

import pytest
import torch
from dense_reference import randomize

from narformer_pyg.nn import FusionReadout, MeanReadout, SumReadout
from narformer_pyg.nn.readout import READOUTS

BATCH = torch.tensor([0, 0, 0, 2, 2])  # graph 1 has no nodes


class TestReadouts:
    def test_sum_and_mean(self) -> None:
        states = [torch.full((5, 2), 9.0), torch.arange(10.0).view(5, 2)]
        total = [[6.0, 9.0], [0.0, 0.0], [14.0, 16.0]]
        assert SumReadout()(states, BATCH, 3).tolist() == total
        mean = [[2.0, 3.0], [0.0, 0.0], [7.0, 8.0]]
        assert MeanReadout()(states, BATCH, 3).tolist() == mean

    def test_unsorted_batch(self) -> None:
        x = torch.tensor([[1.0], [2.0], [4.0]])
        assert SumReadout()([x], torch.tensor([1, 0, 1]), 2).tolist() == [[2.0], [5.0]]

    # More than the numbers of these types can count in steps of one.
    @pytest.mark.parametrize(("dtype", "num_nodes"), [(torch.bfloat16, 600), (torch.float16, 4096)])
    def test_many_nodes_in_half_precision(self, dtype: torch.dtype, num_nodes: int) -> None:
        states = [torch.ones(num_nodes, 2, dtype=dtype)]
        batch = torch.zeros(num_nodes, dtype=torch.long)
        for readout, expected in ((SumReadout(), float(num_nodes)), (MeanReadout(), 1.0)):
            out = readout(states, batch, 1)
            assert out.dtype == dtype
            assert out.tolist() == [[expected, expected]]

    def test_fusion(self) -> None:
        readout = FusionReadout(4, num_blocks=3).double()
        randomize(readout)
        assert readout.lin_1.weight.shape == (3, 12)
        states = [torch.randn(5, 4, dtype=torch.double) for _ in range(3)]
        out = readout(states, BATCH, 3)
        for graph in (0, 2):
            means = [state[graph == BATCH].mean(dim=0) for state in states]
            hidden = (readout.lin_1.weight @ torch.cat(means) + readout.lin_1.bias).clamp(min=0)
            logits = readout.lin_2.weight @ hidden + readout.lin_2.bias
            expected = sum(m / (1 + torch.exp(-w)) for m, w in zip(means, logits, strict=True))
            torch.testing.assert_close(out[graph], expected)
        assert not out[1].any()

    def test_fusion_size_of_the_paper(self) -> None:
        readout = FusionReadout(512, num_blocks=6)
        assert readout.lin_1.weight.shape == (768, 3072)
        assert readout.lin_2.weight.shape == (6, 768)

    def test_reset_parameters(self) -> None:
        readout = FusionReadout(4, num_blocks=3)
        before = [p.clone() for p in readout.parameters()]
        readout.reset_parameters()
        assert all(not torch.equal(p, q) for p, q in zip(readout.parameters(), before, strict=True))
        assert readout.lin_1.weight.abs().max() <= 12**-0.5
        SumReadout().reset_parameters()

    def test_repr(self) -> None:
        assert repr(FusionReadout(4, 3)) == "FusionReadout(4, num_blocks=3)"
        assert repr(SumReadout()) == "SumReadout()"
        assert repr(MeanReadout()) == "MeanReadout()"

    def test_registry(self) -> None:
        for name, cls in (("fusion", FusionReadout), ("sum", SumReadout), ("mean", MeanReadout)):
            assert type(READOUTS.get(name)(channels=4, num_blocks=2)) is cls
