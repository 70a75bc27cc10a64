"""`@simulate`: Hypothesis finds what breaks a task in a cluster, and shrinks it to what matters."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from greenroom.actors.app import App
from greenroom.supervisor.harness.simulate import simulate
from greenroom.testing import Sim

#: What a test orders.
ORDERS = st.lists(st.integers(0, 9), max_size=10)


class Shop:
    """A shop that charges its customers, and what they were charged."""

    def __init__(self) -> None:
        self.app = App("shop", set_as_current=False)
        self.charged: list[int] = []

        @self.app.task(name="charge", acks_late=True, reject_on_worker_lost=True)
        def charge(order: int) -> int:
            self.charged.append(order)
            return order

        self.charge = charge


def test_a_double_charge_is_found_and_shrunk_to_one_fault_and_one_task() -> None:
    shop = Shop()
    seen: list[Sim] = []

    @simulate(shop.app, clients=2, workers=(1, 3), examples=300, database=None, derandomize=True)
    def test_orders(sim: Sim, orders: list[int] = ORDERS) -> None:  # type: ignore[assignment]
        shop.charged.clear()
        seen.append(sim)
        for order in orders:
            sim.client(0).send(shop.charge, order)
        sim.settle()
        assert len(shop.charged) <= len(orders), "charged more often than ordered"

    with pytest.raises(AssertionError, match="charged more often") as caught:
        test_orders()
    assert len(seen[-1].plan.faults) == 1
    assert shop.charged == [0, 0]
    told = "\n".join(caught.value.__notes__)
    assert "kill -9 child at ran" in told
    assert "--gr-replay=" in told
