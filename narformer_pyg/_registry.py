"""Open registries: classes by the names that configurations and command lines use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


class Registry:
    r"""Classes of one kind by name. Users add theirs with the decorator :meth:`register`.

    Args:
        kind (str): The argument that names a member, for error messages, for instance
            :obj:`"readout"`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._members: dict[str, type] = {}

    def register(self, name: str) -> Callable[[T], T]:
        r"""Returns a class decorator that makes the class known as :obj:`name`.

        Raises:
            ValueError: If another class has the name.
        """

        def decorate(cls: T) -> T:
            known = self._members.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise ValueError(
                    f"Expected the name of a {self.kind} to be new (got {name!r}, the name of "
                    f"{known.__module__}.{known.__qualname__})"
                )
            self._members[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> Any:
        r"""Returns the class called :obj:`name`.

        Raises:
            ValueError: If there is none; the message lists the names.
        """
        if name not in self._members:
            raise ValueError(
                f"Expected '{self.kind}' to be among {', '.join(self._members)} (got {name!r})"
            )
        return self._members[name]

    def name_of(self, member: Any) -> str:
        r"""Returns the name of the class of :obj:`member`, an instance.

        Raises:
            ValueError: If its class was never registered.
        """
        for name, cls in self._members.items():
            if type(member) is cls:
                return name
        raise ValueError(
            f"Expected '{self.kind}' to be of a registered class (got {type(member).__name__}); "
            f"decorate the class with the 'register' of its registry"
        )

    def names(self) -> list[str]:
        """Returns all names, in the order of registration."""
        return list(self._members)
