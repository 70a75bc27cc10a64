"""What the consumer of a child is told, what it asks for, and what passes between it and the hot loop.

Batches stand in events and effects, as everywhere: one `Received` with its verbs. `Held` is the one object a
message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ...transport.message import Delivery
from ...transport.verbs import Bounds, ChildKind, FromBroker, TaskPolicy, ToBroker


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer is for. `outcomes_max`: a quarter of a ring, so that no entry is overwritten."""

    mailboxes: list[str]
    slots: int = 1
    kind: int = ChildKind.POOL
    policies: list[TaskPolicy] = []
    actors: list[str] = []
    bounds: Bounds | None = None
    outcomes_max: int = 256
    #: Bodies after which the child leaves; 0: no bound.
    max_tasks: int = 0
    #: Resident memory in KiB from which on the child leaves; 0: no bound.
    max_memory_kib: int = 0


class Held(msgspec.Struct, gc=False):
    """One delivery in this child. `expires_at` is boot time; `expired`: its body must not run.

    `since`: of an actor's message, the first lease under which this child has the actor now.
    """

    delivery: Delivery
    lease: int
    expires_at: int = 0
    expired: bool = False
    since: int = 0


class Batch(msgspec.Struct, gc=False):
    """Encoded outcomes for one Settle. `runners`: whose they are, one each in order; empty: all are runner 0's."""

    encoded: list[bytes]
    runners: list[int]
    #: The window to tell the broker with it, if it has changed enough.
    credit: int | None = None


# --- events -------------------------------------------------------------------------------------------------


class Welcomed(msgspec.Struct, frozen=True):
    """The broker said Welcome on a new link, and what it had not answered was said again."""


class Detached(msgspec.Struct, frozen=True):
    """There is no link at present."""


class Received(msgspec.Struct, frozen=True):
    """What the broker said, in order."""

    verbs: Sequence[FromBroker]


class LongBodies(msgspec.Struct, frozen=True):
    """These runners' bodies have run for LONG_BODY; told once for each body."""

    runners: list[int]


class MemoryMeasured(msgspec.Struct, frozen=True):
    """The resident memory of this process, after a body."""

    kib: int


class Stop(msgspec.Struct, frozen=True):
    """Give back what has not started, finish the rest, and leave; `cold`: do not wait for what runs."""

    reason: str
    cold: bool = False


class Tick(msgspec.Struct, frozen=True):
    """Time has passed, or the hot loop found nothing to start. `heard`: the stamp in the page."""

    heard: int


Event = Welcomed | Detached | Received | LongBodies | MemoryMeasured | Stop | Tick

# --- effects ------------------------------------------------------------------------------------------------


class Say(msgspec.Struct, frozen=True):
    """Send this verb on the present link; it is dropped with the link."""

    verb: ToBroker


class GiveBack(msgspec.Struct, frozen=True):
    """Send a numbered `Return` of these, each with the lease under which it was held."""

    positions: list[int]
    window: int
    leases: list[int]

    @classmethod
    def of(cls, held: Iterable[Held], window: int) -> GiveBack:
        """These, each under its own lease: the broker may have handed out one of them anew in the meantime."""
        held = list(held)
        return cls([one.delivery.position for one in held], window, [one.lease for one in held])


class Interrupt(msgspec.Struct, frozen=True):
    """Stop the body of this runner, if it still runs this position. `how`: a signal number, 0: softly."""

    runner: int
    position: int
    how: int


class MarkSettled(msgspec.Struct, frozen=True):
    """Entries of these runners' rings are no evidence any more (one entry a mention)."""

    runners: list[int]


class Reattach(msgspec.Struct, frozen=True):
    """Give up the link and make a new one: what was held may have been given to others."""

    reason: str


class Finish(msgspec.Struct, frozen=True):
    """Nothing is left to do: say goodbye and end this process in order."""

    reason: str


Effect = Say | GiveBack | Interrupt | MarkSettled | Reattach | Finish
