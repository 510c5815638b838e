"""Operator vocabularies: the numbers that stand for operators and what describes each of them."""

from narformer_pyg.vocabulary.operator_vocabulary import (
    COUNTINGS,
    NUM_OUTPUT_DIMS,
    NUM_SLOTS,
    VOCABULARIES,
    OperatorVocabulary,
    get_vocabulary,
)

__all__ = [
    "COUNTINGS",
    "NUM_OUTPUT_DIMS",
    "NUM_SLOTS",
    "VOCABULARIES",
    "OperatorVocabulary",
    "get_vocabulary",
]
