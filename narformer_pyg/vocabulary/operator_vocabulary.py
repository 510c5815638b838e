"""Fixed tables that map ONNX operators to ids and back."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

#: Definition attributes of a node: the first columns of :obj:`data.attr`.
NUM_SLOTS = 8
#: Output dimensions of a node: the last columns of :obj:`data.attr`.
NUM_OUTPUT_DIMS = 4
#: The names that :func:`get_vocabulary` knows.
VOCABULARIES = ("onnx", "nnlqp")
#: The conventions by which FLOPs, parameters and memory access are counted.
COUNTINGS = ("standard", "nnlqp")

INPUT = "<input>"
UNKNOWN = "<unknown>"
RESERVED = "<reserved>"


@dataclass(frozen=True)
class OperatorVocabulary:
    r"""The ids of operators, and the meaning of the 8 definition slots of each.

    The package has two. :obj:`"nnlqp"` is the paper's: 28 operators in a one-hot code of 32; graph
    inputs and all other operators have ids, but an all-zero code. :obj:`"onnx"` has every operator
    of the ONNX standard up to opset 28 and those of ONNX Runtime's domain :obj:`com.microsoft`;
    inputs and unknown operators have places in its one-hot code. The tables do not depend on the
    installed onnx: an id keeps its meaning.

    Args:
        name (str): The name, one of :obj:`VOCABULARIES`.
        operators (tuple of str): The operator of each id, written :obj:`"domain::Operator"` outside
            ONNX's own domain.
        slots (tuple of tuple of str): The names of the definition slots of each id, at most 8, see
            :mod:`narformer_pyg.convert.onnx_model.slots`.
        width (int): The length of the one-hot code. Higher ids have an all-zero code.
    """

    name: str
    operators: tuple[str, ...]
    slots: tuple[tuple[str, ...], ...]
    width: int

    def __len__(self) -> int:
        return len(self.operators)

    @property
    def input_id(self) -> int:
        """The id of a graph input."""
        return self._ids[INPUT]

    @property
    def unknown_id(self) -> int:
        """The id of every operator that is not in the vocabulary."""
        return self._ids[UNKNOWN]

    def id_of(self, op_type: str, domain: str = "") -> int:
        r"""Returns the id of an operator, :attr:`unknown_id` if it has none.

        Args:
            op_type (str): The operator, for instance :obj:`"Conv"`.
            domain (str, optional): Its domain, :obj:`""` or :obj:`"ai.onnx"` for ONNX's own.
                (default: :obj:`""`)
        """
        name = op_type if domain in ("", "ai.onnx") else f"{domain}::{op_type}"
        return self._ids.get(name, self.unknown_id)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.operators) if name != RESERVED}

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name!r}, {len(self)} ids, width={self.width})"


@functools.cache
def get_vocabulary(name: str) -> OperatorVocabulary:
    r"""Returns a vocabulary by its name.

    Args:
        name (str): :obj:`"onnx"` or :obj:`"nnlqp"`.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in VOCABULARIES:
        raise ValueError(
            f"Expected 'vocabulary' to be among {', '.join(map(repr, VOCABULARIES))} (got {name!r})"
        )
    path = resources.files("narformer_pyg.vocabulary") / "data" / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    rows = content["operators"]
    return OperatorVocabulary(
        name,
        tuple(operator for operator, *_ in rows),
        tuple(tuple(slots) for _, *slots in rows),
        content["width"],
    )
