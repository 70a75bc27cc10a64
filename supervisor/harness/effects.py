"""What user code did outside, as its test records it, and the marks that it leaves in a simulated world.

A fake in the place of a payment service, a mailer or a database calls `record`; the test asks `Effects` what was done,
how often and to whom. An effect is done once it is recorded: a process that is killed at that very moment has done it.

`sometimes` names a thing that good tests have seen happen. How often it came up is counted over all worlds of this
process, so that a run that never saw it can say so. It is also a place where others may have their turn, as
`yield_point` is.

Outside of any world `record` and `yield_point` do nothing, and `sometimes` only counts: fakes and tasks need not ask
where they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final

import msgspec

from ...actors.current import worker_frame
from .realm import Realm, current_realm
from .trace import Kind

#: Keys that a verdict names.
NAMED_MAX: Final = 5
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class Effect(msgspec.Struct, frozen=True):
    """One thing that was done. `at`: microseconds since the world began; `task`: the id of the message whose body did
    it, or nothing."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: int
    lane: str
    task: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether something holds, and if not, why. True in an `assert` if it does."""

    problem: str = ""

    def __bool__(self) -> bool:
        return not self.problem

    def __repr__(self) -> str:
        return f"<{self.problem or 'it holds'}>"


class Effects:
    """What was recorded under one name, or under any, so far; in order."""

    def __init__(self, realm: Realm, name: str | None) -> None:
        self._realm = realm
        self._name = name

    def __iter__(self) -> Iterator[Effect]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: int) -> Effect:
        return self._all()[index]

    def __repr__(self) -> str:
        return f"<{self.count} effects {self._name or 'of any name'}>"

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self)

    def per(self, key: Callable[[Effect], Hashable]) -> dict[Hashable, int]:
        """How many there are of each key, in the order of their first."""
        return dict(Counter(key(effect) for effect in self))

    def at_most_once_per(self, key: Callable[[Effect], Hashable]) -> Verdict:
        """Whether no key comes twice."""
        return self._judge([f"{self._name} was done {n} times for {k!r}" for k, n in self.per(key).items() if n > 1])

    def at_least_once_per(self, key: Callable[[Effect], Hashable], expected: Iterable[Hashable]) -> Verdict:
        """Whether each of the expected keys comes."""
        done = self.per(key)
        return self._judge([f"{self._name} was not done for {k!r}" for k in dict.fromkeys(expected) if k not in done])

    def exactly_once_per(
        self, key: Callable[[Effect], Hashable], expected: Iterable[Hashable] | None = None
    ) -> Verdict:
        """Whether no key comes twice and, if they are given, each of the expected keys comes and no other."""
        verdicts = [self.at_most_once_per(key)]
        if expected is not None:
            wanted = list(expected)
            verdicts.append(self.at_least_once_per(key, wanted))
            others = [f"{self._name} was done for {k!r}" for k in self.per(key) if k not in wanted]
            verdicts.append(self._judge(others))
        return self._judge([verdict.problem for verdict in verdicts if not verdict])

    def _all(self) -> list[Effect]:
        name = self._name
        return [effect for effect in self._realm.effects if name is None or effect.name == name]

    def _judge(self, problems: list[str]) -> Verdict:
        more = [f"and {len(problems) - NAMED_MAX} more"] if len(problems) > NAMED_MAX else []
        return Verdict("; ".join(problems[:NAMED_MAX] + more))


def record(name: str, *args: Any, **kwargs: Any) -> None:
    """Note that this was done outside: from now on it counts, whatever becomes of who did it."""
    realm = current_realm()
    if realm is None or realm.clockwork.closed:
        return
    frame = worker_frame()
    task = "" if frame is None or realm.process is None else frame.request.id or ""
    at = realm.now.boot - realm.trace.began
    realm.effects.append(Effect(name, args, kwargs, at, realm.lane, task))
    facts: dict[str, Any] = {"name": name}
    if args:
        facts["args"] = _shown(args)
    if kwargs:
        facts["kwargs"] = _shown(kwargs)
    if task:
        facts["id"] = task
    realm.trace.note(Kind.EFFECT, realm.lane, **facts)


def yield_point() -> None:
    """Let others have their turn here."""
    realm = current_realm()
    if realm is not None:
        realm.yield_turn()


class Seen(msgspec.Struct):
    """How often one `sometimes` was reached, and how often its condition held."""

    reached: int = 0
    held: int = 0


_seen: dict[str, Seen] = {}


def sometimes(name: str, condition: object = True) -> bool:
    """Count that this place was reached, and whether its condition held; return that."""
    seen = _seen.setdefault(name, Seen())
    seen.reached += 1
    held = bool(condition)
    realm = current_realm()
    if held:
        seen.held += 1
        if realm is not None and not realm.clockwork.closed:
            realm.trace.note(Kind.MARK, realm.lane, name=name)
    if realm is not None:
        realm.yield_turn()
    return held


def seen_sometimes() -> dict[str, Seen]:
    """Return what `sometimes` has counted in this process, by name in order."""
    return {name: _seen[name] for name in sorted(_seen)}


def forget_sometimes() -> None:
    """Count from nothing."""
    _seen.clear()


def _shown(value: object) -> str:
    """In words that are the same in each run."""
    return _ADDRESS.sub("", repr(value))
