"""Our own machines under the generic scenario: clients send tasks of all kinds, everything goes wrong that may.

`make nightly MINUTES=10` runs this for as long as it is given, and tells which fault has struck at which moment.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from greenroom.supervisor.harness.aiming import aimed, in_turn
from greenroom.supervisor.harness.course import Course
from greenroom.supervisor.harness.example import run_example
from greenroom.supervisor.harness.options import options
from greenroom.supervisor.harness.selftest.shop import Shop
from greenroom.testing import Kind, Sent, Sim, What, faults, inv, record, simulate, simulated, sometimes
from greenroom.transport.broker.settings import BrokerSettings

shop = Shop()


@shop.app.task(name="effect", acks_late=True, reject_on_worker_lost=True)
def effect() -> None:
    record("effect")
    sometimes("a body goes on after its effect")


TASKS = {**shop.tasks, "effect": effect}
NAMES = tuple(TASKS)


#: How long a client waits for a result, in simulated seconds: longer than most faults last.
PATIENCE = 30.0


class Send(msgspec.Struct, frozen=True):
    """Some calls of a task at once, after some time has passed. `waiter`: the client that waits for their results, one
    after the other, before anything else is sent."""

    task: str
    count: int
    client: int
    after: float
    options: dict[str, Any]
    waiter: int | None = None


SENDS: Any = st.lists(
    st.builds(
        Send,
        task=st.sampled_from(NAMES),
        count=st.sampled_from((1, 2, 3, 6)),
        client=st.integers(0, 1),
        after=st.sampled_from((0.0, 0.0, 0.02, 1.0, 6.0)),
        options=st.sampled_from(({}, {}, {}, {"countdown": 0.5}, {"countdown": 3.0}, {"expires": 1.0})),
        waiter=st.sampled_from((None, None, None, 0, 1)),
    ),
    max_size=6,
)
#: What always happens, so that each moment comes: a dead letter, an effect, something that waits.
FIRST = [Send("effect", 2, 0, 0.0, {}), Send("poison", 1, 1, 0.0, {}), Send("slow late", 2, 0, 0.0, {})]
#: What happens besides where something goes wrong at a moment that does not come by itself.
FOR_ITS_SAKE: dict[Kind, list[Send]] = {
    # Quick bodies open the window of a child, and then it holds some that wait behind a slow one.
    Kind.RETURN: [Send("moody late", 9, 1, 0.0, {})],
    # One that the broker tells of by itself, and one that it is asked about.
    Kind.RESULT: [Send("quick late", 1, 0, 0.0, {}, waiter=0), Send("late", 1, 1, 0.0, {}, waiter=0)],
}


def play(sim: Sim, sends: list[Send]) -> None:
    shop.begin()
    aims = dict.fromkeys(fault.at.kind for fault in sim.plan.faults)
    for send in [*FIRST, *(send for kind in aims for send in FOR_ITS_SAKE.get(kind, ())), *sends]:
        if send.after:
            sim.run_for(send.after)
        sent = [sim.client(send.client).apply_async(TASKS[send.task], **send.options) for _ in range(send.count)]
        if send.waiter is not None:
            wait_for(sim, sent, send.waiter)
    sim.settle()
    sim.run_for(10)


def wait_for(sim: Sim, sent: list[Sent[Any]], client: int) -> None:
    for one in sent:
        try:
            sim.client(client).get(one, PATIENCE, propagate=False)
        except TimeoutError:
            # It was refused, or purged, or takes long; or the client was killed while it waited.
            sometimes("a client waits in vain")
        else:
            sometimes("a client has waited for a result")


def generic(examples: int, kinds: Sequence[What] = (), **more: Any) -> Callable[..., None]:
    """Return a test in which faults of these kinds, of every one if none is named, strike at every moment."""
    store = more.get("store", "memory")

    def test(sim: Sim, sends: list[Send] = SENDS) -> None:
        if What.REDRIVE in kinds:
            # Once there is a letter: at other moments there is none yet.
            sim.at("DEAD").fault(What.REDRIVE)
        play(sim, sends)

    plan = aimed(kinds or faults.every(), clients=2, workers=(1, 2), children=1, store=store)
    return simulate(shop.app, plan=plan, examples=examples, **more)(test)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Tasks that fail, as they were told to, say so; thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


#: Each of these strikes in nearly every example; of all kinds, one of so few may be none of them.
test_operators = generic(20, faults.ENDS, covers=[inv.DLQ])
test_disks_that_fail = generic(20, (What.SYNC_FAILS, What.READ_FAILS), covers=[inv.D29])
test_strangers = generic(20, (What.STRANGER, What.CORRUPT_BYTE, What.TRUNCATED_FRAME), covers=[inv.WIRE])
test_processes = generic(90, covers=inv.but(inv.DLQ, inv.D29, inv.WIRE, inv.STATE))
test_a_real_store = generic(30, store="sqlite")
test_threads = generic(20, pool="threads", slots=2)
test_small_mailboxes = generic(20, broker=BrokerSettings(mailbox_max_messages=4), covers=[inv.BOUND])

#: Of the plans that aim at each pair of fault and moment, every so manieth is tried where no time is given.
SAMPLE = 7
#: Shares of the time: a round is long, and the first one is made whole however short the time is.
SHARES = 3


def test_each_fault_at_each_moment() -> None:
    course = Course(shares=SHARES)
    asked = options()
    first = int(asked.replay.partition(" ")[0]) if asked.replay else asked.seed or 0
    for round in itertools.count(first):
        plans = [(f"{round} {plan.faults[-1].words()}", plan, store) for plan, store in in_turn(faults.every(), round)]
        if asked.replay:
            plans = [(name, plan, store) for name, plan, store in plans if name == asked.replay]
        elif not asked.seconds:
            plans = plans[::SAMPLE]
        for name, plan, store in plans:
            if course.is_over and round > first:
                return
            make = partial(simulated, shop.app, plan, store=store)
            run_example(make, lambda sim: play(sim, []), course, name)
        if asked.replay or not asked.seconds:
            break


test_each_fault_at_each_moment.is_simulated = True  # type: ignore[attr-defined]
test_each_fault_at_each_moment.shares = SHARES  # type: ignore[attr-defined]

pytestmark = pytest.mark.slow
