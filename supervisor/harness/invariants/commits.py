"""Promises that the ledger judges: about what a broker commits, hands out and says.

The judgement itself is the referee's (`transport.sim.referee`), who sees every record and verb; here are the names and
sentences. `CODEC` and `BOUND` are judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ....transport import codec
from ....transport.codec import BadFrame
from ....transport.store.records import Append, Record
from ....transport.verbs import FromBroker, ToBroker
from ..observer import Observer
from ..world import World
from .base import Invariant

#: Bounds above this are out of a simulated world's reach.
_COUNTED_MAX: Final = 10_000


class Ledgered(Invariant):
    """A promise that needs the broker's commits, and is judged by the ledger."""

    by_events = False


class Loss(Ledgered):
    """LOSS."""

    name = "LOSS"
    sentence = (
        "A confirmed task is always in exactly one of ready, scheduled, acquired, started, settled, dead, and leaves "
        "its place only for a reason."
    )


class Innocent(Ledgered):
    """INNOCENT."""

    name = "INNOCENT"
    sentence = (
        "A message is charged with a death only if its body had started in the process that died, and with the loss "
        "of a node only if its holder was lost."
    )


class Order(Ledgered):
    """ORDER."""

    name = "ORDER"
    sentence = "First deliveries of one sender, mailbox and priority go out in the order in which they were accepted."


class Time(Ledgered):
    """TIME."""

    name = "TIME"
    sentence = "Nothing goes out before it is due, and nothing after it has expired."


class Credit(Ledgered):
    """CREDIT."""

    name = "CREDIT"
    sentence = "Nobody is given more than his window, nor more than his free slots of what is not known to be short."


class CommitFirst(Ledgered):
    """D7."""

    name = "D7"
    sentence = (
        "Nothing is confirmed before it is in the store, and nothing handed out before its lease is; the number of a "
        "position or a lease is used once, and a publisher whose number is in the store is known."
    )


class Alone(Ledgered):
    """D25."""

    name = "D25"
    sentence = "What may have ended its process is handed out to nobody but a quarantine child, until it is settled."


class DurableState(Ledgered):
    """STATE."""

    name = "STATE"
    sentence = (
        "An actor's durable state changes in the commit that ends the message which changed it, and from the state "
        "that was there; who gets the actor is told that state, and nothing is changed under a lease that is over."
    )


class Codec(Invariant, Observer):
    """CODEC."""

    name = "CODEC"
    sentence = "What was said is what is read: decode(encode(x)) is x."
    by_events = False

    def said(self, session: str, verb: FromBroker) -> None:
        """Read what the broker says."""
        self.premises += 1
        read = codec.decode_from_broker(codec.encode([verb]))
        if isinstance(read, BadFrame) or read != [verb]:
            self.violated(f"a broker says {type(verb).__name__}, and its peer reads {read}")

    def heard(self, session: str, verb: ToBroker) -> None:
        """What came was read from bytes before."""
        self.premises += 1


class Bound(Invariant, Observer):
    """BOUND."""

    name = "BOUND"
    sentence = "No mailbox takes messages of publishers beyond its bound."
    by_events = False

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        #: What is in each mailbox and not settled.
        self.unsettled: Callable[[str], int] = lambda _: 0

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """Of what publishers alone have added, nothing is beyond the bound. Called after the ledger was told."""
        core = None if self.world is None else self.world.broker.core
        if core is None:
            return
        desk = core.broker.desk
        senders: dict[str, bool] = {}
        for record in records:
            if isinstance(record, Append):
                senders[record.mailbox] = senders.get(record.mailbox, True) and bool(record.session)
        for name in [name for name, by_publishers in senders.items() if by_publishers and name in desk.mailboxes]:
            declared = desk.mailboxes[name].declared.max_messages
            bound = desk.settings.mailbox_max_messages if declared is None else declared
            self.premises += 1
            if bound <= _COUNTED_MAX and (depth := self.unsettled(name)) > bound:
                self.violated(f"{name} has taken {depth} messages, and its bound is {bound}")
