"""Switches at handing out: in which order, when, to whom and how much; and at links that come and go."""

from __future__ import annotations

from typing import Any, Final

from ....transport.broker.desk import Desk
from ....transport.broker.endings import Endings
from ....transport.broker.events import RowsRead
from ....transport.broker.leasing import Leasing
from ....transport.broker.links import Links
from ....transport.broker.mailbox import Lane
from ....transport.broker.rows import Rows
from ....transport.broker.schedule import Schedule
from ....transport.broker.sessions import Session
from ....transport.broker.settling import Settling
from ....transport.verbs import Deliver
from .switch import Patch, Switch

_SECOND: Final = 1_000_000


def _nothing(_: Any) -> Any:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    return nothing


def _last_first(original: Any) -> Any:
    def append(self: Any, row: Any, messages: Any) -> None:
        self.after = row.base
        for message in messages:
            self.head.appendleft(message)
            self.bytes += len(message.envelope.body)

    return append


def _backwards(original: Any) -> Any:
    def read(self: Any, event: Any) -> None:
        lane = self._reads.get(event.token, (None,))[0]
        original(self, RowsRead(event.token, event.rows[::-1]))
        if lane is not None and event.rows:
            lane.after = event.rows[-1].base

    return read


def _one_lost(original: Any) -> Any:
    def take_due(self: Any, wall: int) -> Any:
        return original(self, wall)[:1]

    return take_due


def _early(original: Any) -> Any:
    def take_due(self: Any, wall: int) -> Any:
        return original(self, wall + _SECOND)

    return take_due


def _never_over(original: Any) -> Any:
    def before_start(self: Any, message: Any) -> bool:
        more = message.envelope.more
        if more is not None and 0 < more.expires <= self._desk.now.wall:
            return False
        ended: bool = original(self, message)
        return ended

    return before_start


def _any_room(_: Any) -> Any:
    return property(lambda self: 64 if self.open else 0)


def _any_slots(_: Any) -> Any:
    return property(lambda self: 64)


def _to_two(original: Any) -> Any:
    def say(self: Any, session: Any, lease: Any, deliveries: Any, size: int) -> None:
        original(self, session, lease, deliveries, size)
        desk = self._desk
        for other in desk.sessions.values():
            if other is not session and other.open:
                desk.journal.say(other, Deliver(desk.partition, desk.epoch, lease.id, deliveries), other.link, size)

    return say


def _all_is_held(_: Any) -> Any:
    def reconcile(self: Any, session: Any, verb: Any) -> list[int]:
        for message in session.held.values():
            if message.lease is not None:
                message.lease.link = session.link
        return []

    return reconcile


def _nothing_is_held(original: Any) -> Any:
    def reconcile(self: Any, session: Any, verb: Any) -> Any:
        verb.held.clear()
        return original(self, session, verb)

    return reconcile


SWITCHES: Final = (
    Switch(
        "order of first deliveries broken",
        "What came first goes out first.",
        ("ORDER",),
        Patch(Lane, "append", _last_first),
    ),
    Switch(
        "rows are read backwards",
        "What comes from the store goes out in the order in which it came.",
        ("ORDER",),
        Patch(Rows, "read", _backwards),
    ),
    Switch(
        "ETA early",
        "Nothing goes out before it is due.",
        ("TIME",),
        Patch(Schedule, "take_due", _early),
    ),
    Switch(
        "expiry ignored",
        "Nothing goes out that has expired.",
        ("TIME",),
        Patch(Endings, "before_start", _never_over),
    ),
    Switch(
        "one due message forgotten",
        "Everything that is due leaves the schedule.",
        ("PLACE", "QUIESCE"),
        Patch(Schedule, "take_due", _one_lost),
    ),
    Switch(
        "window ignored",
        "Nobody is given more than he has asked for.",
        ("CREDIT",),
        Patch(Session, "room", _any_room),
    ),
    Switch(
        "slots ignored",
        "What is not known to be short waits for a free slot.",
        ("CREDIT",),
        Patch(Session, "free_slots", _any_slots),
    ),
    Switch(
        "a lease to two children",
        "A delivery goes to the holder of its lease only.",
        ("D7", "AMO"),
        Patch(Leasing, "_say", _to_two),
    ),
    Switch(
        "room that is regained is not seen",
        "Who gains room is given what waits for it.",
        ("PLACE", "QUIESCE"),
        Patch(Desk, "wake", _nothing),
    ),
    Switch(
        "what is given back is not taken",
        "What a child gives back returns to its mailbox.",
        ("QUIESCE", "PLACE"),
        Patch(Settling, "give_back", _nothing),
    ),
    Switch(
        "a child that comes back is not asked what it holds",
        "What was underway to a child on its old link goes out again.",
        ("QUIESCE", "SPUR"),
        Patch(Links, "_reconcile", _all_is_held),
    ),
    Switch(
        "what a child says that it holds is not read",
        "What a child still holds when it comes back stays with it.",
        ("SPUR", "AMO"),
        Patch(Links, "_reconcile", _nothing_is_held),
    ),
)
