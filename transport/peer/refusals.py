"""Refusals in the caller's words: which error he gets for what a broker, or the lack of one, made of his publish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import (
    BrokerUnavailable,
    GreenroomError,
    MailboxFull,
    NotAllowed,
    RemoteProtocolError,
    StoreFull,
    UnknownOutcome,
)
from ..verbs import Confirm, Refusal

#: How the broker marks the refusal of a mailbox whose policy is to wait.
BLOCK_PREFIX: Final = "block:"


def unavailable(addresses: Sequence[str], waited_seconds: float, why: str) -> BrokerUnavailable:
    """Return the error of a call that no broker heard."""
    known = tuple(addresses)
    plain = BrokerUnavailable(addresses=known, waited_seconds=round(waited_seconds, 1))
    if not why:
        return plain
    return BrokerUnavailable(f"{plain} (last: {why})", addresses=known, waited_seconds=plain.waited_seconds)


def error_of(confirm: Confirm, mailbox: str) -> GreenroomError:
    """Return the error of a batch that was refused."""
    detail = confirm.detail
    if confirm.refusal == Refusal.MAILBOX_FULL:
        return MailboxFull(detail, mailbox=mailbox)
    if confirm.refusal == Refusal.STORE_FULL:
        return StoreFull(f"{detail or 'the store is full'}; nothing was accepted; free some space on the broker's disk")
    if confirm.refusal == Refusal.NOT_ALLOWED:
        return NotAllowed(detail or f"publishing to mailbox {mailbox!r} is not allowed")
    if confirm.refusal == Refusal.UNKNOWN_SESSION:
        return UnknownOutcome(detail or "the broker does not know this session: what became of the batch is unknown")
    return RemoteProtocolError(f"the broker refused a batch for mailbox {mailbox!r}: {detail or confirm.refusal}")
