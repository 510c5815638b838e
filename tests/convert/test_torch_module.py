from __future__ import annotations

import sys

import networkx
import pytest
import torch
from torch import nn

from narformer_pyg.convert import convert_torch, from_nasbench201, from_torch, to_networkx
from narformer_pyg.convert.torch_module import export_onnx
from narformer_pyg.errors import ConversionError


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.linear(a)) * b


class TestFromTorch:
    def test_graph(self, capsys: pytest.CaptureFixture) -> None:
        module = TwoInputs()
        module.linear.eval()
        a = torch.randn(3, 4)
        conversion = convert_torch(module, {"a": a, "b": torch.randn(3, 4)})
        assert conversion.report.operators == {"Gemm": 1, "Mul": 1}
        names = conversion.node_names
        edges = {(names[s], names[t]) for s, t in conversion.data.edge_index.t().tolist()}
        assert {("a", names[2]), ("b", names[3]), (names[2], names[3])} == edges
        # Dropout was folded as at inference, and the modes are as they were.
        assert module.training
        assert module.dropout.training
        assert not module.linear.training
        assert capsys.readouterr().out == ""
        data = from_torch(module, (a, a), vocabulary="nnlqp", counting="nnlqp")
        assert data.op[-2:].tolist() == [8, 12]
        assert data.static[0].tolist() == [3, 4 * 8 + 12, 20, 12 + 20 + 12]

    def test_wrong_arguments(self) -> None:
        with pytest.raises(
            TypeError, match=r"'module' to be a torch.nn.Module \(got builtin_function"
        ):
            from_torch(torch.relu, torch.randn(2))  # type: ignore[arg-type]
        module = TwoInputs()
        with pytest.raises(ConversionError, match="export TwoInputs"):
            export_onnx(module, torch.randn(3, 4))
        assert module.training

    def test_without_onnxscript(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(ImportError, match=r"pip install 'narformer-pyg\[torch-export\]'"):
            export_onnx(TwoInputs(), torch.randn(3, 4))


class TestToNetworkx:
    def test_network(self) -> None:
        conversion = convert_torch(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.ones(1, 3, 8, 8)
        )
        graph = to_networkx(conversion.data, "onnx", conversion.node_names)
        assert [graph.nodes[i]["operator"] for i in range(3)] == ["<input>", "Conv", "Relu"]
        assert list(graph.edges) == [(0, 1), (1, 2)]
        assert graph.nodes[1]["definition"]["kernel"] == 3
        assert graph.nodes[1]["shape"] == [1, 4, 6, 6]
        assert graph.nodes[0]["name"] == "input"
        assert graph.graph["static"][0] == 1
        assert networkx.is_directed_acyclic_graph(graph)

    def test_cell(self) -> None:
        data = from_nasbench201("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
        graph = to_networkx(data)
        assert graph.number_of_nodes() == 8
        assert set(graph.nodes[3]) == {"op", "position"}
        assert sorted(map(list, graph.edges)) == sorted(data.edge_index.t().tolist())

    def test_wrong_arguments(self) -> None:
        data = from_nasbench201("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
        with pytest.raises(ValueError, match=r"each of the 8 nodes \(got 1\)"):
            to_networkx(data, node_names=["a"])
        data.op[3] = 99
        with pytest.raises(ValueError, match=r"vocabulary 'nnlqp', below 34 \(got 99\)"):
            to_networkx(data, "nnlqp")
