"""Which connection is which, and which is over: with descriptors that are used again as fast as they can be."""

from __future__ import annotations

import socket

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from greenroom.transport.wire.connections import (
    CUT_GRACE,
    HELLO_PATIENCE,
    VERDICT_PATIENCE,
    Connection,
    Connections,
    cut,
    inode_of,
)


def ended(connections: Connections, dead: set[bytes], now: int) -> list[int]:
    """The verdicts at this time, with everything read."""
    over = connections.judge(lambda routing_id: routing_id not in dead, now)
    return [number for number in map(connections.forget, over) if number]


def test_a_connection_is_over_when_it_was_disconnected_and_cannot_be_sent_to() -> None:
    connections = Connections()
    connections.accepted(1000, 0)
    one = connections.greeted(b"\0a", 1000, 0, welcome=True)
    assert ended(connections, {b"\0a"}, 0) == []
    connections.disconnected(1000, 5)
    assert ended(connections, set(), 6) == []
    assert ended(connections, {b"\0a"}, 7) == [one.number]
    assert ended(connections, {b"\0a"}, 8) == []
    assert connections.by_id == {}


def test_a_disconnected_descriptor_that_stays_closed_is_over_within_the_patience() -> None:
    connections = Connections()
    connections.accepted(1000, 0)
    one = connections.greeted(b"\0a", 1000, 0, welcome=True)
    connections.disconnected(1000, 0)
    assert ended(connections, set(), VERDICT_PATIENCE - 1) == []
    assert ended(connections, set(), VERDICT_PATIENCE) == [one.number]


def test_a_descriptor_that_is_used_again_ends_the_old_connection_and_not_the_new_one() -> None:
    connections = Connections()
    connections.accepted(1000, 0)
    old = connections.greeted(b"\0old", 1000, 0, welcome=True)
    connections.disconnected(1000, 1)
    connections.accepted(1000, 1)
    new = connections.greeted(b"\0new", 1000, 1, welcome=True)
    assert ended(connections, {b"\0old"}, 2) == [old.number]
    assert ended(connections, {b"\0old"}, 1 + VERDICT_PATIENCE) == []
    assert connections.by_number == {new.number: new}


def test_a_connection_that_ended_before_its_hello_was_read_is_over_all_the_same() -> None:
    connections = Connections()
    connections.accepted(1000, 0)
    connections.disconnected(1000, 0)
    connections.accepted(1000, 0)
    brief = connections.greeted(b"\0brief", 1000, 0, welcome=True)
    assert ended(connections, {b"\0brief"}, 1) == [brief.number]
    present = connections.greeted(b"\0present", 1000, 1, welcome=True)
    assert ended(connections, {b"\0brief"}, 1 + VERDICT_PATIENCE) == []
    connections.disconnected(1000, 2)
    assert ended(connections, {b"\0present"}, 3) == [present.number]


def test_an_end_that_was_found_to_be_somebodys_makes_nobody_else_a_suspect() -> None:
    connections = Connections()
    connections.accepted(1000, 0)
    one = connections.greeted(b"\0a", 1000, 0, welcome=True)
    connections.disconnected(1000, 1)
    assert ended(connections, {b"\0a"}, 2) == [one.number]
    connections.accepted(1000, 3)
    connections.greeted(b"\0b", 1000, 3, welcome=True)
    assert connections.judge(lambda _: pytest.fail("it was probed"), 4) == []


def test_a_connection_that_the_core_closed_is_not_reported() -> None:
    connections = Connections()
    connections.accepted(1000, 0)
    one = connections.greeted(b"\0a", 1000, 0, welcome=True)
    connections.close(one.number, 0)
    assert connections.by_id[b"\0a"].number == 0
    connections.disconnected(1000, 1)
    assert ended(connections, {b"\0a"}, 2) == []
    assert connections.by_id == {}


def test_cutting_shuts_the_connection_and_spares_a_later_one_on_the_same_descriptor() -> None:
    one, other = socket.socketpair()
    with one, other:
        descriptor, inode = one.fileno(), inode_of(one.fileno())
        assert not cut(descriptor, inode + 1)
        assert cut(descriptor, inode)
        assert other.recv(1) == b""
    assert not cut(descriptor, inode)


