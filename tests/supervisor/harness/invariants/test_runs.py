"""Invariants that events alone can judge: each catches a log of what must not be."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.supervisor.harness.invariants import Violated, make
from greenroom.supervisor.harness.trace import Event, Kind

DELIVER = (Kind.DELIVER, {"id": "a", "to": "w1/1", "position": 1, "lease": 1, "task": "t"})
DEAD = (Kind.DEAD, {"id": "a", "mailbox": "celery", "position": 1, "reason": "it dies"})


def judge(name: str, *events: tuple[Kind, dict[str, Any]]) -> int:
    """Let one invariant judge a log; return how often it had occasion to be broken."""
    (invariant,) = make([name], by_events=True)
    for at, (kind, facts) in enumerate(events):
        invariant.on_event(Event(at, kind, "broker", facts))
    invariant.at_end()
    return invariant.premises


def test_poison_catches_a_dead_letter_that_is_dead_twice_or_without_a_reason_or_handed_out() -> None:
    assert judge("POISON", DELIVER, DEAD) == 1
    with pytest.raises(Violated, match="a became a dead letter a second time"):
        judge("POISON", DEAD, DEAD)
    with pytest.raises(Violated, match="nobody says why"):
        judge("POISON", (Kind.DEAD, {**DEAD[1], "reason": ""}))
    with pytest.raises(Violated, match="w1/1 gets it"):
        judge("POISON", DEAD, DELIVER)


def test_result_catches_a_client_that_is_told_something_else_than_what_is_stored() -> None:
    stored = (Kind.STORED, {"id": "a", "state": "SUCCESS"})
    assert judge("RESULT", stored, (Kind.RESULT, {"id": "a", "state": "SUCCESS"})) == 2
    with pytest.raises(Violated, match="a was SUCCESS and is told to broker as FAILURE"):
        judge("RESULT", stored, (Kind.RESULT, {"id": "a", "state": "FAILURE"}))


def test_spur_catches_a_second_delivery_before_which_nothing_had_happened() -> None:
    assert judge("SPUR", DELIVER, (Kind.DEATH, {}), DELIVER) == 2
    assert judge("SPUR", DELIVER, (Kind.RETURN, {"positions": [1]}), DELIVER) == 2
    with pytest.raises(Violated, match="a is delivered again, to w1/1, and nothing had happened"):
        judge("SPUR", DELIVER, (Kind.RETURN, {"positions": [2]}), DELIVER)
