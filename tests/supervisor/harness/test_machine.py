"""`ClusterMachine`: rules of a test and faults of the cluster in one sequence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from greenroom.actors.app import App
from greenroom.supervisor.harness.machine import Cluster, ClusterMachine, machine_settings
from greenroom.supervisor.harness.sim import Whom

app = App("machine shop", set_as_current=False)
charged: list[int] = []


@app.task(name="charge", acks_late=True, reject_on_worker_lost=True)
def charge(order: int) -> int:
    charged.append(order)
    return order


@app.task(name="charge_once")
def charge_once(order: int) -> int:
    charged.append(order)
    return order


class Shop(ClusterMachine):
    """A shop whose customers order and whose workers are killed."""

    cluster = Cluster(app, workers=2)
    task: Any = charge

    def __init__(self) -> None:
        super().__init__()
        charged.clear()
        self.orders = 0

    @rule()
    def order(self) -> None:
        self.orders += 1
        self.send(self.task, self.orders)

    @rule(worker=Cluster.worker())
    def oom(self, worker: Whom) -> None:
        if worker.is_alive:
            worker.oom_kill(during="task")

    @invariant()
    def nobody_is_charged_twice(self) -> None:
        assert len(charged) == len(set(charged)), "charged twice"


class ShopOfOnce(Shop):
    """The same, with tasks that start at most once."""

    task = charge_once

    def at_rest(self) -> None:
        assert set(charged) <= set(range(1, self.orders + 1))


def test_rules_and_faults_together_find_a_double_charge() -> None:
    with pytest.raises(AssertionError, match="charged twice") as caught:
        run_state_machine_as_test(Shop, settings=machine_settings(100, database=None))
    assert "starts charge 1" in "\n".join(caught.value.__notes__)


def test_a_task_that_starts_at_most_once_is_never_charged_twice() -> None:
    run_state_machine_as_test(ShopOfOnce, settings=machine_settings(20, stateful_step_count=20))
