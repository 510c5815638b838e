from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_csc_tensor

from narformer_pyg.nn import SoftmaxAttentionConv
from narformer_pyg.testing import assert_all_parameters_receive_gradients

EDGES = torch.tensor([[0, 0, 1, 2, 3, 2], [1, 2, 3, 3, 4, 0]])


class TestSoftmaxAttentionConv:
    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize("out_channels", [6, 9])
    def test_reference(self, normalize: bool, out_channels: int) -> None:
        conv = SoftmaxAttentionConv(6, out_channels, normalize=normalize).double()
        x = torch.randn(5, 6, dtype=torch.double)
        mask = torch.eye(5, dtype=torch.bool)
        mask[EDGES[1], EDGES[0]] = True
        scores = conv.lin_query(x) @ conv.lin_key(x).t() / 6**0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        expected = conv.lin_l(weights @ conv.lin_value(x))
        if normalize:
            expected = F.normalize(expected, dim=-1)
        out, (edges, alpha) = conv(x, EDGES, return_attention_weights=True)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(alpha, weights[edges[1], edges[0]])
        torch.testing.assert_close(conv(x, EDGES), expected)

    def test_all_pairs_are_a_transformer(self) -> None:
        conv = SoftmaxAttentionConv(6, 6, normalize=False).double()
        x = torch.randn(5, 6, dtype=torch.double)
        edges = torch.cartesian_prod(torch.arange(5), torch.arange(5)).t()
        attended = F.scaled_dot_product_attention(
            conv.lin_query(x)[None], conv.lin_key(x)[None], conv.lin_value(x)[None]
        )[0]
        torch.testing.assert_close(conv(x, edges), conv.lin_l(attended))

    def test_sparse_adjacency(self) -> None:
        conv = SoftmaxAttentionConv(6, 6)
        x = torch.randn(5, 6)
        expected = conv(x, EDGES)
        torch.testing.assert_close(conv(x, to_torch_csc_tensor(EDGES, size=(5, 5)).t()), expected)

    def test_edge_index_class(self) -> None:
        conv = SoftmaxAttentionConv(6, 6)
        x = torch.randn(5, 6)
        edges = EdgeIndex(EDGES, sparse_size=(5, 5))
        torch.testing.assert_close(conv(x, edges), conv(x, EDGES))

    def test_compile(self) -> None:
        conv = SoftmaxAttentionConv(6, 6)
        x = torch.randn(5, 6)
        compiled = torch.compile(conv, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, EDGES), conv(x, EDGES))

    def test_all_parameters_receive_gradients(self) -> None:
        conv = SoftmaxAttentionConv(6, 8)
        out = conv(torch.randn(5, 6), EDGES)
        assert_all_parameters_receive_gradients(conv, (out * torch.randn_like(out)).sum())

    def test_reset_parameters(self) -> None:
        conv = SoftmaxAttentionConv(6, 8)
        before = conv.lin_l.weight.clone(), conv.lin_query.weight.clone()
        conv.reset_parameters()
        assert not torch.equal(conv.lin_l.weight, before[0])
        assert not torch.equal(conv.lin_query.weight, before[1])

    def test_errors(self) -> None:
        conv = SoftmaxAttentionConv(6, 8)
        with pytest.raises(ValueError, match=r"'x' to have shape \[num_nodes, 6\]"):
            conv(torch.randn(5, 4), EDGES)
        with pytest.raises(ValueError, match="'edge_index' to name nodes from 0 to 2"):
            conv(torch.randn(3, 6), EDGES)

    def test_repr(self) -> None:
        assert repr(SoftmaxAttentionConv(6, 8)) == "SoftmaxAttentionConv(6, 8)"
