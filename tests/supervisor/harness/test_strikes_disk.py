"""Damage of the broker's store: it is found at the next start, told in words, and mended by a good copy."""

from __future__ import annotations

import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness.drawing import Plan
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.sim import Sim, simulated
from greenroom.supervisor.harness.trace import Kind

app = App("damage", set_as_current=False)


@app.task(name="add", acks_late=True, reject_on_worker_lost=True)
def add(number: int) -> int:
    return number + 1


def last_words(sim: Sim) -> list[str]:
    return [
        e.facts["how"] for e in sim.trace.events if e.kind is Kind.DEATH and e.lane == "broker" and "how" in e.facts
    ]


def lives(sim: Sim) -> int:
    return sum(event.kind is Kind.BROKER_UP for event in sim.trace.events)


def test_a_log_that_was_cut_short_keeps_the_broker_down_until_a_good_copy_is_there() -> None:
    plan = Plan(children=2, faults=(Fault(What.TRUNCATED_TAIL, Anchor(Kind.SETTLE, 2), seconds=1),))
    with simulated(app, plan, store="sqlite") as sim:
        sent = [sim.send(add, number) for number in range(4)]
        sim.settle()
        (words,) = last_words(sim)
        assert "its log was damaged or cut short" in words
        assert "Restore the whole folder from a backup" in words
        assert [one.result for one in sent] == [1, 2, 3, 4]


@pytest.mark.parametrize("which", range(6))
def test_a_bit_that_has_turned_over_is_found_or_harms_nothing(which: int) -> None:
    plan = Plan(faults=(Fault(What.BIT_FLIP, Anchor(Kind.SETTLE, 1 + which), seconds=1),), jitter=which)
    with simulated(app, plan, store="sqlite") as sim:
        sent = [sim.send(add, number) for number in range(8)]
        sim.settle()
        assert all("damaged" in words for words in last_words(sim))
        assert lives(sim) == 2 or last_words(sim)
        assert [one.result for one in sent] == list(range(1, 9))


def test_a_store_whose_folder_is_gone_begins_with_nothing_and_nobody_hangs() -> None:
    plan = Plan(faults=(Fault(What.FOLDER_GONE, Anchor(Kind.SETTLE), seconds=1),))
    with simulated(app, plan, store="sqlite") as sim:
        sim.send(add, 1)
        sim.run_for(10)
        sim.settle()
        assert lives(sim) == 2
        assert sim.send(add, 2).get(timeout=10) == 3
