"""Switches in workers, clients and pools: pages, consumers, what is said again, and who replaces the dead."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ....actors.worker import consumer, trust
from ....actors.worker.consumer import Consumer
from ....transport.page_marks import Page, RunnerMarks
from ....transport.peer.attachment import Attachment
from ....transport.peer.publisher import Publisher
from ....transport.verbs import Role, Settle
from ...cluster.reports import Reports
from ...pool.machine import PoolMachine
from ...pool.strength import Strength
from .switch import Patch, Switch

_FOR_EVER: Final = 1 << 62


def _kept_nowhere(_: Any) -> Any:
    def put_settle(self: Any, number: int, frame: bytes) -> bool:
        return True

    return put_settle


def _dropped_at_once(original: Any) -> Any:
    def put_settle(self: Any, number: int, frame: bytes) -> bool:
        placed: bool = original(self, number, frame)
        self.drop_settles(number)
        return placed

    return put_settle


# What each runner has begun and not marked, by the id of its marks: these have no room for more.
_begun: Final[dict[int, tuple[int, int]]] = {}


def _started_later(_: Any) -> Any:
    def started(self: Any, position: int, lease: int) -> None:
        _begun[id(self)] = (position, lease)

    return started


def _started_then_finished(original: Any) -> Any:
    def finished(self: Any) -> None:
        if id(self) in _begun:
            position, lease = _begun.pop(id(self))
            at = self._ring + ((self._started & self._mask) << 1)
            self._words[at], self._words[at + 1] = position, lease
            self._started = self._words[self._base] = self._started + 1
        original(self)

    return finished


def _kept_by_the_giver(_: Any) -> Any:
    def take_all_ready(self: Any) -> list[int]:
        return [held.delivery.position for held in self._all_ready()]

    return take_all_ready


def _not_recalled(_: Any) -> Any:
    def recall(self: Any, positions: Any, effects: Any) -> None:
        return None

    return recall


def _no_credit(original: Any) -> Any:
    def take_settle(self: Any) -> Any:
        batch = original(self)
        if batch is not None:
            batch.credit = 0
        return batch

    return take_settle


def _settle_dropped(original: Any) -> Any:
    def add(self: Any, make: Any) -> int:
        made: object = make(0)
        number: int = original(self, make)
        if isinstance(made, Settle) and self._waiting:
            self._waiting.pop()
        return number

    return add


def _not_said_again(role: Role | None) -> Any:
    def make(original: Any) -> Any:
        def welcomed(self: Any, welcome: Any, now: Any) -> Any:
            if role is not None and self.role != role:
                return original(self, welcome, now)
            kept, self._outbox = self._outbox, {}
            try:
                return original(self, welcome, now)
            finally:
                self._outbox = kept

        return welcomed

    return make


def _too_much_forgotten(original: Any) -> Any:
    def forget_up_to(self: Any, number: int) -> None:
        original(self, number + 1_000)

    return forget_up_to


def _nothing_to_resend(_: Any) -> Any:
    def resend(self: Any) -> list[Any]:
        return []

    return resend


def _resent_anew(_: Any) -> Any:
    def resend(self: Any) -> list[Any]:
        batches, self._unconfirmed = self._unconfirmed, {}
        self._unconfirmed_bytes = 0
        for batch in batches.values():
            for chunk in batch.chunks:
                self._lanes[chunk.mailbox].refused.append(chunk)
            for mailbox in batch.lanes:
                self._lanes[mailbox].in_flight -= 1
        again: list[Any] = []
        for lane in self._lanes.values():
            lane.chunks.extendleft(reversed(lane.refused))
            lane.refused = []
        again.extend(self.next_messages(_FOR_EVER))
        return again

    return resend


def _all_confirmed(original: Any) -> Any:
    def confirmed(self: Any, confirm: Any, boot: int) -> Any:
        endings: list[Any] = []
        for number in [*self._unconfirmed]:
            endings += original(self, msgspec.structs.replace(confirm, number=number), boot)
        return endings

    return confirmed


def _no_replacement(original: Any) -> Any:
    def missing(self: Any, roll: Any, current: int) -> Any:
        return original(self, roll, current) if roll._last < self.concurrency else []

    return missing


def _two_replacements(original: Any) -> Any:
    def fork(self: Any, kind: Any, now: int) -> None:
        original(self, kind, now)
        if self._roll._last > self._strength.concurrency:
            original(self, kind, now)

    return fork


def _never_too_many(_: Any) -> Any:
    def too_many(self: Any, roll: Any, current: int) -> None:
        return None

    return too_many


def _no_outbox(original: Any) -> Any:
    def of_child(self: Any, end: Any, evidence: Any) -> None:
        if hasattr(evidence, "outbox"):
            evidence = msgspec.structs.replace(evidence, outbox=[])
        original(self, end, evidence)

    return of_child


def _no_ring(original: Any) -> Any:
    def of_child(self: Any, end: Any, evidence: Any) -> None:
        if hasattr(evidence, "ring"):
            evidence = msgspec.structs.replace(evidence, ring=[])
        original(self, end, evidence)

    return of_child


def _limit_shifted(_: Any) -> Any:
    return _FOR_EVER


SWITCHES: Final = (
    Switch(
        "lose the outbox of a page",
        "What a child has settled stands in its page until the broker has it.",
        ("AMO", "SPUR", "QUIESCE"),
        Patch(Page, "put_settle", _kept_nowhere),
    ),
    Switch(
        "clear the outbox before the answer",
        "A settle stays in the page until the broker has committed it.",
        ("AMO", "SPUR", "QUIESCE"),
        Patch(Page, "put_settle", _dropped_at_once),
    ),
    Switch(
        "mark started after the body",
        "A body is marked as started before it begins.",
        ("AMO", "LIMIT", "QUIESCE"),
        Patch(RunnerMarks, "started", _started_later),
        Patch(RunnerMarks, "finished", _started_then_finished),
    ),
    Switch(
        "report without the ring",
        "The report of a dead child tells what had started.",
        ("AMO", "LIMIT", "QUIESCE"),
        Patch(Reports, "of_child", _no_ring),
    ),
    Switch(
        "report without the outbox",
        "The report of a dead child tells what it had settled.",
        ("AMO", "SPUR", "QUIESCE"),
        Patch(Reports, "of_child", _no_outbox),
    ),
    Switch(
        "reports are not said again",
        "A report that was lost on its way is said again.",
        ("D14", "QUIESCE"),
        Patch(Attachment, "_welcomed", _not_said_again(Role.NODE)),
    ),
    Switch(
        "settles are not said again",
        "A settle that was lost on its way is said again.",
        ("QUIESCE", "AMO"),
        Patch(Attachment, "_welcomed", _not_said_again(Role.CHILD)),
    ),
    Switch(
        "settles are not sent",
        "What a body ended in is told to the broker at once.",
        ("QUIESCE",),
        Patch(Attachment, "add", _settle_dropped),
    ),
    Switch(
        "more is forgotten than was answered",
        "A verb is kept until its own answer has come.",
        ("QUIESCE", "AMO", "SPUR"),
        Patch(Attachment, "_forget_up_to", _too_much_forgotten),
    ),
    Switch(
        "publishes are not said again",
        "A publish whose confirm was lost is said again.",
        ("QUIESCE",),
        Patch(Publisher, "resend", _nothing_to_resend),
    ),
    Switch(
        "publishes are said again under new numbers",
        "A publish keeps its number when it is said again.",
        ("AMO", "SPUR", "QUIESCE", "RESULT"),
        Patch(Publisher, "resend", _resent_anew),
    ),
    Switch(
        "a confirm counts for all",
        "A confirm tells of its own batch only.",
        ("LOSS", "ALO"),
        Patch(Publisher, "confirmed", _all_confirmed),
    ),
    Switch(
        "given back and kept",
        "What a child gives back it does not start.",
        ("AMO", "SPUR", "FENCE"),
        Patch(Consumer, "_take_all_ready", _kept_by_the_giver),
    ),
    Switch(
        "credits lost",
        "A child asks for as much as it can take.",
        ("QUIESCE",),
        Patch(Consumer, "take_settle", _no_credit),
    ),
    Switch(
        "no replacement of dead children",
        "A child that dies is replaced.",
        ("QUIESCE",),
        Patch(Strength, "missing", _no_replacement),
    ),
    Switch(
        "two replacements",
        "A node has as many children as it wants, and no more.",
        ("SUP",),
        Patch(PoolMachine, "_fork", _two_replacements),
        Patch(Strength, "too_many", _never_too_many),
    ),
    Switch(
        "recall ignored",
        "What is recalled is not started.",
        ("FENCE", "AMO"),
        Patch(Consumer, "_recall", _not_recalled),
    ),
    Switch(
        "a child cut off goes on",
        "A child that is out of touch starts nothing.",
        ("FENCE", "AMO"),
        Patch(consumer, "HEARD_MAX", _limit_shifted),
        Patch(consumer, "PAUSE_NOTICED", _limit_shifted),
        Patch(trust, "HEARD_MAX", _limit_shifted),
        Patch(trust, "PAUSE_NOTICED", _limit_shifted),
    ),
)
