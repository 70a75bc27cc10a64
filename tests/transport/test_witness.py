"""The broker's witness: what of the verbs, records and effects that pass through a driver becomes an event."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from greenroom.transport.broker.events import (
    CloseLink,
    Frame,
    LinksClosed,
    Notice,
    PagesRead,
    Persist,
    Persisted,
    PersistFailed,
    Received,
    Send,
    Stop,
)
from greenroom.transport.clock import Now
from greenroom.transport.codec import BadFrame
from greenroom.transport.event_log import EventLog, Facts, event_of
from greenroom.transport.message import Delivery, Envelope, Failure, More, Outcome, Result, State
from greenroom.transport.store.records import Dead, Purge, Record, ResultRow, Synchronous
from greenroom.transport.verbs import (
    Applied,
    Confirm,
    Deliver,
    FromBroker,
    Goodbye,
    Group,
    Hello,
    Known,
    Publish,
    Report,
    Results,
    Return,
    RingEntry,
    Role,
    Settle,
    ToBroker,
    Welcome,
)
from greenroom.transport.wire.witness import Witness

CLIENT, NODE, CHILD = "client-000000c1", "worker-000000d1", "worker-000000d1/2"
SESSIONS = {1: ("c-000000c1", Role.CLIENT), 2: ("n-000000d1", Role.NODE), 3: ("n-000000d1/2", Role.CHILD)}
WELCOME = Welcome(1, "b", 1, 0, 1 << 20)


class Told:
    """A witness with three peers, and what it has written since it was last looked at."""

    def __init__(self, path: Path) -> None:
        self.time = 10
        self._path = path
        self._read = 0
        self.witness = Witness(EventLog(str(path), "broker", self._clock), self._clock)
        for link, (session, role) in SESSIONS.items():
            self.hears(link, Hello(1, role, "node", session, 1, 1, "host", 100 + link))
            self.says(link, WELCOME)
        self.told()

    def _clock(self) -> Now:
        return Now(self.time, 0)

    def hears(self, link: int, *verbs: ToBroker) -> None:
        self.witness.hears(Received([Frame(link, list(verbs), [])]))

    def says(self, link: int, *verbs: FromBroker) -> None:
        self.witness.does([Send(link, list(verbs))])

    def persists(self, serial: int, *records: Record) -> None:
        self.witness.does([Persist(serial, list(records), Synchronous.FULL)])

    def told(self) -> list[tuple[str, str, Facts]]:
        self.witness.flush()
        lines = self._path.read_bytes().splitlines()[self._read :]
        self._read += len(lines)
        return [(str(event.kind), event.lane, event.facts) for event in map(event_of, lines)]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "log")


def publish(number: int, *ids: str, more: More | None = None) -> Publish:
    envelopes = [Envelope(id, "shop.charge", "msgpack", b"", flags=3, more=more) for id in ids]
    return Publish(0, number, 0, [Group("celery", len(ids), msgspec.Raw(msgspec.msgpack.encode(envelopes)))])


def test_a_publish_is_told_with_its_messages_and_its_confirm_with_their_ids(told: Told) -> None:
    told.hears(1, publish(1, "a", "b", more=More(max_deliveries=2)), publish(2, "c"))
    told.says(1, Confirm(0, 1, 1), Confirm(0, 1, 2, refusal=1), Confirm(0, 1, 3))
    first, second, confirmed, refused = told.told()
    facts = {"mailbox": "celery", "tasks": ["shop.charge"] * 2, "ids": ["a", "b"], "flags": [3, 3], "bounds": [2, 2]}
    assert first == ("publish", CLIENT, facts)
    assert second[2]["bounds"] == [0]
    assert confirmed == ("confirm", CLIENT, {"ids": ["a", "b"], "durability": "DISK"})
    assert refused[2] == {"ids": ["c"], "durability": "DISK", "error": "MAILBOX_FULL"}


def test_what_was_not_answered_on_a_link_is_answered_after_it_was_said_again(told: Told) -> None:
    told.hears(1, publish(1, "a"))
    told.witness.hears(LinksClosed([1]))
    told.hears(4, Hello(1, Role.CLIENT, "node", SESSIONS[1][0], 1, 2))
    told.says(4, WELCOME, Confirm(0, 1, 1))
    assert [kind for kind, _, _ in told.told()] == ["publish", "detached", "attached"]
    told.hears(4, publish(1, "a"))
    told.says(4, Confirm(0, 1, 1))
    assert [kind for kind, _, _ in told.told()] == ["publish", "confirm"]


def test_a_delivery_and_what_became_of_it_are_told(told: Told) -> None:
    envelope = Envelope("a", "shop.charge", "msgpack", b"")
    told.says(3, Deliver(0, 1, 7, [Delivery(5, envelope, "celery")]))
    told.hears(3, Settle(1, [Outcome(5, 7, State.SUCCESS), Outcome(6, 7, State.RETRY)]), Return(2, [8, 9], 1, [7, 7]))
    told.says(3, Applied(1))
    told.says(1, Results([Known("a", State.SUCCESS, b"")]))
    assert told.told() == [
        ("deliver", "broker", {"to": CHILD, "id": "a", "task": "shop.charge", "position": 5, "lease": 7}),
        ("settle", CHILD, {"number": 1, "positions": [5, 6], "states": ["SUCCESS", "RETRY"]}),
        ("return", CHILD, {"positions": [8, 9]}),
        ("applied", "broker", {"to": CHILD, "number": 1}),
        ("result", CLIENT, {"id": "a", "state": "SUCCESS"}),
    ]


def result_row(id: str, state: State, failure: Failure | None = None) -> ResultRow:
    return ResultRow(id, state, msgspec.msgpack.encode(Result(state, failure=failure)), 0)


DEAD = Dead(5, "p", "celery", "shop.poison", "it kills", 0, b"", b"")


def test_what_is_persisted_is_told_when_it_is_committed_and_dead_letters_before_as_well(told: Told) -> None:
    lost = Failure("WorkerLostError", "x", b"", "lost")
    told.persists(
        1, result_row("a", State.SUCCESS), result_row("b", State.STARTED), result_row("c", State.FAILURE, lost)
    )
    told.persists(2, DEAD, Purge("celery", []))
    assert told.told() == [("write", "broker", {"number": 2, "dead": ["p"]})]
    told.witness.hears(Persisted(1))
    assert told.told() == [
        ("commit", "broker", {"number": 1}),
        ("result stored", "broker", {"id": "a", "state": "SUCCESS"}),
        ("result stored", "broker", {"id": "c", "state": "FAILURE", "failure": "WorkerLostError"}),
    ]
    told.witness.hears(Persisted(2))
    dead = {"id": "p", "mailbox": "celery", "position": 5, "reason": "it kills"}
    assert told.told()[1:] == [("dead", "broker", dead), ("purged", "broker", {"mailbox": "celery"})]


def test_what_found_no_room_is_not_told(told: Told) -> None:
    told.persists(1, result_row("a", State.SUCCESS))
    told.persists(2, result_row("b", State.SUCCESS))
    told.witness.hears(PersistFailed(2, 2, True, "full"))
    told.witness.hears(Persisted(3))
    assert [facts.get("id") for kind, _, facts in told.told() if kind == "result stored"] == ["a"]


REPORT = Report(1, SESSIONS[3][0], signal=9, ring=[RingEntry(5, 7, False), RingEntry(6, 7, True)])


def test_the_death_of_a_child_is_told_by_whoever_reports_it_with_what_ran(told: Told) -> None:
    told.hears(2, REPORT)
    told.witness.hears(PagesRead("node", [msgspec.structs.replace(REPORT, node_lost=True, signal=0)]))
    facts = {"session": CHILD, "how": "signal 9", "positions": [5], "node_lost": False}
    assert told.told() == [
        ("report", NODE, facts),
        ("report", "broker", {**facts, "how": "unknown", "node_lost": True}),
    ]


ENDS: list[Callable[[Told], None]] = [
    lambda told: told.witness.hears(LinksClosed([3])),
    lambda told: told.witness.does([CloseLink(3, "it is silent")]),
    lambda told: told.hears(3, Goodbye("over")),
]


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_link_is_told_once_however_it_came(told: Told, end: Callable[[Told], None]) -> None:
    end(told)
    told.witness.hears(LinksClosed([3]))
    ((kind, lane, facts),) = told.told()
    assert (kind, lane, facts["to"]) == ("detached", "broker", CHILD)


def test_the_end_of_an_older_link_is_no_news(told: Told) -> None:
    told.hears(9, Hello(1, Role.CHILD, "node", SESSIONS[3][0], 1, 2))
    told.says(9, WELCOME)
    told.witness.hears(LinksClosed([3]))
    assert [kind for kind, _, _ in told.told()] == ["attached"]


def test_noise_is_not_told(told: Told) -> None:
    told.witness.hears(Received([Frame(1, BadFrame("noise"), []), Frame(77, [Return(1, [1], 1, [1])], [])]))
    told.hears(1, Publish(0, 5, 0, [Group("celery", 1, msgspec.Raw(b"\x01"))]))
    told.says(77, Applied(1))
    assert told.told() == []


def test_a_life_of_a_broker_has_a_beginning_and_says_what_it_leaves(told: Told) -> None:
    told.witness.begins("b", 4)
    told.witness.does([Notice("dead_letter", {"id": "a"})])
    assert told.told() == [
        ("broker up", "broker", {"name": "b", "epoch": 4}),
        ("notice", "broker", {"notice": "dead_letter", "fields": {"id": "a"}}),
    ]
    told.witness.ends(Stop(0, "drained", 3))
    assert told.told() == [("log", "broker", {"closed": "the broker stops: drained", "unsettled": 3})]


def test_a_broker_that_fails_does_not_say_what_it_leaves(told: Told) -> None:
    told.witness.ends(Stop(1, "the disk failed"))
    assert told.told() == [("log", "broker", {"closed": "the broker stops: the disk failed"})]