def test_silence_and_closing_are_cut_in_their_time() -> None:
    silent, far = socket.socketpair()
    speaking, near = socket.socketpair()
    with silent, far, speaking, near:
        connections = Connections()
        connections.accepted(silent.fileno(), 0)
        connections.accepted(speaking.fileno(), 0)
        connections.greeted(b"\0a", speaking.fileno(), 1, welcome=True)
        assert connections.wake_at(0) == HELLO_PATIENCE
        connections.cut_overdue(HELLO_PATIENCE)
        assert far.recv(1) == b""
        near.setblocking(False)
        speaking.send(b"x")
        assert near.recv(1) == b"x"
        connections.close(1, HELLO_PATIENCE)
        connections.cut_overdue(HELLO_PATIENCE + CUT_GRACE - 1)
        speaking.send(b"y")
        assert near.recv(1) == b"y"
        connections.cut_overdue(HELLO_PATIENCE + CUT_GRACE)
        assert near.recv(1) == b""


class ReusedDescriptors(RuleBasedStateMachine):
    """libzmq at its worst: few descriptors, hellos that are read late, pipes that end late."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = Connections()
        self.now = 0
        self.count = 0
        #: Descriptor -> routing id that has it now.
        self.has: dict[int, bytes] = {}
        #: Said Hello, not read yet: routing id -> descriptor.
        self.unread: dict[bytes, int] = {}
        self.numbers: dict[bytes, int] = {}
        self.gone: set[bytes] = set()
        self.ended_pipes: set[bytes] = set()
        self.over: list[int] = []
        #: Judged and not read to the end yet.
        self.unforgotten: list[Connection] = []

    @rule(descriptor=st.integers(1000, 1002))
    def a_peer_comes(self, descriptor: int) -> None:
        if descriptor not in self.has:
            self.count += 1
            routing_id = b"\0%d" % self.count
            self.has[descriptor] = routing_id
            self.unread[routing_id] = descriptor
            self.connections.accepted(descriptor, self.now)

    @rule(descriptor=st.integers(1000, 1002))
    def a_peer_goes(self, descriptor: int) -> None:
        routing_id = self.has.pop(descriptor, None)
        if routing_id is not None:
            self.gone.add(routing_id)
            self.connections.disconnected(descriptor, self.now)

    @rule()
    def a_pipe_ends(self) -> None:
        self.ended_pipes.update(self.gone)

    @rule(last=st.booleans())
    def a_hello_is_read(self, last: bool) -> None:
        if self.unread:
            routing_id = list(self.unread)[-1 if last else 0]
            descriptor = self.unread.pop(routing_id)
            connection = self.connections.greeted(routing_id, descriptor, self.now, welcome=True)
            self.numbers[routing_id] = connection.number

    @rule(passing=st.sampled_from([0, 1_000, VERDICT_PATIENCE]))
    def time_passes(self, passing: int) -> None:
        if passing == VERDICT_PATIENCE:
            self.ended_pipes.update(self.gone)  # libzmq takes microseconds, never that long
        self.now += passing
        self.unforgotten += self.connections.judge(lambda routing_id: routing_id not in self.ended_pipes, self.now)

    @rule()
    def everything_is_read(self) -> None:
        over, self.unforgotten = self.unforgotten, []
        self.over += [self.connections.forget(connection) for connection in over]

    @invariant()
    def nobody_is_ended_twice_or_while_he_is_there(self) -> None:
        assert len(self.over) == len(set(self.over))
        present = {self.numbers[routing_id] for routing_id in self.has.values() if routing_id in self.numbers}
        assert not present & set(self.over)

    def teardown(self) -> None:
        while self.unread:
            self.a_hello_is_read(False)
        for _ in range(3):
            self.time_passes(VERDICT_PATIENCE)
            self.everything_is_read()
        expected = {number for routing_id, number in self.numbers.items() if routing_id in self.gone}
        assert set(self.over) == expected


TestReusedDescriptors = ReusedDescriptors.TestCase
TestReusedDescriptors.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
