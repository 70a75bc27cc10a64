"""A switch: it turns off one safeguard of the production code, for as long as it is on.

Owns how classes, modules and tables of production code are changed from outside and brought back. Production code
knows nothing of switches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

#: Makes what stands in its place for a while, of what is there.
Make = Callable[[Any], Any]


class Patch:
    """One attribute of a class or module, or one entry of a table, and what shall stand there instead."""

    def __init__(self, owner: Any, name: Any, make: Make) -> None:
        self.owner = owner
        self.name = name
        self.make = make

    @property
    def table(self) -> Any:
        """Where it stands: the table itself, or the attributes of its owner."""
        if self._is_table():
            return self.owner
        return getattr(self.owner, "__dict__")  # noqa: B009 - as `vars`, which no type checker knows of Any

    def _is_table(self) -> bool:
        return isinstance(self.owner, dict)

    def put(self, value: Any) -> None:
        """Let this stand there."""
        if self._is_table():
            self.owner[self.name] = value
        else:
            setattr(self.owner, self.name, value)

    def words(self) -> str:
        """Say what is patched."""
        owner = "table" if isinstance(self.owner, dict) else self.owner.__name__.rpartition(".")[2]
        return f"{owner}.{getattr(self.name, '__name__', self.name)}"


class Switch:
    """One sabotage, or one harmless change."""

    def __init__(self, name: str, safeguard: str, caught_by: Sequence[str], *patches: Patch) -> None:
        """`safeguard`: the sentence that is not true any more. `caught_by`: the invariants that may see it first;
        none of a harmless change."""
        self.name = name
        self.safeguard = safeguard
        self.caught_by = tuple(caught_by)
        self.patches = patches

    @property
    def is_benign(self) -> bool:
        """Whether nobody may raise an alarm."""
        return not self.caught_by

    @contextmanager
    def on(self) -> Generator[None]:
        """Turn it on for a while. Raises KeyError when production code has no such place."""
        before: list[tuple[Patch, Any]] = []
        try:
            for patch in self.patches:
                original = patch.table[patch.name]
                before.append((patch, original))
                patch.put(patch.make(original))
            yield
        finally:
            for patch, original in reversed(before):
                patch.put(original)
