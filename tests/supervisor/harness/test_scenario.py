"""Scenarios: exact scripts, the moments that they name, and the plugin through which a user meets all of it."""

from __future__ import annotations

import time

import pytest

from greenroom.actors.app import App
from greenroom.actors.errors import TimeoutError as ResultTimeout
from greenroom.supervisor.harness.client import SimClient
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.invariants import Violated
from greenroom.supervisor.harness.scenario import scenario
from greenroom.supervisor.harness.sim import Sim
from greenroom.supervisor.harness.trace import Kind
from greenroom.transport.errors import UnknownOutcome

pytest_plugins = ["pytester"]

app = App("scenario shop", set_as_current=False)
charged: list[int] = []


@app.task(name="charge", acks_late=True, reject_on_worker_lost=True)
def charge(order: int) -> int:
    charged.append(order)
    return order


@app.task(name="hold", acks_late=True)
def hold(seconds: float) -> None:
    time.sleep(seconds)


@pytest.fixture(autouse=True)
def _nobody_was_charged() -> None:
    charged.clear()


@scenario(app)
def test_an_ack_that_is_lost_after_the_result_was_stored_makes_no_second_run(sim: Sim) -> None:
    sent = sim.send(charge, 1)
    sim.at("RESULT_STORED", task=sent).drop("ACK")
    sim.settle()
    assert sent.state == "SUCCESS"
    assert (sent.starts, sent.result_writes) == (1, 1)
    assert [fault.what for fault in sim.injector.done] == [What.DROP]


@scenario(app, workers=2)
def test_what_a_killed_worker_had_done_and_not_told_is_done_by_another(sim: Sim) -> None:
    sent = sim.send(charge, 1)
    sim.at("RAN", task=sent).kill(sim.worker_of(sent))
    sim.settle()
    assert charged == [1, 1]
    assert (sent.state, sent.deliveries) == ("SUCCESS", 2)


@scenario(app)
def test_a_settle_that_is_lost_with_its_link_is_said_again(sim: Sim) -> None:
    sent = sim.send(charge, 1)
    sim.at("SETTLE", task=sent).drop()
    sim.settle()
    assert (sent.state, sent.starts) == ("SUCCESS", 1)


@scenario(app, store="sqlite")
def test_what_was_accepted_survives_a_power_cut(sim: Sim) -> None:
    sent = sim.send(charge, 1)
    sim.at("DELIVER", task=sent).fault(What.POWER_LOSS)
    sim.settle()
    assert sent.accepted
    assert sent.state == "SUCCESS"


@scenario(app, clients=2)
def test_a_client_that_is_killed_as_it_sends_leaves_the_others_alone(sim: Sim) -> None:
    lost = sim.client(0).send(charge, 1)
    sim.client(0).kill()
    sent = sim.client(1).send(charge, 2)
    sim.settle()
    assert not lost.accepted
    assert sent.state == "SUCCESS"


@scenario(app, workers=2)
def test_g22_while_a_worker_is_stopped_its_children_keep_nothing_from_the_other_worker(sim: Sim) -> None:
    sim.worker(0).pause(seconds=60)
    # Its child was left alone for a while, and its node is deaf for as long as it needs to hear.
    sim.run_for(20)
    sent = [sim.send(charge, order) for order in range(4)]
    sim.run_for(10)
    assert [one.state for one in sent] == ["SUCCESS"] * 4
    sim.run_for(40)
    later = [sim.send(charge, order) for order in range(20)]
    sim.settle()
    # Both work again.
    assert len({sim.worker_of(one).process.lane for one in later}) == 2


@scenario(app, workers=2)
def test_g22_what_was_on_its_way_to_the_child_of_a_stopped_worker_goes_to_the_other_worker(sim: Sim) -> None:
    sim.world.pause(sim.worker(0).process)
    # Just before the child may know: it has credit still.
    sim.run_for(5.9)
    held = [sim.send(hold, 0.2), sim.send(hold, 0.2)]
    sim.run_for(0.05)
    sent = [sim.send(charge, order) for order in range(4)]
    sim.run_for(10)
    assert [one.state for one in held + sent] == ["SUCCESS"] * 6
    sim.settle()


