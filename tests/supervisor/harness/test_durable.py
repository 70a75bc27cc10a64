"""Durable actors in a simulated cluster: what an account has at the end is what was deposited, whatever happened."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import strategies as st

from greenroom.actors.actor import Actor
from greenroom.actors.app import App
from greenroom.actors.errors import ActorFailed
from greenroom.actors.worker.hosting import Hosting
from greenroom.supervisor.harness.faults import What
from greenroom.testing import Sim, Violated, inv, scenario, simulate
from greenroom.transport.broker.settling import Settling
from greenroom.transport.broker.states import States
from greenroom.transport.store.records import ActorState

app = App("bank", set_as_current=False)
KEYS = ("mia", "tom")
began: list[int] = []


class Account(Actor):
    durable = True

    def __init__(self) -> None:
        self.balance = 0
        self.deposits: list[int] = []

    def deposit(self, number: int, amount: int = 1) -> int:
        self.balance += amount
        self.deposits.append(number)
        return self.balance

    def fail(self, number: int) -> None:
        self.deposits.append(number)
        raise ValueError("out of money")

    async def deposit_slowly(self, number: int) -> int:
        self.deposits.append(number)
        self.balance += 1
        return self.balance

    def deposit_long(self, number: int) -> None:
        """Take long, except for the first time: who handles it then has lost it before the other is done."""
        began.append(number)
        if len(began) > 1:
            time.sleep(40)
        self.deposits.append(number)

    def statement(self) -> tuple[int, list[int]]:
        return self.balance, self.deposits


def account(key: str) -> Any:
    return app.ref(Account, key)


def check(asked: dict[str, list[Any]]) -> None:
    """Every account has each deposit once, in order."""
    for key, answers in asked.items():
        failed = [number for number, answer in enumerate(answers) if not succeeded(answer)]
        balance, deposits = account(key).ask(Account.statement).get(timeout=60)
        assert deposits == [number for number in range(len(answers)) if number not in failed]
        assert balance == len(deposits)


def succeeded(answer: Any) -> bool:
    try:
        answer.get(timeout=60)
    except ActorFailed:
        return False
    return True


#: Those after which every call has an answer in the end.
FAULTS = [
    *(What.KILL_CHILD, What.KILL_NODE, What.KILL_BROKER, What.POWER_LOSS, What.DROP, What.CUT, What.PAUSE_CHILD),
    What.PARTITION,
]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(["deposit", "deposit", "deposit_slowly", "fail"]),
        st.sampled_from([0.0, 0.0, 0.02, 1.0, 8.0]),
    ),
    min_size=1,
    max_size=12,
)


@simulate(app, workers=(1, 2), faults=FAULTS, examples=60, covers=[inv.STATE], database=None, derandomize=True)
def test_what_accounts_have_is_what_was_deposited_whatever_happens(
    sim: Sim,
    operations: list[tuple[str, str, float]] = OPERATIONS,  # type: ignore[assignment]  # noqa: PT028
) -> None:
    asked: dict[str, list[Any]] = {}
    for key, method, after in operations:
        if after:
            sim.run_for(after)
        answers = asked.setdefault(key, [])
        answers.append(account(key).ask(method, len(answers)))
    sim.settle()
    check(asked)


@scenario(app, workers=2)
def test_the_node_of_an_account_is_killed_and_another_answers_with_its_state(sim: Sim) -> None:
    asked = {"mia": [account("mia").ask(Account.deposit, number) for number in range(5)]}
    sim.at("RAN", nth=3).kill()
    sim.run_for(20)
    asked["mia"] += [account("mia").ask(Account.deposit, number) for number in range(5, 8)]
    sim.settle()
    check(asked)


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_in_other_pools_it_is_the_same(pool: str) -> None:
    def pay_and_kill(sim: Sim) -> None:
        methods = ("deposit", "deposit_slowly", "fail", "deposit")
        asked = {key: [account(key).ask(method, at) for at, method in enumerate(methods)] for key in KEYS}
        sim.at("RAN", nth=2).kill()
        sim.run_for(20)
        for key, answers in asked.items():
            answers += [account(key).ask("deposit_slowly", number) for number in range(4, 7)]
        sim.settle()
        check(asked)

    scenario(app, workers=2, pool=pool, slots=2)(pay_and_kill)()


@scenario(app, store="sqlite")
def test_a_state_survives_a_power_cut(sim: Sim) -> None:
    asked = {"mia": [account("mia").ask(Account.deposit, number) for number in range(5)]}
    sim.at("RAN", nth=2).fault(What.POWER_LOSS)
    sim.settle()
    check(asked)


# --- sabotage ----------------------------------------------------------------------------------------------------


def pay(sim: Sim) -> None:
    for number in range(4):
        account("mia").ask(Account.deposit, number)
        sim.run_for(0.05)
    sim.settle()


def test_a_state_that_is_written_apart_from_the_ack_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(self: Any, message: Any, outcome: Any) -> None:
        record = ActorState(message.row.mailbox.name, outcome.lease, outcome.snapshot)
        self._desk.journal.open.then.append(lambda: self._desk.journal.write(record))

    monkeypatch.setattr(States, "keep", apart)
    with pytest.raises(Violated, match="STATE violated"):
        scenario(app)(pay)()


def test_a_settle_that_lost_its_lease_and_writes_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Settling.late

    def late(self: Any, outcome: Any) -> None:
        message = self._desk.loose.get(outcome.position)
        if message is not None:
            self._states.keep(message, outcome)
        original(self, outcome)

    monkeypatch.setattr(Settling, "late", late)

    def cut_off(sim: Sim) -> None:
        began.clear()
        sim.at("RAN").fault(What.PARTITION, seconds=30)
        account("mia").ask(Account.deposit_long, 0)
        sim.settle()

    with pytest.raises(Violated, match="STATE violated"):
        scenario(app, workers=2)(cut_off)()


def test_a_child_that_goes_on_with_what_it_knew_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Hosting.run

    def run(self: Any, held: Any) -> Any:
        living = self._instances.get(held.delivery.mailbox)
        if living is not None:
            living.since = held.since
        return original(self, held)

    def come_back(sim: Sim) -> None:
        """The first owner is cut off, another one goes on and dies, and the first one has the actor again."""
        sim.at("RAN").fault(What.PARTITION, seconds=30)
        mia = account("mia")
        mia.ask(Account.deposit, 0)
        sim.run_for(20)
        mia.ask(Account.deposit, 1)
        sim.run_for(20)
        kill_owner(sim)
        sim.run_for(1)
        mia.ask(Account.deposit, 2)
        sim.settle()
        assert mia.ask(Account.statement).get(timeout=60) == (3, [0, 1, 2])

    scenario(app, workers=2)(come_back)()
    monkeypatch.setattr(Hosting, "run", run)
    with pytest.raises(Violated, match=r"STATE violated: .* by now"):
        scenario(app, workers=2)(come_back)()


def kill_owner(sim: Sim) -> None:
    """Kill the child that has the account of mia."""
    core = sim.world.broker.core
    assert core is not None
    owner = core.broker.desk.mailboxes[str(account("mia").mailbox)].owner
    assert owner is not None
    for node in sim.world.nodes:
        for child in list(node.children.values()):
            if child.session == owner.id:
                child.kill(9)
