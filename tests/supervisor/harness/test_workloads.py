"""Loads and tasks that misbehave: a cluster takes them, and tells what came of each."""

from __future__ import annotations

from greenroom.actors.app import App
from greenroom.supervisor.harness.drawing import Plan
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.sim import simulated
from greenroom.supervisor.harness.trace import Kind
from greenroom.supervisor.harness.workloads import HUGE_BYTES, Misbehaving, burst, huge, many_mailboxes

app = App("workloads", set_as_current=False)
bad = Misbehaving(app)


@app.task(name="length", acks_late=True, reject_on_worker_lost=True)
def length(body: bytes = b"") -> int:
    return len(body)


def test_a_burst_is_done_though_the_consumer_stops_reading_meanwhile() -> None:
    with simulated(app, Plan(children=2, faults=(Fault(What.STALL, Anchor(Kind.DELIVER, 5), seconds=8),))) as sim:
        sent = burst(sim, length, 300)
        sim.settle()
        assert {one.result for one in sent} == {0}


def test_a_payload_over_a_frames_limit_arrives_whole_and_again_after_a_death() -> None:
    with simulated(app) as sim:
        sim.at("STARTED").kill()
        sent = huge(sim, length)
        sim.settle()
        assert (sent.result, sent.starts) == (HUGE_BYTES, 2)


def test_many_mailboxes_outlast_the_broker() -> None:
    with simulated(app) as sim:
        many_mailboxes(sim, length, 500)
        sim.run_for(5)
        sim.world.kill_broker()
        sim.world.restart_broker()
        sim.run_for(5)
        assert len([name for name in sim.world.mailboxes if name.startswith("mailbox ")]) == 500


def test_each_task_that_misbehaves_has_an_end_of_its_own() -> None:
    with simulated(app, Plan(children=2)) as sim:
        tasks = (bad.poison, bad.hang, bad.fail, bad.unserialisable, bad.leak)
        poison, hang, fail, unserialisable, leak = (sim.send(task) for task in tasks)
        sim.settle()
        assert poison.is_dead
        assert poison.starts == 2
        assert type(hang.result).__name__ == "TimeLimitExceeded"
        assert isinstance(fail.result, ValueError)
        assert unserialisable.state == "FAILURE"
        assert leak.result == 1
