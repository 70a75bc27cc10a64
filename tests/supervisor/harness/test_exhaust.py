"""Every world with few deviations: what breaks in one of them is found, and each is tried once."""

from __future__ import annotations

import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness.exhaust import TooMany, exhaust
from greenroom.supervisor.harness.sim import Sim
from greenroom.testing import What, faults

app = App("tiny", set_as_current=False)
charged: list[int] = []


@app.task(name="charge", acks_late=True, reject_on_worker_lost=True)
def charge(order: int) -> int:
    """Charge somebody."""
    charged.append(order)
    return order


def settles(sim: Sim) -> None:
    """Two calls end, whatever happens."""
    sent = [sim.send(charge, order) for order in range(2)]
    sim.settle()
    assert all(one.state in ("SUCCESS", "FAILURE") for one in sent)


def charges_once(sim: Sim) -> None:
    """No call is charged twice, which one fault suffices to break."""
    charged.clear()
    settles(sim)
    assert len(charged) <= 2, "charged more often than ordered"


def test_the_one_moment_that_breaks_it_is_found_and_reported() -> None:
    with pytest.raises(AssertionError, match="charged more often") as caught:
        exhaust(app, charges_once, faults=[What.KILL_CHILD], turns=False)
    assert "kill -9 child at" in "\n".join(caught.value.__notes__)


def test_without_faults_no_order_of_turns_charges_twice() -> None:
    tried = exhaust(app, charges_once, places=3, workers=2)
    assert tried.by_places[0] == 1
    assert tried.runs > 50


def test_every_world_of_two_workers_two_tasks_and_one_death_or_lost_link_settles() -> None:
    tried = exhaust(app, settles, faults=[*faults.deaths(), What.DROP, What.CUT], turns=False, workers=2)
    assert tried.by_places[1] > 150


def test_a_pair_of_deaths_is_tried_once_and_in_its_order() -> None:
    seen: list[tuple[str, ...]] = []

    def noted(sim: Sim) -> None:
        sim.send(charge, 1)
        sim.settle()
        seen.append(tuple(fault.words() for fault in sim.injector.done))

    tried = exhaust(app, noted, faults=[What.KILL_CHILD], turns=False, places=2)
    assert len(seen) == tried.runs
    pairs = [one for one in seen if len(one) == 2]
    assert pairs
    assert len(set(pairs)) == len(pairs)


def test_too_many_worlds_are_told_before_they_take_for_ever() -> None:
    with pytest.raises(TooMany, match="5 worlds were tried, and there are more"):
        exhaust(app, settles, places=2, runs_max=5)
