"""The broker core against a world that does everything that can go wrong, in every order.

Clients, children, nodes, an operator, the disk and time are moved by Hypothesis; commits and reads wait until they are
told to happen. The referee judges every commit and every verb, the audit the broker's tables after every step; at
the end everything is drained, and nothing may be left. GREENROOM_TESTS=nightly plays for longer.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greenroom.transport.requests import DeadFilter, Forget, Mailboxes, StatusRequest
from greenroom.transport.sim.world import MAILBOXES, TASKS, World
from greenroom.transport.verbs import ChildKind, Op

NIGHTLY = os.environ.get("GREENROOM_TESTS") == "nightly"

ANYBODY = st.integers(0, 30)
FLAVOURS = ["plain"] * 6 + ["priority", "eta", "expiring", "chosen", "chosen eta", "tight", "big"]
MESSAGES = st.lists(
    st.tuples(st.sampled_from(sorted(TASKS)), st.sampled_from(FLAVOURS), st.integers(1, 90)), min_size=1, max_size=5
)
OUTCOMES = ["success"] * 6 + ["failure", "retry", "retry soon", "requeue", "ignored", "follow"]
WAYS_TO_DIE = ["crash"] * 6 + ["limit", "kill", "orderly", "late word"]


class BrokerMachine(RuleBasedStateMachine):
    """Anything may happen next."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @invariant()
    def the_tables_agree(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.drain()

    # --- clients and links ---------------------------------------------------------------------------------------

    @rule(which=st.integers(1, 2), mailbox=st.sampled_from(MAILBOXES), messages=MESSAGES)
    def publish(self, which: int, mailbox: str, messages: list[tuple[str, str, int]]) -> None:
        self.world.publish(self.world.clients[which], mailbox, messages)

    @rule(which=st.integers(1, 2), back=st.booleans())
    def lose_client(self, which: int, back: bool) -> None:
        self.world.lose(self.world.clients[which], "replace" if back else "drop")

    @rule(which=ANYBODY)
    def one_reads(self, which: int) -> None:
        everybody = self.world.everybody
        self.world.read(everybody[which % len(everybody)])

    @rule()
    def all_read(self) -> None:
        self.world.read_all()

    @rule(which=ANYBODY, how=st.sampled_from(["drop", "cut", "replace"]))
    def lose_a_link(self, which: int, how: str) -> None:
        peers = [*self.world.nodes, *self.world.children]
        self.world.lose(peers[which % len(peers)], how)

    @rule(which=st.integers(0, 3))
    def cut_off_a_node(self, which: int) -> None:
        node = self.world.nodes[which % len(self.world.nodes)]
        for peer in (node, *node.children.values()):
            self.world.lose(peer, "cut")

    @rule()
    def all_come_back(self) -> None:
        self.world.all_come_back()

    @rule()
    def closings_are_noticed(self) -> None:
        self.world.tell_closed()

    # --- children and nodes --------------------------------------------------------------------------------------

    @rule(which=ANYBODY, tell=st.booleans())
    def start_a_body(self, which: int, tell: bool) -> None:
        child = self.world.pick(which)
        if child is not None:
            self.world.start(child, tell=tell)

    @rule(which=ANYBODY, how=st.sampled_from(OUTCOMES))
    def finish_a_body(self, which: int, how: str) -> None:
        child = self.world.pick(which)
        running = [body for body in child.held.values() if body.running] if child is not None else []
        if child is not None and running:
            self.world.finish(child, running[0], how)

    @rule(crash=st.integers(0, 6), outcome=st.sampled_from(["success", "failure", "retry soon", "requeue"]))
    def a_round(self, crash: int, outcome: str) -> None:
        """Everybody does what there is to do, and one child dies of it."""
        self.world.settle_store()
        self.world.read_all()
        self.world.nodes_obey()
        for index, child in enumerate(self.world.children):
            self.world.start(child)
            self.world.start(child)
            if index == crash:
                self.world.kill(child, "crash", "now")
            else:
                self.world.work(child, outcome)
        self.world.settle_store()

    @rule(which=ANYBODY, keep=st.integers(0, 3))
    def give_back(self, which: int, keep: int) -> None:
        child = self.world.pick(which)
        if child is not None:
            self.world.give_back(child, list(child.held)[keep:])

    @rule(which=ANYBODY, window=st.integers(0, 6))
    def change_credit(self, which: int, window: int) -> None:
        child = self.world.pick(which)
        if child is not None and child.kind != ChildKind.QUARANTINE:
            child.change_window(window)

    @rule(which=ANYBODY, how=st.sampled_from(WAYS_TO_DIE), when=st.sampled_from(["now", "now", "later", "never"]))
    def child_dies(self, which: int, how: str, when: str) -> None:
        child = self.world.pick(which)
        if child is not None:
            self.world.kill(child, how, when)

    @precondition(lambda self: self.world.unreported)
    @rule()
    def a_death_is_reported(self) -> None:
        self.world.report_one()

    @rule(which=st.integers(0, 3), evidence=st.booleans())
    def node_dies(self, which: int, evidence: bool) -> None:
        self.world.kill_node(self.world.nodes[which % len(self.world.nodes)], evidence=evidence)

    @rule()
    def pages_are_found(self) -> None:
        self.world.report_pages()

    @rule()
    def nodes_obey(self) -> None:
        self.world.nodes_obey()

    # --- the operator --------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 200), terminate=st.booleans())
    def revoke(self, which: int, terminate: bool) -> None:
        self.world.revoke(which, terminate=terminate)

    @rule(mailbox=st.sampled_from(MAILBOXES), state=st.booleans())
    def purge(self, mailbox: str, state: bool) -> None:
        self.world.purge(mailbox, state=state)

    @rule(op=st.sampled_from([Op.DEAD_REDRIVE, Op.DEAD_REDRIVE, Op.DEAD_PURGE]))
    def act_on_the_dead(self, op: Op) -> None:
        self.world.act_on_the_dead(op)

    @rule(what=st.integers(0, 3))
    def look(self, what: int) -> None:
        asked: list[tuple[Op, msgspec.Struct]] = [
            (Op.STATUS, StatusRequest()),
            (Op.MAILBOXES, Mailboxes()),
            (Op.DEAD_LIST, DeadFilter()),
            (Op.FORGET, Forget(["id1", "id2"])),
        ]
        self.world.ask(*asked[what])

    # --- the disk and time ---------------------------------------------------------------------------------------

    @rule()
    def commit_once(self) -> None:
        self.world.commit_once()

    @rule()
    def settle_store(self) -> None:
        self.world.settle_store()

    @rule(seconds=st.sampled_from([0.001, 0.1, 1, 2, 7, 13, 70]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([-100, -3, 5, 40]))
    def the_wall_clock_steps(self, seconds: int) -> None:
        self.world.step_wall(seconds)

    @rule()
    def the_broker_stands_still(self) -> None:
        self.world.stand_still()

    @rule()
    def disk_fills(self) -> None:
        self.world.disk.room_bytes = 100

    @rule()
    def disk_empties(self) -> None:
        self.world.disk.room_bytes = None
        self.world.sim.ask_for_room()

    @rule(how=st.sampled_from(["kill", "kill", "power", "disk", "disk keeps"]))
    def broker_dies(self, how: str) -> None:
        self.world.kill_broker(how)


#: A deep machine takes its time, and many rules do not apply in many states.
UNCHECKED: Any = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

BrokerMachine.TestCase.settings = settings(
    max_examples=5_000 if NIGHTLY else 400,
    stateful_step_count=200 if NIGHTLY else 70,
    deadline=None,
    # Without the phase that explains: it traces every line.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=UNCHECKED,
)
TestBroker = pytest.mark.timeout(7_200 if NIGHTLY else 600)(pytest.mark.slow(BrokerMachine.TestCase))
