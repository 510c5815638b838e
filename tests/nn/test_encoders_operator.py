from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from narformer_pyg.nn import OperatorTokenEncoder, trans_code
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.vocabulary import get_vocabulary


def network(vocabulary: str = "onnx") -> Data:
    """An input, a transposition, and an operator that nobody knows."""
    table = get_vocabulary(vocabulary)
    op = [table.input_id, table.id_of("Transpose"), table.unknown_id]
    attr = torch.zeros(3, 12)
    attr[1, :3] = torch.tensor([2.0, 0.0, 1.0])
    attr[:, 8:10] = torch.tensor([[4.0, 5.0], [5.0, 4.0], [-1.0, -1.0]])
    return Data(
        op=torch.tensor(op),
        position=torch.arange(3),
        attr=attr,
        edge_index=torch.tensor([[0, 1], [1, 2]]),
        static=torch.tensor([[4.0, 2e9, 3e6, 5e7]]),
        num_nodes=3,
    )


def test_trans_code() -> None:
    values = np.array([0.0, 1.0, -1.0, 224.0, 150528.0])
    code = trans_code(torch.from_numpy(values), 4)
    assert code.dtype == torch.double
    for row, value in zip(code.numpy(), values, strict=True):
        angles = [value / 10000 ** (j / 4) for j in range(4)]
        expected = [f(a) for a in angles for f in (np.sin, np.cos)]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-10)


class TestOperatorTokenEncoder:
    def test_paper(self) -> None:
        encoder = OperatorTokenEncoder("nnlqp")
        assert (encoder.out_channels, encoder.static_channels) == (152, 40)
        data = network("nnlqp")
        code = encoder(data)
        assert code.shape == (3, 152)
        assert code.dtype == torch.float
        assert code[:, :32].sum(dim=1).tolist() == [0, 1, 0]
        assert code[1, 9] == 1
        # A permutation fills all slots: 0 beyond the rank is a number, and codes of zero are not.
        slots = code[:, 32:112].view(3, 8, 10)
        assert not slots[[0, 2]].any()
        torch.testing.assert_close(slots[1], trans_code(data.attr[1, :8]).float())
        torch.testing.assert_close(code[:, 112:], trans_code(data.attr[:, 8:]).float().flatten(1))
        expected = trans_code(torch.tensor([[4, 2, 3e-3, 5e-2]], dtype=torch.double)).flatten(1)
        torch.testing.assert_close(encoder.encode_static(data), expected.float())

    def test_default(self) -> None:
        encoder = OperatorTokenEncoder()
        width = get_vocabulary("onnx").width
        assert encoder.out_channels == width + 120
        code = encoder(network())
        assert code[:, :width].sum(dim=1).tolist() == [1, 1, 1]
        assert code[:, :width].argmax(dim=1).tolist() == network().op.tolist()

    def test_batch(self) -> None:
        encoder = OperatorTokenEncoder(num_frequencies=2)
        data = network()
        batch = Batch.from_data_list([data, data])
        code = encoder(data)
        assert torch.equal(encoder(batch), torch.cat([code, code]))
        assert encoder.encode_static(batch).shape == (2, 16)

    def test_state_dict_is_empty(self) -> None:
        assert not OperatorTokenEncoder().state_dict()

    def test_repr(self) -> None:
        encoder = OperatorTokenEncoder("nnlqp", 3, static_scale="log")
        assert repr(encoder) == (
            "OperatorTokenEncoder(vocabulary='nnlqp', num_frequencies=3, counting='standard', "
            "static_scale='log')"
        )

    def test_log_scale(self) -> None:
        data = network()
        expected = trans_code(data.static.double().log1p()).flatten(1).float()
        code = OperatorTokenEncoder(static_scale="log").encode_static(data)
        torch.testing.assert_close(code, expected)
        # Twice a million FLOPs is as far away as twice a billion, which it is not in billions.
        for scale, least in (("log", 0.3), ("billions", 0.0)):
            encoder = OperatorTokenEncoder(static_scale=scale)
            codes = []
            for flops in (1e6, 2e6):
                data.static = torch.tensor([[1.0, flops, 0.0, 0.0]])
                codes.append(encoder.encode_static(data))
            distance = float((codes[0] - codes[1]).norm())
            assert distance > least
            assert scale == "log" or distance < 2e-3

    @pytest.mark.parametrize("name", ["counting", "static_scale"])
    def test_unknown_convention(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"'{name}' to be among .* \(got 'other'\)"):
            OperatorTokenEncoder(**{name: "other"})

    def test_compiles(self) -> None:
        encoder = OperatorTokenEncoder("nnlqp")
        data = network("nnlqp")
        compiled = torch.compile(
            lambda op, attr: encoder(Data(op=op, attr=attr)), backend="eager", fullgraph=True
        )
        torch.testing.assert_close(compiled(data.op, data.attr), encoder(data))

    def test_predictor(self, tmp_path: Path) -> None:
        encoder = OperatorTokenEncoder("nnlqp")
        model = create_model(
            "narformer_v2",
            in_channels=encoder.out_channels,
            static_channels=encoder.static_channels,
            hidden_channels=16,
            num_blocks=1,
            readout="sum",
        )
        predictor = ArchitecturePredictor(encoder, model, units=["ms"]).eval()
        data = network("nnlqp")
        prediction = predictor.predict([data, data])
        assert prediction.shape == (2, 1)
        predictor.save_pretrained(tmp_path)
        loaded = ArchitecturePredictor.from_pretrained(tmp_path)
        torch.testing.assert_close(loaded.predict([data]), prediction[:1])
        # Every number counts: operators, definitions, shapes and graph features.
        for name, index in (("attr", (1, 0)), ("attr", (1, 9)), ("static", (0, 1))):
            changed = data.clone()
            changed[name][index] *= 3
            assert not torch.equal(predictor.predict([changed]), prediction[:1]), (name, index)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("op", None, r"'data.op' to be a tensor of type torch.long.*got NoneType"),
            ("op", torch.tensor([0, 1, 34]), r"between 0 and 33 \(got 34\).*'vocabulary'"),
            ("attr", None, r"'data.attr' to be a tensor of floats \(got NoneType\)"),
            ("attr", torch.zeros(3, 12).long(), r"tensor of floats \(got torch.int64\)"),
            ("attr", torch.zeros(3, 8), r"shape \[\*, 12\] \(got \[3, 8\]\)"),
            ("attr", torch.zeros(2, 12), r"one row for each number in 'data.op' \(got 2 and 3\)"),
        ],
    )
    def test_wrong_tokens(self, name: str, value: Any, message: str) -> None:
        data = network("nnlqp")
        data[name] = value
        with pytest.raises(ValueError, match=message):
            OperatorTokenEncoder("nnlqp")(data)

    def test_wrong_static(self) -> None:
        data = network()
        data.static = torch.zeros(4)
        with pytest.raises(
            ValueError, match=r"'data.static' to have shape \[\*, 4\] \(got \[4\]\)"
        ):
            OperatorTokenEncoder().encode_static(data)

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ValueError, match="'vocabulary' to be among"):
            OperatorTokenEncoder("tf")
        with pytest.raises(ValueError, match="'num_frequencies' to be a positive integer"):
            OperatorTokenEncoder(num_frequencies=0)
