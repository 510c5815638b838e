"""The interface of search spaces, and the spaces of cells."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch_geometric.data import Data

Arch = TypeVar("Arch")


@runtime_checkable
class SearchSpace(Protocol[Arch]):
    r"""The architectures that a search may propose.

    Anything with these methods can be searched. :class:`CellSpace` wraps the classes of
    :mod:`narformer_pyg.spaces`.
    """

    #: The name of the space in logs.
    name: str

    def random(self, rng: np.random.Generator) -> Arch:
        """Draws an architecture from the whole space."""

    def mutate(self, architecture: Arch, rng: np.random.Generator) -> Arch:
        """Returns an architecture that differs a little from another."""

    def neighbors(self, architecture: Arch) -> list[Arch]:
        """Returns the architectures one small change away, or some of them; may be empty."""

    def key(self, architecture: Arch) -> str:
        """Returns a text that equals that of every architecture with the same network."""

    def to_data(self, architecture: Arch) -> Data:
        """Returns the architecture as the graph that the predictor reads."""

    def format(self, architecture: Arch) -> str:
        """Returns the architecture as a text, which :meth:`parse` reads."""

    def parse(self, text: str) -> Arch:
        """Reads what :meth:`format` wrote."""


class CellSpace(Generic[Arch]):
    r"""The search space of a class of :mod:`narformer_pyg.spaces`.

    .. code-block:: python

        space = CellSpace(NASBench201Cell)
        cell = space.random(np.random.default_rng(0))

    Searches of a space without a table of labels need a function of yours that trains, measures or
    counts, for instance :obj:`lambda genotype: train(genotype.to_module(auxiliary=True))`.

    Args:
        cell_class (type): A class with :obj:`random`, :obj:`from_str`, :obj:`mutate`,
            :obj:`neighbors`, :obj:`canonical` and :obj:`to_data`, where :obj:`from_str` reads
            :obj:`str`; for instance :class:`~narformer_pyg.spaces.NASBench201Cell`.

    Raises:
        TypeError: If the class lacks one of them.
    """

    _NEEDED = ("random", "from_str", "mutate", "neighbors", "canonical", "to_data")

    def __init__(self, cell_class: type[Arch]) -> None:
        missing = [name for name in self._NEEDED if not callable(getattr(cell_class, name, None))]
        if missing:
            raise TypeError(
                f"Expected 'cell_class' to have the methods {', '.join(self._NEEDED)} (got "
                f"{cell_class!r} without {', '.join(missing)})"
            )
        self._class: Any = cell_class
        self.name = cell_class.__name__

    def random(self, rng: np.random.Generator) -> Arch:
        """Draws a cell with the class's own :obj:`random`."""
        return self._class.random(rng)

    def mutate(self, architecture: Any, rng: np.random.Generator) -> Arch:
        """Returns a mutation of a cell."""
        return architecture.mutate(rng)

    def neighbors(self, architecture: Any) -> list[Arch]:
        """Returns the cells one change away."""
        return list(architecture.neighbors())

    def key(self, architecture: Any) -> str:
        """Returns the text of the canonical form: the same for isomorphic cells."""
        return str(architecture.canonical())

    def to_data(self, architecture: Any) -> Data:
        """Returns the cell as a graph."""
        return architecture.to_data()

    def format(self, architecture: Any) -> str:
        """Returns the cell in its own notation."""
        return str(architecture)

    def parse(self, text: str) -> Arch:
        """Reads a cell in its own notation."""
        return self._class.from_str(text)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name})"


def check_space(space: Any) -> Any:
    """Returns ``space``, or raises a :class:`TypeError` unless it is a search space."""
    if isinstance(space, type) or not isinstance(space, SearchSpace):
        methods = ("random", "mutate", "neighbors", "key", "to_data", "format", "parse", "name")
        missing = [name for name in methods if not hasattr(space, name)]
        raise TypeError(
            "Expected 'space' to be a SearchSpace, for instance CellSpace(NASBench201Cell) (got "
            f"{space!r}{', which lacks ' + ', '.join(missing) if missing else ''})"
        )
    return space
