"""Checks of models and layers, for the tests of this package and of its users."""

from narformer_pyg.testing.asserts import (
    assert_all_parameters_receive_gradients,
    assert_batch_invariant,
    assert_permutation_invariant,
)

__all__ = [
    "assert_all_parameters_receive_gradients",
    "assert_batch_invariant",
    "assert_permutation_invariant",
]
