from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from narformer_pyg.nn import CellTokenEncoder, nerf_code


def formula(values: np.ndarray, num_frequencies: int) -> np.ndarray:
    """sin(pi f v) and cos(pi f v) interleaved, f linear from 2^0 to 2^(L-1)."""
    out = np.empty((len(values), 2 * num_frequencies))
    step = (2.0 ** (num_frequencies - 1) - 1) / (num_frequencies - 1)
    for row, value in enumerate(values):
        for k in range(num_frequencies):
            angle = np.pi * np.float64(1 + k * step) * np.float64(value)
            out[row, 2 * k], out[row, 2 * k + 1] = np.sin(angle), np.cos(angle)
    return out


class TestNerfCode:
    def test_formula(self) -> None:
        values = np.arange(40)
        code = nerf_code(torch.from_numpy(values))
        assert code.shape == (40, 64)
        assert code.dtype == torch.double
        # Angles reach 2.6e11, where the spacing of doubles is 3e-5.
        np.testing.assert_allclose(code.numpy(), formula(values, 32), rtol=0, atol=5e-4)

    def test_formula_at_low_frequencies(self) -> None:
        values = np.array([0.0, 0.25, -1.5, 3.0])
        code = nerf_code(torch.from_numpy(values), num_frequencies=4)
        np.testing.assert_allclose(code.numpy(), formula(values, 4), rtol=0, atol=1e-12)
        # f = 1, 10/3, 17/3, 8
        expected = [np.sin(np.pi / 4), np.cos(np.pi / 4), np.sin(np.pi * 10 / 12)]
        np.testing.assert_allclose(code[1, :3].numpy(), expected, atol=1e-12)

    def test_distinguishes_integers(self) -> None:
        code = nerf_code(torch.arange(32))
        similarity = code @ code.t() / 32  # the codes have squared norm 32
        torch.testing.assert_close(similarity.diagonal(), torch.ones(32, dtype=torch.double))
        assert (similarity - torch.eye(32, dtype=torch.double)).abs().max() < 0.9

    def test_shape(self) -> None:
        assert nerf_code(torch.zeros(2, 3), 5).shape == (2, 3, 10)


class TestCellTokenEncoder:
    def test_codes(self) -> None:
        encoder = CellTokenEncoder()
        assert encoder.out_channels == 128
        assert encoder.static_channels == 0
        op, position = torch.tensor([0, 3, 6, 5]), torch.tensor([0, 1, 2, 7])
        data = Data(op=op, position=position, num_nodes=4)
        code = encoder(data)
        assert code.dtype == torch.float32
        expected = np.concatenate([formula(op.numpy(), 32), formula(position.numpy(), 32)], axis=1)
        np.testing.assert_allclose(code.numpy(), expected, rtol=0, atol=5e-4)
        assert encoder.encode_static(data) is None

    def test_batch_and_int32(self) -> None:
        encoder = CellTokenEncoder(7, 8, num_frequencies=4)
        assert encoder.out_channels == 16
        data = Data(op=torch.tensor([0, 6]), position=torch.tensor([0, 7]), num_nodes=2)
        code = encoder(data)
        batched = encoder(Batch.from_data_list([data, data]))
        assert torch.equal(batched, torch.cat([code, code]))
        data.op = data.op.int()
        assert torch.equal(encoder(data), code)

    def test_state_dict_is_empty(self) -> None:
        assert not CellTokenEncoder().state_dict()
        encoder = CellTokenEncoder(7, 8, 4)
        assert torch.equal(CellTokenEncoder(**encoder.config).operations, encoder.operations)

    def test_repr(self) -> None:
        assert repr(CellTokenEncoder(7, 8, 4)) == (
            "CellTokenEncoder(num_operations=7, num_positions=8, num_frequencies=4)"
        )

    @pytest.mark.parametrize("name", ["op", "position"])
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, r"tensor of type torch.long.*got NoneType"),
            ([0, 1], r"tensor of type torch.long.*got list"),
            (torch.tensor([0.0, 1.0]), r"tensor of type torch.long.*got torch.float32"),
            (torch.tensor([True, False]), r"tensor of type torch.long.*got torch.bool"),
            (torch.tensor([[0], [1]]), r"shape \[num_nodes\].*got \[2, 1\]"),
            (torch.tensor([0, 9]), r"between 0 and \d \(got 9\); the limit is the argument 'num_"),
            (torch.tensor([-1, 3]), r"between 0 and \d \(got -1\)"),
        ],
    )
    def test_wrong_tokens(self, name: str, value: Any, message: str) -> None:
        tokens = {"op": torch.tensor([0, 1]), "position": torch.tensor([0, 1]), name: value}
        data = Data(num_nodes=2, **{k: v for k, v in tokens.items() if v is not None})
        with pytest.raises(ValueError, match=f"'data.{name}'.*{message}"):
            CellTokenEncoder(7, 8, 4)(data)

    def test_limits(self) -> None:
        data = Data(op=torch.tensor([6, 0]), position=torch.tensor([7, 0]), num_nodes=2)
        assert CellTokenEncoder(7, 8, 4)(data).shape == (2, 16)
        with pytest.raises(ValueError, match=r"between 0 and 5 \(got 6\).*'num_operations'"):
            CellTokenEncoder(6, 8, 4)(data)
        with pytest.raises(ValueError, match=r"between 0 and 6 \(got 7\).*'num_positions'"):
            CellTokenEncoder(7, 7, 4)(data)

    @pytest.mark.parametrize("name", ["num_operations", "num_positions", "num_frequencies"])
    @pytest.mark.parametrize("value", [0, -1, 1.0, True])
    def test_wrong_arguments(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"'{name}' to be a positive integer"):
            CellTokenEncoder(**{name: value})
