"""Settling: what children say about their deliveries, applied in one commit (spec D20, D21).

The current delivery of a message may settle it, retry it, give it back or report progress. A delivery whose holder
was judged lost may still settle it, as long as nobody did: the first terminal outcome wins. Everything else is a
duplicate: answered and otherwise ignored.
"""

from __future__ import annotations

import msgspec

from ..message import TERMINAL, Envelope, Kind, More, Outcome, Result, State
from ..requests import Attempt
from ..verbs import Progress, Recall, Return, Settle, Started
from .desk import Desk, TaskSpeed
from .endings import Endings
from .held import Message, Stage
from .past import Past
from .places import Places
from .redelivery import requeue_delay
from .results import Watching
from .sessions import Session
from .states import States

#: Of a batch of settles, every so many a runtime is learned from; a slow one always.
LEARN_EVERY = 16
#: Task types whose speed is remembered; of more, all are measured anew.
SPEEDS_MAX = 100_000
SUCCESS = int(State.SUCCESS)


_result = msgspec.msgpack.Decoder(Result)


class _State(msgspec.Struct, array_like=True):
    """The first field of an encoded Result."""

    state: int


_state = msgspec.msgpack.Decoder(_State)


class Settling:
    """Applies outcomes."""

    def __init__(self, desk: Desk, watching: Watching, endings: Endings, places: Places, states: States) -> None:
        self._desk = desk
        self._states = states
        self._watching = watching
        self._endings = endings
        self._places = places

    def settle(self, session: Session, settle: Settle) -> None:
        """Apply a batch of outcomes. The caller answers with Applied after the commit."""
        desk = self._desk
        held = session.held
        loose = desk.loose
        speeds = desk.speeds
        short = desk.settings.short_task
        count = 0
        #: What succeeded: most of it, and neighbours.
        ended: list[Message] = []
        kept: list[tuple[Message, Outcome]] = []
        for outcome in settle.outcomes:
            message = held.get(outcome.position)
            if message is None or message.lease is None or message.lease.id != outcome.lease:
                self.late(outcome)
                continue
            if count % LEARN_EVERY == 0 or outcome.runtime > short:
                name = message.envelope.name
                speed = speeds.get(name)
                if speed is not None:
                    speed.learn(outcome.runtime)
                else:
                    if len(speeds) >= SPEEDS_MAX:
                        speeds.clear()
                    speeds[name] = TaskSpeed(outcome.runtime)
            count += 1
            state = outcome.state
            if state == SUCCESS:
                # Whatever else this Settle says of it comes too late.
                del held[outcome.position]
                if loose:
                    loose.pop(outcome.position, None)
                ended.append(message)
                if outcome.result:
                    kept.append((message, outcome))
                if outcome.follows:
                    self._follow(message, outcome)
                if outcome.snapshot is not None:
                    self._states.keep(message, outcome)
            elif state == State.RETRY:
                self._retry(message, outcome)
            elif state == State.REQUEUED:
                self._requeue(message)
            elif state in TERMINAL:
                self._finish(message, outcome)
            elif state == State.REFUSED:
                self._refuse(session, message, outcome)
            else:
                # It has run, and nobody can say to what end.
                self._endings.lost(message, f"its child said that it ended in state {state}", session.node)
        if kept:
            self._watching.store_all(kept)
        if ended:
            desk.counts.settled += len(ended)
            desk.end_all(session, ended)

    def _finish(self, message: Message, outcome: Outcome) -> None:
        """A terminal outcome: result, follow-ups and the message's end, all in this commit."""
        desk = self._desk
        if outcome.result:
            self._watching.store(message, outcome.state, outcome.result)
        if outcome.follows:
            self._follow(message, outcome)
        if outcome.snapshot is not None:
            self._states.keep(message, outcome)
        desk.counts.settled += 1
        desk.end(message)

    def _follow(self, message: Message, outcome: Outcome) -> None:
        desk = self._desk
        publisher = message.row.publisher
        for follow in outcome.follows or ():
            mailbox = desk.mailbox(follow.mailbox)
            durability = desk.durability(mailbox)
            for envelope in follow.messages:
                more = envelope.more
                due = resolve(more, desk.now.wall) if more is not None else 0
                self._places.append(mailbox, envelope, publisher=publisher, durability=durability, due=due)

    def late(self, outcome: Outcome) -> None:
        """An outcome of a delivery that is not current: it counts if it is terminal and nobody was first (D21)."""
        desk = self._desk
        message = desk.loose.get(outcome.position)
        # An actor's mailbox listens to its current delivery only.
        if message is None or message.row.mailbox.is_actor or outcome.state not in TERMINAL:
            return
        self._withdraw(message)
        if message.lease is not None:
            # After the Deliver that it takes back, which may wait for its commit.
            desk.journal.say(message.lease.session, Recall([message.position]))
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
        self.renew(message, retry.envelope, desk.now.wall + retry.delay if retry.delay > 0 else 0)

    def renew(self, message: Message, envelope: Envelope, due: int) -> None:
        """Replace a message by its next form, at a new position, in this commit; its past goes on with it."""
        row = message.row
        if envelope.more is not None:
            resolve(envelope.more, self._desk.now.wall)
        self._places.append(
            row.mailbox,
            envelope,
            publisher=row.publisher,
            durability=row.durability,
            past=message.past,
            due=due,
        )
        self._desk.end(message)

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
            self._endings.dead(message, past, f"it was given back {_times(past.requeues)}", "")
            return
        self._places.again(message, desk.now.wall + requeue_delay(past, message.envelope.id, settings.requeue_delay))

    def _refuse(self, session: Session, message: Message, outcome: Outcome) -> None:
        """Its worker would not load the body: a dead letter, which tells what was wrong with it."""
        desk = self._desk
        past = message.past or Past()
        past.refused += 1
        started = message.lease.at if message.lease is not None else 0
        past.remember(
            Attempt(
                worker=session.id,
                node=session.node,
                pid=session.pid,
                incarnation=session.incarnation,
                started_at=started / 1e6,
                ended_at=desk.now.wall / 1e6,
                cause="unsigned",
            ),
            desk.now.wall,
            desk.settings.attempts_kept_max,
        )
        self._endings.refused(message, past, failure_text(outcome.result), outcome.result)

    # --- the rest of what holders say ----------------------------------------------------------------------------

    def give_back(self, session: Session, verb: Return) -> None:
        """Not started, back to the front, no blame. What is under another lease than the child says stays with it."""
        for position, lease in zip(verb.positions, verb.leases, strict=False):
            message = session.held.get(position)
            if message is not None and message.lease is not None and message.lease.id == lease:
                self._places.back(message)

    def started(self, session: Session, verb: Started) -> None:
        """These bodies run."""
        for position in verb.positions:
            message = session.held.get(position)
            if message is not None:
                self._has_started(message)

    def _has_started(self, message: Message) -> None:
        if message.stage == Stage.ACQUIRED:
            message.stage = Stage.STARTED
            mailbox = message.row.mailbox
            mailbox.acquired -= 1
            mailbox.started += 1

    def progress(self, session: Session, verb: Progress) -> None:
        """A body names its state: only the current delivery's word counts (D21), and it proves that the body runs."""
        for position, lease, result in zip(verb.positions, verb.leases, verb.results, strict=False):
            message = session.held.get(position)
            if message is None or message.lease is None or message.lease.id != lease:
                continue
            self._has_started(message)
            if message.envelope.kind != Kind.AFTERMATH and self._desk.keeps_result(message.envelope, failed=False):
                self._watching.store(message, progress_state(result), result)


def failure_text(result: bytes) -> str:
    """What an encoded Result says of its failure; for people."""
    try:
        failure = _result.decode(result).failure
    except msgspec.DecodeError:
        failure = None
    return failure.text if failure is not None else "its worker refused the body and did not say why"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def progress_state(result: bytes) -> int:
    """The state that an encoded Result of a Progress names: STARTED, or CUSTOM for whatever else it says."""
    try:
        state = _state.decode(result).state
    except msgspec.DecodeError:
        return State.CUSTOM
    return State.STARTED if state == State.STARTED else State.CUSTOM


def resolve(more: More, wall: int) -> int:
    """Turn durations into wall times, once (D28); return when the message is due, 0 for at once."""
    if more.delay:
        more.due = wall + more.delay
        more.delay = 0
    if more.expires_in:
        more.expires = wall + more.expires_in
        more.expires_in = 0
    if more.due and more.due <= wall:
        more.due = 0
    return more.due
