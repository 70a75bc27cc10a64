"""The broker's limits and policies, each with its default and its reason."""

from __future__ import annotations

import msgspec

from ..verbs import Durability

SECOND = 1_000_000


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set. Durations are integer microseconds; sizes are bytes or messages as named."""

    #: Messages that one mailbox may hold, scheduled and leased ones included.
    mailbox_max_messages: int = 10_000_000
    #: At that bound: "reject" (MailboxFull at the call) or "block" (the client tries again until its timeout).
    mailbox_on_full: str = "reject"
    durability: Durability = Durability.DISK
    #: Celery's result_expires.
    result_ttl: int = 86_400 * SECOND
    #: Unconfirmed bytes that a publisher may have in flight (spec D9).
    publish_bytes_max: int = 8 << 20
    #: Bytes sent to a peer and not acknowledged; over it the peer gets nothing but heartbeats (spec D9).
    unacknowledged_bytes_max: int = 16 << 20
    unacknowledged_patience: int = 30 * SECOND
    #: How long a lease waits for its session after the broker restarted (D18), or for evidence (D16).
    evidence_patience: int = 7 * SECOND
    #: How long a child's session whose link closed alone may take to come back (D15).
    reattach_patience: int = 6 * SECOND
    #: A gap of the broker's own clock from which on it grants everybody a grace (D4).
    pause_noticed: int = 3 * SECOND
    pause_grace: int = 6 * SECOND
    heartbeat: int = 2 * SECOND
    #: Sessions, chosen ids and their outcomes are remembered this long without contact (D6).
    session_ttl: int = 86_400 * SECOND
    unique_ttl: int = 86_400 * SECOND
    revoked_ttl: int = 86_400 * SECOND
    #: Messages of one lane (mailbox and priority), and of the schedule, that are in memory ready to go.
    head_messages_max: int = 8_192
    head_bytes_max: int = 16 << 20
    #: Delay before a nacked message comes back, and how often it may (spec P3).
    requeue_delay: int = SECOND
    acquired_max: int = 1_000
    #: Bytes of bodies that a mailbox of durability "memory" may keep ready, since nothing of it rests in the store.
    memory_bytes_max: int = 256 << 20
    #: Most messages that a session may hold (D11), and the longest task type that may be claimed ahead.
    window_max: int = 2_048
    short_task: int = 10_000
    links_max: int = 10_000
    mailboxes_max: int = 100_000
    #: Ids that are watched, all sessions together.
    watches_max: int = 1_000_000
    #: Sessions whose numbers are remembered; of more, those that are away longest are forgotten first.
    sessions_max: int = 100_000
    #: Revoked ids that are remembered; of more, the oldest are forgotten first.
    revoked_max: int = 1_000_000
    #: Attempts kept in a message's story; the first one and the latest ones stay.
    attempts_kept_max: int = 32
