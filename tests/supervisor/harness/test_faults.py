"""Faults: each kind happens at its anchor, and what was accepted survives it."""

from __future__ import annotations

import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness import faults
from greenroom.supervisor.harness.drawing import Plan
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.sim import simulated
from greenroom.supervisor.harness.trace import Kind

app = App("faults", set_as_current=False)


@app.task(name="add", acks_late=True, reject_on_worker_lost=True)
def add(number: int) -> int:
    return number + 1


@pytest.mark.parametrize("what", [what for what in What if what not in (*faults.NOT_BY_DEFAULT, What.DIE_IN_COMMIT)])
def test_a_fault_happens_at_its_anchor_and_every_task_is_done_all_the_same(what: What) -> None:
    with simulated(app, Plan(nodes=2, children=2, faults=(Fault(what, Anchor(Kind.STARTED, 2)),))) as sim:
        sent = [sim.send(add, number) for number in range(6)]
        sim.settle()
        assert [fault.what for fault in sim.injector.done] == [what]
        assert [one.result for one in sent] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("what", [What.DIE_IN_COMMIT, What.SYNC_FAILS, What.POWER_LOSS, What.KILL_BROKER])
def test_the_real_store_keeps_what_was_accepted(what: What) -> None:
    plan = Plan(children=2, faults=(Fault(what, Anchor(Kind.SETTLE)),))
    with simulated(app, plan, store="sqlite") as sim:
        sent = [sim.send(add, number) for number in range(4)]
        sim.settle()
        assert [one.result for one in sent] == [1, 2, 3, 4]
        assert sum(event.kind is Kind.BROKER_UP for event in sim.trace.events) == 2


def test_a_full_disk_refuses_calls_and_says_so() -> None:
    with simulated(app, Plan(faults=(Fault(What.DISK_FULL, Anchor(Kind.PUBLISH)),))) as sim:
        sent = sim.send(add, 1)
        sim.settle()
        assert (sent.accepted, sent.refused) == (False, "StoreFull")
        sim.run_for(2)  # the broker looks for room once a second
        assert sim.send(add, 2).get(timeout=10) == 3


def test_an_anchor_of_a_task_counts_that_task_only() -> None:
    with simulated(app, Plan()) as sim:
        sim.send(add, 1)
        second = sim.send(add, 2)
        sim.at("SETTLE", task=second).kill()
        sim.settle()
        fault = next(event for event in sim.trace.events if event.kind is Kind.FAULT)
        before = [event.facts["id"] for event in sim.trace.events if event.kind is Kind.RAN and event.at <= fault.at]
        assert before[-1] == second.id
