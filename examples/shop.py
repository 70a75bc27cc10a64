"""A shop that charges each order once; or so it believes. `pytest examples/shop.py` finds out.

The payment service is somebody else's, and takes money each time it is asked, unless it is told by a key that this is
the same payment again. The shop's ledger is its own, and says what was charged already.

Each example of the two tests is a whole cluster, simulated: a broker, one to three workers, and kills and broken links
at any moment, drawn by Hypothesis and shrunk to what matters. The first test fails, and shows how; the second holds.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from greenroom import App
from greenroom.testing import Sim, record, simulate

app = App("shop")


class Payments:
    """A fake of a payment service. It records what it takes, where a test can see it."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}

    def charge(self, order: str, *, key: str | None = None) -> None:
        """Take the money for an order; with a key that came before, nothing more."""
        if key is not None:
            if key in self.keys:
                return
            self.keys[key] = None
        record("charge", order)


payments = Payments()
ledger: dict[str, None] = {}


@app.task(acks_late=True, reject_on_worker_lost=True)
def charge(order: str) -> None:
    """Charge an order that is not in the ledger. A worker that dies between the two lines charges it again."""
    if order not in ledger:
        payments.charge(order)
        ledger[order] = None


@app.task(acks_late=True, reject_on_worker_lost=True)
def charge_once(order: str) -> None:
    """The same, mended: whoever runs this again says the same key."""
    if order not in ledger:
        payments.charge(order, key=order)
        ledger[order] = None


# --- what is tested ----------------------------------------------------------------------------------------------

ORDERS: Any = st.lists(st.sampled_from(["tea", "milk", "bread"]), unique=True, max_size=3)


def open_shop() -> None:
    """Every example begins with an empty shop."""
    payments.keys.clear()
    ledger.clear()


@simulate(app, workers=(1, 3))
def test_no_order_is_charged_twice(sim: Sim, orders: list[str] = ORDERS) -> None:
    open_shop()
    for order in orders:
        sim.client(0).send(charge, order)
    sim.settle()
    assert sim.effects("charge").at_most_once_per(lambda effect: effect.args[0])


@simulate(app, workers=(1, 3))
def test_the_mended_shop_charges_each_order_once(sim: Sim, orders: list[str] = ORDERS) -> None:
    open_shop()
    sent = {order: sim.client(0).send(charge_once, order) for order in orders}
    sim.settle()
    done = [order for order, one in sent.items() if one.state == "SUCCESS"]
    charged = sim.effects("charge")
    assert charged.at_most_once_per(lambda effect: effect.args[0])
    assert charged.at_least_once_per(lambda effect: effect.args[0], done)
