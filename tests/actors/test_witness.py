"""A child's witness: starts and ends of bodies, each written at once."""

from __future__ import annotations

from pathlib import Path

from greenroom.actors.worker.events import Held
from greenroom.actors.worker.witness import BodyWitness
from greenroom.transport.clock import Now
from greenroom.transport.event_log import EventLog, Kind, event_of
from greenroom.transport.message import Delivery, Envelope, Outcome, State
from greenroom.transport.message import Kind as MessageKind

LANE = "worker-1/2"


def clock() -> Now:
    return Now(5, 6)


def test_a_body_is_told_when_it_starts_and_when_it_is_over_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "log"
    witness = BodyWitness(EventLog(str(path), LANE, clock), LANE)
    envelope = Envelope("a", "Counter.bump", "msgpack", b"", flags=1, kind=MessageKind.ACTOR)
    witness.started(Held(Delivery(7, envelope, "celery", 2), 9))
    started = event_of(path.read_bytes().splitlines()[1])
    assert (started.kind, started.lane, started.at) == (Kind.STARTED, LANE, 5)
    facts = {"id": "a", "task": "Counter.bump", "position": 7, "delivery": 2, "flags": 1, "of": "ACTOR"}
    assert started.facts == facts
    witness.finished(Outcome(8, 9, State.SUCCESS))
    witness.finished(Outcome(7, 9, State.REQUEUED))
    witness.finished(Outcome(7, 9, State.SUCCESS))
    (ran,) = [event_of(line) for line in path.read_bytes().splitlines()[2:]]
    assert ran.kind is Kind.RAN
    assert ran.facts == {"id": "a", "task": "Counter.bump", "position": 7, "state": "REQUEUED"}
