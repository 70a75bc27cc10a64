"""Settling: what children say about their deliveries, applied in one commit (spec D20, D21).

The current delivery of a message may settle it, retry it, give it back or report progress. A delivery whose holder
was judged lost may still settle it, as long as nobody did: the first terminal outcome wins. Everything else is a
duplicate: answered and otherwise ignored.
"""

from __future__ import annotations

from ..message import Envelope, Kind, Outcome, State
from ..requests import Attempt
from ..store.records import Past as PastRecord
from ..verbs import Progress, Recall, Return, Settle, Started
from .desk import Desk, TaskSpeed
from .dispatch import Dispatch
from .endings import Endings
from .held import Message, Stage
from .mailbox import Mailbox
from .past import Past, encode_past
from .redelivery import requeue_delay
from .results import Watching
from .schedule import Schedule
from .sessions import Session

#: Of a batch of settles, every so many a runtime is learned from; a slow one always.
LEARN_EVERY = 16
SUCCESS = int(State.SUCCESS)


class Settling:
    """Applies outcomes."""

    def __init__(
        self, desk: Desk, watching: Watching, endings: Endings, schedule: Schedule, dispatch: Dispatch
    ) -> None:
        self._desk = desk
        self._watching = watching
        self._endings = endings
        self._schedule = schedule
        self._dispatch = dispatch

    def settle(self, session: Session, settle: Settle) -> None:
        """Apply a batch of outcomes. The caller answers with Applied after the commit."""
        desk = self._desk
        held = session.held
        speeds = desk.speeds
        short = desk.settings.short_task
        count = 0
        for outcome in settle.outcomes:
            message = held.get(outcome.position)
            if message is None or message.lease is None or message.lease.id != outcome.lease:
                self._late(outcome)
                continue
            if count % LEARN_EVERY == 0 or outcome.runtime > short:
                name = message.envelope.name
                speed = speeds.get(name)
                if speed is None:
                    speeds[name] = TaskSpeed(outcome.runtime)
                else:
                    speed.learn(outcome.runtime)
            count += 1
            state = outcome.state
            if state == SUCCESS:
                self._finish(message, outcome)
            elif state == State.RETRY:
                self._retry(message, outcome)
            elif state == State.REQUEUED:
                self._requeue(message)
            else:
                self._finish(message, outcome)

    def _finish(self, message: Message, outcome: Outcome) -> None:
        """A terminal outcome: result, follow-ups and the message's end, all in this commit."""
        desk = self._desk
        if outcome.result:
            self._watching.store(message, outcome.state, outcome.result)
        if outcome.follows:
            self._follow(message, outcome)
        desk.counts.settled += 1
        mailbox = message.row.mailbox
        if mailbox.is_actor:
            self._actor_settled(mailbox, message)
        desk.end(message)

    def _follow(self, message: Message, outcome: Outcome) -> None:
        desk = self._desk
        for follow in outcome.follows or ():
            mailbox = desk.mailbox(follow.mailbox)
            for envelope in follow.messages:
                more = envelope.more
                due = 0
                if more is not None:
                    if more.delay:
                        more.due, more.delay = desk.now.wall + more.delay, 0
                    if more.expires_in:
                        more.expires, more.expires_in = desk.now.wall + more.expires_in, 0
                    due = more.due
                new = self._endings.append(mailbox, envelope, publisher=message.row.publisher, due=due)
                if due:
                    self._schedule.add(due, new)

    def _actor_settled(self, mailbox: Mailbox, message: Message) -> None:
        """A suspect head that is settled frees its actor from quarantine."""
        if mailbox.quarantined and message.past is not None:
            mailbox.quarantined = False
            mailbox.blocked_until = 0
            mailbox.owner = None
        self._desk.busy[mailbox.name] = mailbox

    def _late(self, outcome: Outcome) -> None:
        """An outcome of a delivery that is not current: it counts if it is terminal and nobody was first."""
        message = self._desk.loose.get(outcome.position)
        if message is None or outcome.state in (State.RETRY, State.REQUEUED):
            return
        self._withdraw(message)
        if message.lease is not None and message.lease.session.link:
            self._desk.send(message.lease.session.link, Recall([message.position]))
        self._finish(message, outcome)

    def _withdraw(self, message: Message) -> None:
        """Take a message that waits for its next delivery out of its lane; out of heaps its stage takes it."""
        if message.stage == Stage.READY:
            message.row.mailbox.lane(message.row.priority).remove(message)

    def _retry(self, message: Message, outcome: Outcome) -> None:
        """The same message in its next form: a new row, the old one gone, the past carried on."""
        desk = self._desk
        retry = outcome.retry
        if retry is None:
            self._requeue(message)
            return
        if outcome.result:
            self._watching.store(message, State.RETRY, outcome.result)
        if outcome.follows:
            self._follow(message, outcome)
        due = desk.now.wall + retry.delay if retry.delay > 0 else 0
        self.renew(message, retry.envelope, due)

    def renew(self, message: Message, envelope: Envelope, due: int) -> Message:
        """Replace a message by its next form, at a new position, in this commit."""
        desk = self._desk
        past = message.past
        message.past = None
        mailbox = message.row.mailbox
        new = self._endings.append(
            mailbox, envelope, publisher=message.row.publisher, durability_of=message.row, past=past, due=due
        )
        if past is not None:
            past.due = due
            if new.row.durability:
                desk.journal.write(PastRecord(new.position, encode_past(past)), new.row.durability)
        message.past = past
        desk.end(message)
        new.past = past
        if due:
            self._schedule.add(due, new)
        return new

    def _requeue(self, message: Message) -> None:
        """Given back by its own body: after a delay that grows, and not for ever (spec P3)."""
        desk = self._desk
        past = message.past or Past()
        message.past = past
        past.requeues += 1
        settings = desk.settings
        if past.requeues >= settings.acquired_max:
            past.remember(
                Attempt(cause="requeued", ended_at=desk.now.wall / 1e6),
                desk.now.wall,
                settings.attempts_kept_max,
            )
            self._endings.dead(message, past, f"it was given back {past.requeues} times", "")
            return
        delay = requeue_delay(past, message.envelope.id, settings.requeue_delay)
        self.postpone(message, desk.now.wall + delay)

    def postpone(self, message: Message, due: int) -> None:
        """The message waits in the broker until `due`, its past says so on disk."""
        desk = self._desk
        desk.uncount(message)
        desk.unlease(message)
        past = message.past
        assert past is not None
        past.due = due
        past.acquired += message.handed
        message.handed = 0
        self.write_past(message)
        mailbox = message.row.mailbox
        message.stage = Stage.SCHEDULED
        mailbox.scheduled += 1
        self._schedule.add_always(due, message)

    def write_past(self, message: Message) -> None:
        """Keep the message's past in this commit."""
        if message.past is not None and message.row.durability:
            self._desk.journal.write(PastRecord(message.position, encode_past(message.past)), message.row.durability)

    # --- the rest of what holders say ----------------------------------------------------------------------------

    def give_back(self, session: Session, verb: Return) -> None:
        """Not started, back to the front, no blame."""
        desk = self._desk
        for position in sorted(verb.positions, reverse=True):
            message = session.held.get(position)
            if message is None:
                continue
            past = message.past
            if past is not None and past.suspect and not message.row.mailbox.is_actor:
                self._dispatch.suspect(desk.now.wall, message)
            else:
                desk.back(message)
        session.window = verb.window

    def started(self, session: Session, verb: Started) -> None:
        """These bodies run."""
        for position in verb.positions:
            message = session.held.get(position)
            if message is not None and message.stage == Stage.ACQUIRED:
                message.stage = Stage.STARTED
                mailbox = message.row.mailbox
                mailbox.acquired -= 1
                mailbox.started += 1
                session.started.add(position)

    def progress(self, session: Session, verb: Progress) -> None:
        """A body names its state: only the current delivery's word counts (D21)."""
        for position, lease, result in zip(verb.positions, verb.leases, verb.results, strict=False):
            message = session.held.get(position)
            if message is None or message.lease is None or message.lease.id != lease:
                continue
            if message.envelope.kind != Kind.AFTERMATH and self._desk.keeps_result(message.envelope, failed=False):
                self._watching.store(message, State.CUSTOM, result)
