"""The states of durable actors, in a world where little else happens and much goes wrong.

The world, its referee and its audit are those of `test_broker_machine.py`. Here all messages are two actors', and their
owners are cut off, die, come back and are replaced all the time; what each actor has handled is its state.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greenroom.transport.sim.peers import SimChild
from greenroom.transport.sim.world import World
from greenroom.transport.verbs import ChildKind

ACTORS = ["actor:Counter:a", "actor:Counter:b"]
ANYBODY = st.integers(0, 7)


class StatesMachine(RuleBasedStateMachine):
    """Owners come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(count=st.integers(1, 6))
    def begin(self, count: int) -> None:
        self.publish(ACTORS[0], count, "safe")

    @invariant()
    def the_tables_agree(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.drain()

    @property
    def hosts(self) -> list[SimChild]:
        return [child for child in self.world.children if child.kind != ChildKind.POOL]

    def host(self, which: int) -> SimChild | None:
        """One of those who hold something, if anybody does."""
        hosts = [child for child in self.hosts if child.held] or self.hosts
        return hosts[which % len(hosts)] if hosts else None

    @rule(mailbox=st.sampled_from(ACTORS), count=st.integers(1, 5), task=st.sampled_from(["safe", "safe", "late"]))
    def publish(self, mailbox: str, count: int, task: str) -> None:
        self.world.publish(self.world.clients[1], mailbox, [(task, "plain", 1)] * count)

    @rule()
    def all_is_heard(self) -> None:
        self.world.settle_store()
        self.world.read_all()
        self.world.nodes_obey()

    @rule(which=ANYBODY)
    def handle(self, which: int) -> None:
        """One host hears, starts what it has and ends it; it may have lost the actor long ago."""
        host = self.host(which)
        if host is not None:
            self.world.read(host)
            self.world.start(host)
            # Who asks for the state has it with the next word.
            self.world.work(host, "success")

    @rule()
    def a_round(self) -> None:
        """All that can be handled is, as far as it takes one question for the state."""
        for _ in range(3):
            self.all_is_heard()
            for host in self.hosts:
                self.world.start(host)
                self.world.work(host, "success")
        self.world.settle_store()

    @rule(which=ANYBODY)
    def start(self, which: int) -> None:
        host = self.host(which)
        if host is not None:
            self.world.read(host)
            self.world.start(host)

    @rule(which=ANYBODY)
    def fail(self, which: int) -> None:
        host = self.host(which)
        if host is not None:
            self.world.work(host, "failure")

    @rule(which=ANYBODY, how=st.sampled_from(["cut", "cut", "drop", "replace"]))
    def lose_a_link(self, which: int, how: str) -> None:
        host = self.host(which)
        if host is not None:
            self.world.lose(host, how)

    @rule(which=st.integers(0, 3), seconds=st.sampled_from([1, 14]))
    def cut_off_a_node(self, which: int, seconds: int) -> None:
        """And have it judged, if it takes long."""
        node = self.world.nodes[which % len(self.world.nodes)]
        for peer in (node, *node.children.values()):
            self.world.lose(peer, "cut")
        self.world.pass_time(seconds)

    @rule()
    def all_come_back(self) -> None:
        self.world.all_come_back()

    @rule(which=ANYBODY, how=st.sampled_from(["crash", "orderly", "late word"]))
    def host_dies(self, which: int, how: str) -> None:
        host = self.host(which)
        if host is not None:
            self.world.kill(host, how, "now")

    @precondition(lambda self: self.world.referee.states.states)
    @rule()
    def states_are_taken_away(self) -> None:
        for mailbox in ACTORS:
            self.world.purge(mailbox, state=True)

    @rule()
    def commit_once(self) -> None:
        self.world.commit_once()

    @rule(seconds=st.sampled_from([0.1, 2, 7]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(full=st.booleans())
    def disk_fills(self, full: bool) -> None:
        self.world.disk.room_bytes = 100 if full else None
        self.world.sim.ask_for_room()

    @rule(how=st.sampled_from(["kill", "power"]))
    def broker_dies(self, how: str) -> None:
        self.world.kill_broker(how)


UNCHECKED: Any = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

StatesMachine.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=UNCHECKED,
)
TestStates = pytest.mark.timeout(600)(StatesMachine.TestCase)
