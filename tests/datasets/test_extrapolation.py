from __future__ import annotations

import pytest
import torch

from narformer_pyg.datasets import extrapolate_accuracy

TRAIN, VALID = torch.tensor([99.0, 80.0, 10.0]), torch.tensor([89.0, 78.0, 10.0])


def test_gap_shrinks_with_the_square_root() -> None:
    out = extrapolate_accuracy(TRAIN, VALID, 4.0)
    assert torch.equal(out, torch.tensor([94.0, 79.0, 10.0]))


def test_no_more_data() -> None:
    assert torch.equal(extrapolate_accuracy(TRAIN, VALID, 1.0), VALID)


def test_other_shape() -> None:
    with pytest.raises(ValueError, match=r"'valid_acc' to have the shape .* \[3\] \(got \[2\]\)"):
        extrapolate_accuracy(TRAIN, VALID[:2], 2.0)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_ratio(ratio: float) -> None:
    with pytest.raises(ValueError, match="'data_ratio' to be a positive number"):
        extrapolate_accuracy(TRAIN, VALID, ratio)
