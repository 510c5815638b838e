"""Operator vocabularies: the id of every operator and the attributes that describe it."""

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
