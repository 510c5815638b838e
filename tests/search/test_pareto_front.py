from __future__ import annotations

import itertools

import numpy as np
import pytest

from narformer_pyg.search import hypervolume, non_dominated
from narformer_pyg.search.pareto_search import choose_by_hypervolume
from narformer_pyg.search.surrogate import rank_labels


def slow_front(points: np.ndarray) -> list[int]:
    front = []
    for i, p in enumerate(points):
        beaten = any((q >= p).all() and (q > p).any() for q in points)
        repeated = any((points[j] == p).all() for j in range(i))
        if not beaten and not repeated:
            front.append(i)
    return front


def slow_volume(points: np.ndarray, reference: np.ndarray) -> float:
    """Inclusion and exclusion of boxes."""
    sides = np.clip(points - reference, 0, None)
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(range(len(points)), size):
            total -= (-1) ** size * float(sides[list(subset)].min(axis=0).prod())
    return total


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_against_slow_references(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    for _ in range(20):
        points = rng.integers(5, size=(9, dimensions)).astype(float)
        assert non_dominated(points) == slow_front(points)
        reference = np.full(dimensions, 1.0)
        assert hypervolume(points, reference) == pytest.approx(slow_volume(points, reference))


def test_nothing_above_the_reference() -> None:
    assert hypervolume(np.empty((0, 2)), [0.0, 0.0]) == 0.0
    assert hypervolume([[1.0, -1.0], [0.0, 5.0]], [0.0, 0.0]) == 0.0


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"Expected 'scores' .*\[3\]"):
        non_dominated([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"Expected 'scores' and 'reference' .*\[1, 2\] and \[3\]"):
        hypervolume([[1.0, 2.0]], [0.0, 0.0, 0.0])


def test_rank_labels() -> None:
    labels = rank_labels(np.array([[10.0, -1.0], [90.0, -2.0], [90.0, -3.0], [-1e9, -4.0]]))
    expected = [[1.375, 1.875], [1.75, 1.625], [1.75, 1.375], [1.125, 1.125]]
    assert labels.tolist() == expected
    assert labels.dtype == np.float32
    assert rank_labels(np.empty((0, 2))).shape == (0, 2)


def test_choice_by_hypervolume() -> None:
    known = np.array([[0.0, 10.0], [10.0, 0.0]])
    # Between both; worse than known; beside the first.
    new = np.array([[6.0, 6.0], [-1.0, -1.0], [7.0, 5.0]])
    assert choose_by_hypervolume(known, new, 1) == [0]
    # The next to add anything is not behind a point that is there by now.
    assert choose_by_hypervolume(known, new, 2) == [0, 2]
    assert choose_by_hypervolume(known, new, 10) == [0, 2, 1]
    assert choose_by_hypervolume(known * [1e9, 1e-9], new * [1e9, 1e-9], 2) == [0, 2]
    assert choose_by_hypervolume(known, np.empty((0, 2)), 3) == []
