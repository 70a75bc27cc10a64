"""Commits: what waited for one leaves when it is on disk, or is made anew when there was no room (spec D7, D29).

When a commit fails for want of room, everything that was not committed comes back. The publishes among it are refused
and undone; the rest (settles, leases, results, what happened to sessions) is written anew, in its old order, without
what was undone. When even that does not fit, or when the store failed for another reason, the broker stops.
"""

from __future__ import annotations

from ..store.records import Append, Lease, Past, Record, Synchronous
from ..verbs import Deliver, FromBroker, Results
from .accept import Accepting
from .desk import Desk
from .events import Effect, Persisted, PersistFailed, Send
from .journal import Batch, Say
from .results import Watching


class Commits:
    """Answers to Persist."""

    def __init__(self, desk: Desk, accepting: Accepting, watching: Watching) -> None:
        self._desk = desk
        self._accepting = accepting
        self._watching = watching
        #: Why there can be no more commits; empty: there can.
        self.over = ""

    def persisted(self, event: Persisted) -> None:
        """Everything up to a serial is on disk: what waited for it happens and is said."""
        duplicates = dict.fromkeys(event.duplicates)
        before = len(self._desk.effects)
        for batch in self._desk.journal.committed(event.serial):
            if duplicates:
                self._duplicates(batch, duplicates)
            for then in batch.then:
                then()
            for say in batch.says:
                self.say(say)
        _let_work_go_on_first(self._desk.effects, before)

    def _duplicates(self, batch: Batch, duplicates: dict[int, None]) -> None:
        """Ids that the store knew: who published them again watches the first one."""
        for accepted in batch.accepted:
            ids = self._accepting.duplicates(accepted, duplicates)
            session = self._desk.sessions.get(accepted.session)
            if ids and session is not None and session.link:
                self._watching.watch(session, ids, snapshot=True)

    def say(self, say: Say) -> None:
        """Send what may leave now, if the link is still there for which it was meant."""
        session = say.session
        if session.link and (not say.link or say.link == session.link):
            desk = self._desk
            # Its Deliver was counted when it was made.
            promised = type(say.verb) is Deliver
            desk.outflow.send(desk.effects, session, say.verb, say.bytes, desk.now.boot, promised=promised)

    def failed(self, event: PersistFailed) -> None:
        """No room: publishes are refused and undone, everything else is written anew (D29). Else: the end."""
        desk = self._desk
        if not event.full:
            self.over = event.reason
            return
        batches = desk.journal.failed()
        desk.failures += 1
        if desk.store_full and not any(batch.accepted for batch in batches):
            self.over = f"not even settles fit on the disk: {event.reason}"
            return
        desk.store_full = True
        desk.notice("store_full", reason=event.reason)
        undone: set[int] = set()
        for batch in batches:
            for accepted in batch.accepted:
                undone.update(row.base for row in accepted.rows)
                undone.update(message.position for message in accepted.messages)
                self._accepting.undo(accepted)
        for batch in batches:
            self._write_anew(batch, undone)
        self._watching.read_again()

    def _write_anew(self, batch: Batch, undone: set[int]) -> None:
        journal = self._desk.journal
        for record in batch.records:
            kept = _without(record, undone)
            if kept is not None:
                journal.open.records.append(kept)
        if batch.synchronous is Synchronous.FULL:
            journal.open.synchronous = Synchronous.FULL
        journal.open.then.extend(batch.then)
        for say in batch.says:
            verb = _without_deliveries(say.verb, undone)
            if verb is not None:
                journal.say(say.session, verb, say.link, say.bytes)
            elif say.link == say.session.link:
                self._desk.outflow.withdraw(say.session, say.bytes)
                self._desk.wake(say.session)


def _let_work_go_on_first(effects: list[Effect], start: int) -> None:
    """Put the links first, from `start` on, on which work can go on by what they hear; each link in its own order.

    On an idle machine the first frame to leave saves the time that another takes, twice in a task's way to its
    caller: a Confirm would come before a Deliver, an Applied before the Results.
    """
    sends = [effect for effect in effects[start:] if isinstance(effect, Send)]
    if len(sends) < 2 or len(sends) < len(effects) - start:
        return
    first = {send.link for send in sends if any(type(verb) is Deliver or type(verb) is Results for verb in send.verbs)}
    effects[start:] = [send for send in sends if send.link in first] + [
        send for send in sends if send.link not in first
    ]


def _without(record: Record, undone: set[int]) -> Record | None:
    """The record without what was undone; None when nothing is left of it."""
    if isinstance(record, Append):
        return None if record.base in undone else record
    if isinstance(record, Past):
        return None if record.position in undone else record
    if isinstance(record, Lease):
        positions = [position for position in record.positions if position not in undone]
        return Lease(record.lease, record.session, positions) if positions else None
    return record


def _without_deliveries(verb: FromBroker, undone: set[int]) -> FromBroker | None:
    if not isinstance(verb, Deliver):
        return verb
    deliveries = [delivery for delivery in verb.deliveries if delivery.position not in undone]
    return Deliver(verb.partition, verb.epoch, verb.lease, deliveries, verb.since) if deliveries else None
