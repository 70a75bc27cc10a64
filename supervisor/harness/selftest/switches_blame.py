"""Switches at deaths: who is judged, how, who is counted, and what follows."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ....transport.broker import deaths, redelivery
from ....transport.broker.deaths import Deaths
from ....transport.broker.endings import Endings
from ....transport.broker.past import Past
from ....transport.broker.places import Places
from ....transport.broker.quarantine import Quarantine
from ....transport.broker.redelivery import Ending, Verdict
from ....transport.message import MAX_DELIVERIES_DEFAULT, Flag
from .switch import Patch, Switch

_SAFE: Final = int(Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST)


def _forget_to_requeue(_: Any) -> Any:
    def back(self: Any, message: Any) -> None:
        self._desk.release(message)

    return back


def _requeue_twice(original: Any) -> Any:
    def back(self: Any, message: Any) -> None:
        row = message.row
        original(self, message)
        self.append(row.mailbox, message.envelope, publisher=row.publisher, durability=row.durability)

    return back


def _no_delivery_again(_: Any) -> Any:
    def again(self: Any, message: Any, past: Any, *, quarantine: bool) -> None:
        message.past = past
        self._desk.release(message)

    return again


def _count_the_innocent(original: Any) -> Any:
    def ending(self: Any, report: Any, entry: Any, message: Any, evidence: bool) -> Any:
        found = original(self, report, entry, message, evidence)
        return Ending.DIED if found is Ending.BUFFERED else found

    return ending


def _ignore_finished(original: Any) -> Any:
    def ending(self: Any, report: Any, entry: Any, message: Any, evidence: bool) -> Any:
        found = original(self, report, entry, message, evidence)
        return Ending.DIED if found is Ending.FINISHED else found

    return ending


def _blame_stops(original: Any) -> Any:
    def ending(self: Any, report: Any, entry: Any, message: Any, evidence: bool) -> Any:
        found = original(self, report, entry, message, evidence)
        return Ending.DIED if found in (Ending.ORDERLY, Ending.TIMED_OUT) else found

    return ending


def _forget_the_guilty(original: Any) -> Any:
    def judge(ending: Any, flags: int, past: Any, joint: bool, deliveries_max: int) -> Any:
        copy = msgspec.structs.replace(past)
        return original(ending, flags, copy, joint, deliveries_max)

    return judge


def _with_flags(more: int, less: int = 0) -> Any:
    def make(original: Any) -> Any:
        def judge(ending: Any, flags: int, past: Any, joint: bool, deliveries_max: int) -> Any:
            return original(ending, (flags | more) & ~less, past, joint, deliveries_max)

        return judge

    return make


def _joint_is_solo(original: Any) -> Any:
    def judge(ending: Any, flags: int, past: Any, joint: bool, deliveries_max: int) -> Any:
        return original(ending, flags, past, False, deliveries_max)

    return judge


def _bound_moved(by: int) -> Any:
    def make(original: Any) -> Any:
        def bounded(past: Any, deliveries_max: int, *, joint: bool = False) -> Any:
            bound = deliveries_max or MAX_DELIVERIES_DEFAULT
            return original(past, bound + by if bound > 0 else bound, joint=joint)

        return bounded

    return make


def _no_bound(original: Any) -> Any:
    def bounded(past: Any, deliveries_max: int, *, joint: bool = False) -> Any:
        return original(past, -1, joint=joint)

    return bounded


def _no_quarantine(original: Any) -> Any:
    def bounded(past: Any, deliveries_max: int, *, joint: bool = False) -> Any:
        verdict = original(past, deliveries_max, joint=joint)
        return Verdict.AGAIN if verdict is Verdict.QUARANTINE else verdict

    return bounded


def _nothing(_: Any) -> Any:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    return nothing


def _no_letter(_: Any) -> Any:
    def dead(self: Any, message: Any, past: Any, why: str, worker: str) -> None:
        self._fail(message, "PoisonMessage", why, worker, "dead")

    return dead


def _two_letters(original: Any) -> Any:
    def set_aside(self: Any, message: Any, past: Any, text: str) -> None:
        original(self, message, past, text)
        original(self, message, past, text)

    return set_aside


def _dead_and_alive(_: Any) -> Any:
    def dead(self: Any, message: Any, past: Any, why: str, worker: str) -> None:
        self._set_aside(message, past, why)
        message.past = past
        self._places.again(message, self._desk.now.wall)

    return dead


def _no_reason(original: Any) -> Any:
    def set_aside(self: Any, message: Any, past: Any, text: str) -> None:
        original(self, message, past, "")

    return set_aside


def _judge_at_once(original: Any) -> Any:
    def wait(self: Any, session: Any, patience: int) -> None:
        original(self, session, 0)

    return wait


def _lost_goes_back(original: Any) -> Any:
    def judge(ending: Any, flags: int, past: Any, joint: bool, deliveries_max: int) -> Any:
        unknown = ending in (Ending.UNKNOWN, Ending.NODE_LOST)
        return Verdict.BACK if unknown else original(ending, flags, past, joint, deliveries_max)

    return judge


def _finished_goes_back(original: Any) -> Any:
    def judge(ending: Any, flags: int, past: Any, joint: bool, deliveries_max: int) -> Any:
        finished = ending is Ending.FINISHED
        return Verdict.BACK if finished else original(ending, flags, past, joint, deliveries_max)

    return judge


SWITCHES: Final = (
    Switch(
        "forget to requeue",
        "What a dead child held and had not started goes back to its mailbox.",
        ("QUIESCE", "PLACE", "LOSS"),
        Patch(Places, "back", _forget_to_requeue),
    ),
    Switch(
        "requeue twice",
        "What comes back from a child is in its mailbox once.",
        ("AMO", "SPUR", "RESULT"),
        Patch(Places, "back", _requeue_twice),
    ),
    Switch(
        "forget to deliver again",
        "What is to be tried again after a death goes out again.",
        ("QUIESCE", "PLACE"),
        Patch(Deaths, "_again", _no_delivery_again),
    ),
    Switch(
        "count the innocent",
        "A death counts only against what had started in the process that died.",
        ("INNOCENT", "ALO", "LOSS"),
        Patch(Deaths, "_ending", _count_the_innocent),
    ),
    Switch(
        "ignore finished marks",
        "A body that had finished is not blamed for the death that followed.",
        ("INNOCENT",),
        Patch(Deaths, "_ending", _ignore_finished),
    ),
    Switch(
        "blame a time limit on the body as a crash",
        "A process that its parent ended counts as no crash.",
        ("INNOCENT",),
        Patch(Deaths, "_ending", _blame_stops),
    ),
    Switch(
        "forget to count the guilty",
        "A body that takes its process along is counted.",
        ("LIMIT", "QUIESCE"),
        Patch(deaths, "judge", _forget_the_guilty),
    ),
    Switch(
        "early ack redelivered",
        "What is acked early never goes out again after it may have started.",
        ("AMO",),
        Patch(deaths, "judge", _with_flags(_SAFE)),
    ),
    Switch(
        "late ack lost",
        "What is acked late goes out again when its process died.",
        ("ALO", "LOSS", "RESULT"),
        Patch(deaths, "judge", _with_flags(0, _SAFE)),
    ),
    Switch(
        "early ack goes back when its node is lost",
        "A loss without evidence ends what is acked early.",
        ("AMO", "LIMIT"),
        Patch(deaths, "judge", _lost_goes_back),
    ),
    Switch(
        "early ack goes back when it had finished",
        "What has run to its end, and whose outcome is lost, does not run again when it is acked early.",
        ("AMO",),
        Patch(deaths, "judge", _finished_goes_back),
    ),
    Switch(
        "joint death counted as its own",
        "A death together with others is never the last: one trial alone follows.",
        ("POISON",),
        Patch(deaths, "judge", _joint_is_solo),
    ),
    Switch(
        "unlimited redelivery",
        "max_deliveries bounds the deaths that a message may cause.",
        ("LIMIT", "D25"),
        Patch(redelivery, "_bounded", _no_bound),
    ),
    Switch(
        "dead letter one too early",
        "A message has all the deliveries that it was promised.",
        ("POISON",),
        Patch(redelivery, "_bounded", _bound_moved(-1)),
    ),
    Switch(
        "dead letter one too late",
        "A message has no more deliveries than its bound.",
        ("LIMIT",),
        Patch(redelivery, "_bounded", _bound_moved(1)),
    ),
    Switch(
        "quarantine skipped",
        "A suspect runs alone, in a process of its own.",
        ("D25",),
        Patch(redelivery, "_bounded", _no_quarantine),
    ),
    Switch(
        "nobody asks for quarantine children",
        "For suspects that wait, nodes are asked for children.",
        ("QUIESCE",),
        Patch(Quarantine, "_ask", _nothing),
    ),
    Switch(
        "dead letter without its story",
        "A dead letter says what happened to it.",
        ("POISON",),
        Patch(Past, "remember", _nothing),
    ),
    Switch(
        "dead letter without a reason",
        "A dead letter says why it is one.",
        ("POISON",),
        Patch(Endings, "_set_aside", _no_reason),
    ),
    Switch(
        "forget the dead letter",
        "What ends at its bound is kept as a dead letter.",
        ("ALO", "LOSS"),
        Patch(Endings, "dead", _no_letter),
    ),
    Switch(
        "dead letter written twice",
        "A message becomes a dead letter once.",
        ("POISON",),
        Patch(Endings, "_set_aside", _two_letters),
    ),
    Switch(
        "dead letter goes out again",
        "A dead letter is not handed out.",
        ("POISON", "LIMIT"),
        Patch(Endings, "dead", _dead_and_alive),
    ),
    Switch(
        "a lost link is judged at once",
        "Whose link is gone has time to come back before its leases are judged.",
        ("INNOCENT", "SPUR", "LOSS"),
        Patch(Deaths, "_wait", _judge_at_once),
    ),
    Switch(
        "a session that is back is judged",
        "A session that came back in time keeps its leases.",
        ("INNOCENT", "SPUR", "LOSS"),
        Patch(Deaths, "reattached", _nothing),
    ),
    Switch(
        "a loss is never judged",
        "What nobody comes back for is judged in the end.",
        ("QUIESCE", "PLACE"),
        Patch(Deaths, "link_closed", _nothing),
    ),
    Switch(
        "reports are not read",
        "The evidence of a dead child decides what becomes of its leases.",
        ("LIMIT", "INNOCENT", "POISON", "SPUR", "QUIESCE", "ALO"),
        Patch(Deaths, "report", _nothing),
    ),
)
