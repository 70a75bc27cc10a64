"""The operator of a simulated world: what people do with a cluster while it works, over a link of their own.

Owns that link. Each call asks and does not wait; what came of it the broker tells when it is committed, and `answers`
has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...transport.errors import GreenroomError
from ...transport.requests import SHAPES, DeadFilter, PurgeMailbox, Revoke
from ...transport.verbs import Op, Reply
from .client import SimClient, SimPromise


class Operator:
    """Somebody with `greenroom` on his command line."""

    def __init__(self, client: SimClient) -> None:
        self.client = client
        #: What was asked, and how many it was about, in order of the answers; -1: it was refused.
        self.answers: list[tuple[Op, int]] = []

    def redrive(self, ids: Sequence[str] = ()) -> None:
        """Let dead letters run again: these, or all."""
        self._ask(Op.DEAD_REDRIVE, DeadFilter(list(ids)))

    def purge_dead(self, ids: Sequence[str] = ()) -> None:
        """Drop dead letters for good: these, or all."""
        self._ask(Op.DEAD_PURGE, DeadFilter(list(ids)))

    def purge(self, mailbox: str) -> None:
        """Drop what waits in a mailbox."""
        self._ask(Op.PURGE, PurgeMailbox(mailbox))

    def revoke(self, id: str, *, terminate: bool = False) -> None:
        """Let this message not start; with `terminate`, end it where it runs."""
        self._ask(Op.REVOKE, Revoke([id], terminate))

    def _ask(self, op: Op, params: msgspec.Struct) -> None:
        promise = self.client.ask(op, params)

        def answered(promise: SimPromise[Reply]) -> None:
            try:
                reply = promise.result(0)
            except GreenroomError:
                count: Any = -1
            else:
                count = msgspec.msgpack.decode(reply.value, type=SHAPES[op][1])
                count = getattr(count, "count", 0)
            self.answers.append((op, count))

        promise.add_done_callback(answered)
