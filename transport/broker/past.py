"""The past of a message: counters and attempts, kept from its first bad event on (spec D8, P2, P8).

This file owns the record and its encoding. Who is blamed and what follows is in `redelivery.py`.
"""

from __future__ import annotations

import msgspec

from ..requests import Attempt


class Past(msgspec.Struct):
    """What happened to a message so far. Times are wall microseconds; 0 is "not yet"."""

    #: Deaths of a process in which this was the only started body.
    solo: int = 0
    #: Deaths of a process in which other bodies had started too.
    joint: int = 0
    #: Starts that ended with the loss of the whole node.
    node_losses: int = 0
    #: Hard time limits with REDELIVER_ON_TIMEOUT.
    timeouts: int = 0
    #: Given back by the body itself (Reject with requeue).
    requeues: int = 0
    #: Deliveries whose body the worker would not load.
    refused: int = 0
    #: Hand-outs before the broker's last start, as far as they left a trace.
    acquired: int = 0
    redriven: int = 0
    suspect: bool = False
    due: int = 0
    first_failure: int = 0
    last_failure: int = 0
    attempts: list[Attempt] = []

    @property
    def bad_ends(self) -> int:
        """Deliveries that ended badly, of whatever kind: what the delay before the next one grows with."""
        return self.solo + self.joint + self.node_losses + self.timeouts

    def remember(self, attempt: Attempt, wall: int, kept_max: int) -> None:
        """Add an attempt to the story; of too many, the first one and the latest stay."""
        self.first_failure = self.first_failure or wall
        self.last_failure = wall
        self.attempts.append(attempt)
        if len(self.attempts) > kept_max:
            del self.attempts[1]

    def counters(self) -> dict[str, int]:
        """The counters by name, for people."""
        return {
            "acquired": self.acquired,
            "crashes_solo": self.solo,
            "crashes_joint": self.joint,
            "node_losses": self.node_losses,
            "timeouts": self.timeouts,
            "requeues": self.requeues,
            "refused": self.refused,
            "redriven": self.redriven,
        }


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Past)


def encode_past(past: Past) -> bytes:
    """For the store."""
    return _encoder.encode(past)


def decode_past(blob: bytes) -> Past:
    """From the store. Raises msgspec.DecodeError where the bytes are damaged."""
    return _decoder.decode(blob)