@scenario(app)
def test_who_waits_for_a_call_that_was_lost_with_its_client_does_not_keep_a_cluster_from_its_rest(sim: Sim) -> None:
    sim.at("PUBLISH").fault(What.KILL_CLIENT)
    lost = sim.send(charge, 1)
    with pytest.raises(ResultTimeout):
        lost.get(timeout=20)
    sim.settle()
    assert charged == []


@scenario(app, clients=2)
def test_who_waits_for_a_confirm_with_which_its_client_is_killed_learns_that_nobody_knows(sim: Sim) -> None:
    sim.at("CONFIRM").fault(What.KILL_CLIENT)
    with pytest.raises(UnknownOutcome):
        charge.delay(1)
    sim.settle()
    assert charged == [1]


@app.task(name="ask in vain", acks_late=True)
def ask_in_vain() -> None:
    app.ref("Nobody", "home").ask("anything").get(timeout=30)


@scenario(app)
def test_a_body_that_waits_for_so_long_waits_by_the_clock_of_its_host_however_that_drifts(sim: Sim) -> None:
    sent = sim.send(ask_in_vain)
    # Slower than the others: what it takes for its time is longer than theirs.
    sim.injector.arm(Fault(What.CLOCK_DRIFTS, Anchor(Kind.STARTED, task=sent.id), 0, 60.0))
    sim.run_for(60)
    assert sent.state == "FAILURE"
    sim.world.operator.purge("actor:Nobody:home")
    sim.settle()


def learns_nothing(*_: object) -> None:
    """What a client does that is told and takes no notice."""


@scenario(app)
def test_a_result_that_somebody_waits_for_and_is_not_told_of_is_seen(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimClient, "_learn", learns_nothing)
    sent = sim.send(charge, 1)
    sim.world.client(0).result_future(sent.id)
    with pytest.raises(Violated, match="QUIESCE: 0 messages were not finished, client0 was not told of"):
        sim.watch.settle()
    # It was seen.
    sim.watch.violation = None


@scenario(app)
def test_a_moment_that_there_is_not_is_named_with_those_that_there_are(sim: Sim) -> None:
    with pytest.raises(ValueError, match="there is no moment 'STARTS'; there are PUBLISH"):
        sim.at("STARTS")


EXAMPLE = """
    from greenroom import App
    from greenroom.testing import simulate
    from hypothesis import strategies as st

    app = App("shop", set_as_current=False)
    charged = []

    @app.task(name="charge", acks_late=True, reject_on_worker_lost=True)
    def charge(order):
        charged.append(order)

    @simulate(app, database=None, derandomize=True)
    def test_orders(sim, tmp_path, orders=st.lists(st.integers(0, 3), max_size=4)):
        charged.clear()
        sent = [sim.send(charge, order) for order in orders]
        sim.settle()
        assert len(charged) <= len(orders)

    def test_calm(greenroom_sim):
        sim = greenroom_sim(app, workers=2)
        sent = sim.send(charge, 1)
        sim.settle()
        assert sent.state == "SUCCESS"
"""
QUIETLY = ("-p", "no:cacheprovider", "-p", "no:xdist")


def test_a_report_names_the_command_that_shows_the_same_failure_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_shop=EXAMPLE)
    found = pytester.runpytest_inprocess(*QUIETLY, "--gr-timeline=pages", "-k", "orders")
    found.assert_outcomes(failed=1)
    report = found.stdout.str()
    replay = next(word for word in report.split() if word.startswith("--gr-replay="))
    digest = next(line.split("trace ")[1].split(",")[0] for line in report.splitlines() if "trace " in line)
    assert (pytester.path / "pages" / f"{digest}.html").exists()
    again = pytester.runpytest_inprocess(*QUIETLY, replay, "-k", "orders")
    again.assert_outcomes(failed=1)
    assert f"trace {digest}" in again.stdout.str()


def test_examples_go_the_same_way_twice(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_shop=EXAMPLE.replace("assert len(charged) <= len(orders)", "assert charged or not orders"))
    pytester.runpytest_inprocess(*QUIETLY, "--gr-check-determinism", "--gr-examples=30", "--gr-seed=1").assert_outcomes(
        passed=2
    )
