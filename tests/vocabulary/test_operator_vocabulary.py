from __future__ import annotations

import onnx.defs
import pytest

from narformer_pyg.convert.onnx_model.slots import READERS
from narformer_pyg.vocabulary import NUM_SLOTS, VOCABULARIES, get_vocabulary


@pytest.mark.parametrize("name", VOCABULARIES)
def test_table(name: str) -> None:
    vocabulary = get_vocabulary(name)
    assert len(vocabulary) == len(vocabulary.slots)
    named = [operator for operator in vocabulary.operators if operator != "<reserved>"]
    assert len(set(named)) == len(named)
    for slots in vocabulary.slots:
        assert len(slots) <= NUM_SLOTS
        assert set(slots) <= set(READERS)
    for i, operator in enumerate(vocabulary.operators):
        if not operator.startswith("<"):
            domain, _, op_type = operator.rpartition("::")
            assert vocabulary.id_of(op_type, domain) == i


def test_ids_never_move() -> None:
    # Graphs on disk and checkpoints hold these numbers.
    onnx_ids = get_vocabulary("onnx").id_of
    assert [onnx_ids(name) for name in ("Abs", "Add", "Conv", "Gelu", "MatMul", "Xor")] == [
        2, 5, 38, 66, 98, 204,
    ]  # fmt: skip
    assert onnx_ids("FusedConv", "com.microsoft") == 263
    paper = get_vocabulary("nnlqp").id_of
    assert [paper(name) for name in ("Conv", "Relu", "MatMul", "ConvTranspose")] == [0, 1, 17, 27]


def test_every_standard_operator_has_an_id() -> None:
    vocabulary = get_vocabulary("onnx")
    assert vocabulary.width == len(vocabulary)
    # Operators that a later onnx adds are unknown, which the converter reports.
    old = [s for s in onnx.defs.get_all_schemas() if s.since_version <= 23 and s.domain == ""]
    assert len(old) > 150
    for schema in old:
        assert vocabulary.id_of(schema.name) != vocabulary.unknown_id, schema.name
    assert vocabulary.id_of("Conv", "ai.onnx") == vocabulary.id_of("Conv")
    assert vocabulary.id_of("Nothing") == vocabulary.unknown_id
    assert vocabulary.id_of("Conv", "nobody.knows") == vocabulary.unknown_id


def test_paper() -> None:
    vocabulary = get_vocabulary("nnlqp")
    assert vocabulary.width == 32
    assert min(vocabulary.input_id, vocabulary.unknown_id) >= 32  # an all-zero code
    assert sum(not operator.startswith("<") for operator in vocabulary.operators) == 28


def test_wrong_name() -> None:
    with pytest.raises(ValueError, match=r"'vocabulary' to be among 'onnx', 'nnlqp' \(got 'tf'\)"):
        get_vocabulary("tf")


def test_repr() -> None:
    assert repr(get_vocabulary("nnlqp")) == "OperatorVocabulary('nnlqp', 34 ids, width=32)"
