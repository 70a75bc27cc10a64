"""Endings that no child reported: lost, timed out, revoked, expired, dead (spec D23).

Each is one commit: the message is SETTLED, its result is kept where it keeps one, and a message of kind AFTERMATH is
appended to the same mailbox, from which an ordinary child runs hooks, signals and errbacks. An aftermath makes none
of its own.
"""

from __future__ import annotations

import msgspec

from ..codec import encode_envelopes
from ..message import Aftermath, Envelope, Flag, Kind, State
from ..store.records import Dead
from ..verbs import Durability
from .desk import Desk
from .held import Message
from .past import Past, encode_past
from .places import Places
from .results import Watching, failure_result, retries_of, revoked_result


class Endings:
    """Ends messages in the broker's own name."""

    def __init__(self, desk: Desk, watching: Watching, places: Places) -> None:
        self._desk = desk
        self._watching = watching
        self._places = places

    def before_start(self, message: Message) -> bool:
        """Judge a message that is about to go out: True if it was revoked or has expired, and has ended here."""
        envelope = message.envelope
        if envelope.id in self._desk.revoked and envelope.kind != Kind.AFTERMATH:
            self.revoked(message, "revoked")
            return True
        more = envelope.more
        if more is not None and 0 < more.expires <= self._desk.now.wall:
            self.revoked(message, "expired")
            return True
        return False

    def lost(self, message: Message, why: str, worker: str) -> None:
        """FAILURE WorkerLostError: it may have run, and must not run again."""
        text = f"Worker exited prematurely: {why}."
        self._fail(message, "WorkerLostError", text, worker, "lost")

    def timed_out(self, message: Message, limit: int, worker: str) -> None:
        """FAILURE TimeLimitExceeded; `limit` in microseconds, 0 where it is the worker's own and not the message's."""
        if limit:
            # Celery's text, and the exception's own when it is rebuilt from its argument.
            seconds = _seconds(limit)
            self._fail(message, "TimeLimitExceeded", f"TimeLimitExceeded({seconds},)", worker, "lost", [seconds])
        else:
            self._fail(message, "TimeLimitExceeded", "killed at the hard time limit of its worker", worker, "lost")

    def revoked(self, message: Message, text: str, worker: str = "") -> None:
        """REVOKED: 'revoked', 'expired' or 'terminated'."""
        desk = self._desk
        envelope = message.envelope
        blob = revoked_result(text, done_at=desk.now.wall, worker=worker)
        if desk.keeps_result(envelope, failed=False):
            self._watching.store(message, State.REVOKED, blob)
        self._aftermath(message, State.REVOKED, blob, text)
        desk.end(message)

    def dead(self, message: Message, past: Past, why: str, worker: str) -> None:
        """A dead letter with its story, and FAILURE PoisonMessage."""
        envelope = message.envelope
        text = f"{envelope.name}[{envelope.id}] was set aside{_after(past.bad_ends)}: {why}"
        self._set_aside(message, past, text)
        self._fail(message, "PoisonMessage", text, worker, "dead")

    def refused(self, message: Message, past: Past, why: str, blob: bytes) -> None:
        """A dead letter whose body no worker has loaded; `blob` is the FAILURE that the worker made of it.

        No aftermath: a child reported it, and hooks without arguments would have nothing to go by.
        """
        desk = self._desk
        self._set_aside(message, past, f"unsigned: {why}")
        if desk.keeps_result(message.envelope, failed=True):
            self._watching.store(message, State.FAILURE, blob)
        desk.end(message)

    def _set_aside(self, message: Message, past: Past, text: str) -> None:
        """Write the letter, whatever the mailbox survives."""
        desk = self._desk
        envelope = message.envelope
        mailbox = message.row.mailbox
        desk.journal.write(
            Dead(
                message.position,
                envelope.id,
                mailbox.name,
                envelope.name,
                text,
                desk.now.wall,
                encode_envelopes([envelope]),
                encode_past(past),
            ),
            max(message.row.durability, Durability.PROCESS),
        )
        mailbox.dead += 1
        desk.counts.dead += 1
        desk.notice("dead_letter", id=envelope.id, task=envelope.name, mailbox=mailbox.name, reason=text)

    def _fail(
        self,
        message: Message,
        exc_type: str,
        text: str,
        worker: str,
        reason: str,
        args: list[float | int] | None = None,
    ) -> None:
        desk = self._desk
        envelope = message.envelope
        blob = failure_result(
            exc_type,
            text,
            done_at=desk.now.wall,
            worker=worker,
            retries=retries_of(envelope),
            args=args,
            dead=reason == "dead",
        )
        if desk.keeps_result(envelope, failed=True):
            self._watching.store(message, State.FAILURE, blob)
        self._aftermath(message, State.FAILURE, blob, reason)
        desk.end(message)

    def _aftermath(self, message: Message, state: int, blob: bytes, reason: str) -> None:
        envelope = message.envelope
        if envelope.kind == Kind.AFTERMATH:
            return
        body = msgspec.msgpack.encode(Aftermath(envelope, state, blob, reason))
        after = Envelope(
            id=f"{envelope.id}.aftermath"[:255],
            name=envelope.name,
            content="aftermath",
            body=body,
            flags=Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST | Flag.IGNORE_RESULT,
            priority=envelope.priority,
            kind=Kind.AFTERMATH,
            origin=envelope.origin,
        )
        self._places.append(message.row.mailbox, after, publisher="", durability=message.row.durability)


def _after(bad_ends: int) -> str:
    if not bad_ends:
        return ""
    deliveries = "1 delivery" if bad_ends == 1 else f"{bad_ends} deliveries"
    return f" after {deliveries} that ended badly"


def _seconds(microseconds: int) -> float | int:
    seconds = microseconds / 1_000_000
    return int(seconds) if seconds == int(seconds) else seconds
