"""Every cluster of a test is judged by the promises of the cluster, however the test is written.

The broker of these tests has a safeguard turned off: it gives tasks that are acked early to somebody else, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from greenroom.actors.app import App
from greenroom.testing import (
    Cluster,
    ClusterMachine,
    Sim,
    Vacuous,
    Violated,
    inv,
    machine_settings,
    scenario,
    simulate,
    simulated,
)
from greenroom.transport.broker import deaths
from greenroom.transport.broker.past import Past
from greenroom.transport.broker.redelivery import Ending, Verdict, judge
from greenroom.transport.message import Flag

app = App("judged", set_as_current=False)


@app.task(name="early")
def early() -> None:
    pass


@pytest.fixture
def _kind_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge_kindly(ending: Ending, flags: int, past: Past, joint: bool, most: int) -> Verdict:
        return judge(ending, flags | Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST, past, joint, most)

    monkeypatch.setattr(deaths, "judge", judge_kindly)


broken = pytest.mark.usefixtures("_kind_judge")


@broken
def test_simulate_finds_a_broken_promise_that_the_test_does_not_ask_for() -> None:
    @simulate(app, examples=200, database=None, derandomize=True)
    def test_orders(sim: Sim) -> None:
        sim.send(early)
        sim.settle()

    with pytest.raises(Violated, match=r"AMO violated: early \S+ starts a second time"):
        test_orders()


@broken
def test_what_is_not_asked_for_is_not_raised_and_is_kept() -> None:
    with simulated(app, invariants=inv.but(inv.AMO)) as sim:
        sim.at("STARTED").kill()
        sim.send(early)
        sim.settle()
        assert sim.watch.violation is None
        assert list(sim.watch.unasked) == ["AMO"]


@broken
def test_a_scenario_is_judged() -> None:
    @scenario(app)
    def test_once(sim: Sim) -> None:
        sim.at("STARTED").kill()
        sim.send(early)
        sim.settle()

    with pytest.raises(Violated, match="AMO violated"):
        test_once()


@broken
def test_a_machine_is_judged_between_its_rules() -> None:
    class Shop(ClusterMachine):
        cluster = Cluster(app)

        @rule()
        def order(self) -> None:
            self.send(early)

    with pytest.raises(Violated, match="AMO violated") as caught:
        run_state_machine_as_test(Shop, settings=machine_settings(200, database=None, derandomize=True))
    assert "starts early 1" in "\n".join(caught.value.__notes__)


@broken
def test_a_broken_promise_that_the_test_swallows_fails_it_all_the_same() -> None:
    def swallow(sim: Sim) -> None:
        sim.at("STARTED").kill()
        sim.send(early)
        with suppress(AssertionError):
            sim.settle()

    with pytest.raises(Violated, match="AMO violated"), simulated(app) as sim:
        swallow(sim)

    with pytest.raises(Violated, match="AMO violated"):
        scenario(app)(swallow)()


@broken
def test_a_broken_promise_is_told_rather_than_the_assertion_that_failed_by_it() -> None:
    def assert_too_late(sim: Sim) -> None:
        sim.at("STARTED").kill()
        sent = sim.send(early)
        try:
            sim.settle()
        finally:
            assert sent.starts == 1, "twice"

    with pytest.raises(Violated, match="AMO violated") as caught, simulated(app) as sim:
        assert_too_late(sim)
    assert str(caught.value.__cause__).startswith("twice")


def test_a_failing_assertion_is_raised_as_it_is_where_no_promise_was_broken() -> None:
    def fail(sim: Sim) -> None:
        sim.settle()
        raise AssertionError("its own")

    with pytest.raises(AssertionError, match="its own") as caught, simulated(app) as sim:
        fail(sim)
    assert type(caught.value) is AssertionError


# --- what a run covers -------------------------------------------------------------------------------------------


def test_a_run_that_says_it_covers_an_invariant_fails_when_that_never_had_occasion_to_be_broken() -> None:
    tries: list[int] = []

    def orders(sim: Sim, count: int = st.integers(0, 2)) -> None:  # type: ignore[assignment]
        tries.append(count)
        for _ in range(count):
            sim.send(early)
        sim.settle()

    def run(*covers: str, **more: Any) -> None:
        simulate(app, faults=(), examples=20, database=None, derandomize=True, covers=covers, **more)(orders)()

    # Many examples send nothing: it is the run that counts.
    run(inv.AMO, inv.LOSS)
    assert 0 in tries
    with pytest.raises(Vacuous, match="POISON had no occasion to be broken in 20 examples"):
        run(inv.AMO, inv.POISON)
    with pytest.raises(ValueError, match="covers AMO, which are not among the invariants LOSS"):
        run(inv.AMO, invariants=[inv.LOSS])


def test_a_scenario_and_a_cluster_of_a_fixture_say_what_they_cover() -> None:
    with pytest.raises(Vacuous, match="AMO had no occasion"), simulated(app, covers=[inv.AMO]):
        pass

    @scenario(app, covers=[inv.LOSS, inv.AMO])
    def test_nothing(sim: Sim) -> None:
        sim.settle()

    with pytest.raises(Vacuous, match="AMO had no occasion"):
        test_nothing()


def test_a_machine_says_what_it_covers() -> None:
    class Idle(ClusterMachine):
        cluster = Cluster(app, covers=[inv.AMO])
        something_goes_wrong = None  # type: ignore[assignment]

    case: Any = Idle.TestCase("runTest")
    case.settings = machine_settings(3, stateful_step_count=2)
    with pytest.raises(Vacuous, match="AMO had no occasion"):
        case.runTest()
