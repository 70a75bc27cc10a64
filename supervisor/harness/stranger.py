"""Somebody who is no part of the cluster and talks to its broker: noise, damaged frames, words that he may not say.

Owns such a peer, and what it says: conversations, each on a link of its own, since the broker cuts most of them. What
it is told is kept. A stranger knows the broker's token: what the door keeps out is `transport.wire`'s business.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from ...transport import codec
from ...transport.codec import BadFrame, Parts
from ...transport.message import Outcome, State
from ...transport.verbs import (
    PROTOCOL_VERSION,
    Attach,
    FromBroker,
    Group,
    Hello,
    Publish,
    Report,
    Role,
    Settle,
)
from .clockwork import Process
from .world import ADDRESS, World

#: Between two words of his.
PAUSE: Final = 1_000
_NOISE_BYTES: Final = (0, 1, 7, 200, 5_000)
_DEPTH: Final = 1_000

Conversation = Sequence[Parts]


class Stranger(Process):
    """One stranger. He begins at once."""

    def __init__(self, world: World, conversations: Sequence[Conversation]) -> None:
        super().__init__(world.clockwork, f"stranger{world.count_stranger()}")
        #: What he was told.
        self.heard: list[FromBroker] = []
        #: His links that the broker has cut, of how many.
        self.cut = 0
        self.links = 0
        self._conversations = conversations
        self.fiber(self._run)

    def _run(self) -> None:
        network = self.clockwork.network
        for conversation in self._conversations:
            link = network.connect(ADDRESS, self.host)
            self.links += 1
            link.on_news(self.fibers[0].wake)
            for message in conversation:
                link.send(message)
                until = self.now.boot + PAUSE
                while self.now.boot < until:
                    self.fibers[0].sleep(until)
                    for answer in link.receive():
                        verbs = codec.decode_from_broker(answer)
                        self.heard += [] if isinstance(verbs, BadFrame) else verbs
            self.cut += link.closed
            link.close()
        self.die()


def noise(stream: random.Random, child: str = "session-1/1") -> list[Conversation]:
    """Return what a broker must never take for anything. `stream` draws the random bytes; of the session `child` it is
    said that its process has ended."""
    settle = codec.encode([Settle(1, [Outcome(1, 1, State.SUCCESS)])])
    random_bytes = [[stream.randbytes(size)] for size in _NOISE_BYTES]
    deep = [bytes([0x91]) * _DEPTH + b"\x90"]
    bomb = [b"\xdd\x7f\xff\xff\xff" + bytes(100)]
    one = msgspec.Raw(codec.encode_envelopes([]))
    lying = codec.encode_publish(Publish(0, 1, 0, [Group("celery", 2, one)]), [])
    return [
        *([message] for message in random_bytes),
        [settle],
        [_hello(stream, 0), [b"\xc1"]],
        [_hello(stream, 1), [settle[0][:-1]]],
        [_hello(stream, 2), deep],
        [_hello(stream, 3), bomb],
        [_hello(stream, 4), lying],
        [_hello(stream, 5), settle],
        [_hello(stream, 6), codec.encode([Attach(["celery"], 1, 1)])],
        [_hello(stream, 7), codec.encode([Report(1, child)])],
        [_hello(stream, 8, role=9)],
        [[b""], []],
    ]


def other_version(difference: int) -> list[Conversation]:
    """Return what a worker of a later, or an earlier, version of the protocol says first."""
    hello = Hello(PROTOCOL_VERSION + difference, Role.NODE, "celery@stranger", "a session of another version", 1, 1)
    return [[codec.encode([hello]), codec.encode([Settle(1, [Outcome(1, 1, State.SUCCESS)])])]]


def _hello(stream: random.Random, number: int, *, role: int = Role.CLIENT) -> Parts:
    session = f"a stranger's session {number} {stream.getrandbits(32)}"
    return codec.encode([Hello(PROTOCOL_VERSION, role, "stranger", session, 1, 1)])
