"""Channels: framed messages and descriptors over a socket that never waits."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.supervisor.pool import channel as channels
from greenroom.supervisor.pool.channel import FRAME_BYTES_MAX, Channel


def pair() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), Channel(theirs)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20))
def test_messages_come_whole_and_in_order(messages: list[bytes]) -> None:
    here, there = pair()
    for message in messages:
        here.send(message)
    assert there.receive() == messages
    here.close()
    assert there.receive() == []
    assert there.closed
    there.close()


def test_a_message_in_pieces_comes_when_its_last_byte_does() -> None:
    ours, theirs = socket.socketpair()
    there = Channel(theirs)
    for byte in b"\0\0\0\x02h":
        ours.send(bytes([byte]))
        assert there.receive() == []
    ours.send(b"i")
    assert there.receive() == [b"hi"]
    ours.close()
    there.close()


def test_a_peer_that_does_not_read_holds_nobody_up_and_gets_all_later() -> None:
    here, there = pair()
    messages = [bytes([n]) * 100_000 for n in range(1, 30)]
    for message in messages:
        here.send(message)
    assert here.wants_to_send
    received: list[bytes] = []
    while len(received) < len(messages):
        received += there.receive()
        here.flush()
    assert received == messages
    assert not here.wants_to_send
    here.close()
    there.close()


def test_descriptors_come_with_their_messages_and_are_closed_here() -> None:
    here, there = pair()
    pipes = [os.pipe() for _ in range(3)]
    for n, (_, writer) in enumerate(pipes):
        here.send(b"%d" % n, [writer])
    assert there.receive() == [b"0", b"1", b"2"]
    for n, (reader, _) in enumerate(pipes):
        writer = there.take_descriptor()
        assert not os.get_inheritable(writer)
        os.write(writer, b"%d" % n)
        os.close(writer)
        assert os.read(reader, 10) == b"%d" % n
        assert os.read(reader, 10) == b"", "somebody still has the other end"
        os.close(reader)
    here.close()
    there.close()


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_the_channel(length: int) -> None:
    ours, theirs = socket.socketpair()
    there = Channel(theirs)
    ours.send(length.to_bytes(4, "big") + b"rubbish")
    assert there.receive() == []
    assert there.closed
    ours.close()
    there.close()


def test_a_peer_that_never_reads_is_given_up_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "UNSENT_BYTES_MAX", 1_000_000)
    here, there = pair()
    reader, writer = os.pipe()
    while not here.closed:
        here.send(b"x" * 100_000)
    here.send(b"late", [writer])
    assert os.read(reader, 1) == b"", "the descriptor of a message that is not sent is closed all the same"
    os.close(reader)
    here.close()
    there.close()


def test_a_send_to_a_peer_that_is_gone_closes_the_channel() -> None:
    here, there = pair()
    there.close()
    here.send(b"hello")
    assert here.closed
    here.close()
