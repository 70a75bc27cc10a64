"""Requests: looking in and acting from outside (mailboxes, dead letters, purge, revoke, status).

Each is answered with one `Reply`. What only looks is answered at once or after a read; what acts is answered after its
commit. A redrive gives its messages new positions at the end of their mailbox; their past is kept, its counters
begin anew, and the letter and its result go in the same commit.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..codec import decode_envelopes
from ..message import Envelope
from ..requests import (
    LIST_MAX,
    SHAPES,
    Count,
    DeadFilter,
    DeadInfo,
    DeadPage,
    Declare,
    Fetched,
    FetchResults,
    FetchState,
    Forget,
    Mailboxes,
    MailboxInfo,
    MailboxList,
    PurgeMailbox,
    Revoke,
    SessionInfo,
    Status,
)
from ..store.records import Dead, DeadGone, ResultsGone, Revoked
from ..verbs import Op, Reply, Request
from .desk import Desk
from .events import DeadRead, ReadDead, ReadResults, ResultsRead
from .held import Stage
from .mailbox import Mailbox
from .outflow import VERB_BYTES
from .past import Past, decode_past
from .places import Places
from .removal import Removal
from .sessions import Session
from .states import States

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Op, msgspec.msgpack.Decoder[Any]] = {
    op: msgspec.msgpack.Decoder(shapes[0]) for op, shapes in SHAPES.items()
}


class Waiting(msgspec.Struct):
    """A request whose read is under way."""

    session: Session
    number: int
    op: Op
    filter: DeadFilter
    count: int = 0


class Admin:
    """Answers requests."""

    def __init__(self, desk: Desk, places: Places, removal: Removal, states: States) -> None:
        self._desk = desk
        self._places = places
        self.removal = removal
        self._states = states
        self._reads: dict[int, Waiting] = {}
        #: Dead letters that are gone as soon as it is committed: a read from before may still show them.
        self._acted: dict[int, None] = {}

    def request(self, session: Session, request: Request) -> None:
        """Take one request."""
        try:
            op = Op(request.op)
            params = _decoders[op].decode(request.params)
        except (ValueError, msgspec.MsgspecError) as error:
            self._error(session, request.number, f"request {request.op} cannot be read: {error}")
            return
        match params:
            case Mailboxes():
                self._reply(session, request.number, self._mailboxes(params))
            case FetchResults():
                token = self._read(session, request.number, op)
                self._desk.effects.append(ReadResults(token, params.ids[:LIST_MAX]))
            case DeadFilter():
                self._read_dead(session, request.number, op, params)
            case PurgeMailbox():
                self._answer(session, request.number, Count(self.removal.purge(params.mailbox)))
                if params.state:
                    self._states.forget(params.mailbox)
            case FetchState():
                self._states.fetch(session, request.number, params.mailbox)
            case Revoke():
                self._answer(session, request.number, Count(self.removal.revoke(params)))
            case Forget():
                self._desk.journal.write(ResultsGone(params.ids))
                self._answer(session, request.number, Count(len(params.ids)))
            case Declare():
                self._declare(session, request.number, params)
            case _:
                self._reply(session, request.number, self._status())

    # --- answers -------------------------------------------------------------------------------------------------

    def _reply(self, session: Session, number: int, value: msgspec.Struct) -> None:
        encoded = _encoder.encode(value)
        self._desk.send(session, Reply(number, value=msgspec.Raw(encoded)), len(encoded) + VERB_BYTES)

    def _answer(self, session: Session, number: int, value: msgspec.Struct) -> None:
        """Reply after the commit of this pass."""
        self._desk.journal.say(session, Reply(number, value=msgspec.Raw(_encoder.encode(value))))

    def _error(self, session: Session, number: int, error: str) -> None:
        self._desk.send(session, Reply(number, error))

    def _read(self, session: Session, number: int, op: Op, filter: DeadFilter | None = None) -> int:
        token = self._desk.token()
        self._reads[token] = Waiting(session, number, op, filter or DeadFilter())
        return token

    # --- mailboxes -----------------------------------------------------------------------------------------------

    def _mailboxes(self, params: Mailboxes) -> MailboxList:
        names = params.names or sorted(self._desk.mailboxes)
        infos: list[MailboxInfo] = []
        for name in names[:LIST_MAX]:
            mailbox = self._desk.mailboxes.get(name)
            if mailbox is not None:
                infos.append(self.info(mailbox))
        return MailboxList(infos)

    def info(self, mailbox: Mailbox) -> MailboxInfo:
        """One mailbox as people see it."""
        oldest = 0.0
        lane = mailbox.first_lane()
        if lane is not None:
            born = _born(lane.head[0].envelope)
            oldest = max(0.0, (self._desk.now.wall - born) / 1e6) if born else 0.0
        consumers = sum(1 for session in mailbox.consumers if session.link)
        if mailbox.owner is not None and mailbox.owner.link:
            consumers = 1
        return MailboxInfo(
            mailbox.name,
            mailbox.ready,
            mailbox.scheduled,
            mailbox.acquired,
            mailbox.started,
            mailbox.depth,
            oldest,
            consumers,
            mailbox.dead,
        )

    def _declare(self, session: Session, number: int, params: Declare) -> None:
        if params.on_full not in (None, "reject", "block"):
            self._error(session, number, f"on_full is 'reject' or 'block', not {params.on_full!r}")
            return
        if params.durability not in (None, 0, 1, 2):
            self._error(session, number, f"durability is 0 (memory), 1 (process) or 2 (disk), not {params.durability}")
            return
        desk = self._desk
        limit = desk.settings.mailboxes_max
        if params.mailbox not in desk.mailboxes and len(desk.mailboxes) >= limit:
            self._error(session, number, f"the broker has {limit} mailboxes, its limit")
            return
        desk.declare(params.mailbox, params.max_messages, params.on_full, params.durability)
        self._answer(session, number, Count(1))

    # --- results -------------------------------------------------------------------------------------------------

    def results_read(self, event: ResultsRead) -> bool:
        """Results that a request asked for; False if it was not one of ours."""
        waiting = self._reads.pop(event.token, None)
        if waiting is None:
            return False
        self._reply(waiting.session, waiting.number, Fetched([(row.id, row.state, row.blob) for row in event.results]))
        return True

    # --- dead letters --------------------------------------------------------------------------------------------

    def _read_dead(self, session: Session, number: int, op: Op, filter: DeadFilter) -> None:
        limit = min(filter.limit, LIST_MAX) if op in (Op.DEAD_LIST, Op.DEAD_SHOW) else LIST_MAX
        token = self._read(session, number, op, msgspec.structs.replace(filter, limit=limit))
        self._desk.effects.append(ReadDead(token, filter.after, limit, filter.mailbox, filter.task, filter.ids))

    def dead_read(self, event: DeadRead) -> None:
        """Dead letters that a request asked for."""
        waiting = self._reads.pop(event.token, None)
        if waiting is None:
            return
        if waiting.op in (Op.DEAD_LIST, Op.DEAD_SHOW):
            show = waiting.op is Op.DEAD_SHOW
            letters = [dead_info(letter, body=show) for letter in event.letters]
            total = sum(mailbox.dead for mailbox in self._desk.mailboxes.values())
            more = len(letters) >= waiting.filter.limit
            self._reply(waiting.session, waiting.number, DeadPage(letters, total, more))
            return
        self._act_on_dead(waiting, event.letters)

    def _act_on_dead(self, waiting: Waiting, letters: list[Dead]) -> None:
        desk = self._desk
        # Two requests may have read the same letters before either has acted.
        fresh = [letter for letter in letters if letter.position not in self._acted]
        for letter in fresh:
            self._acted[letter.position] = None
            mailbox = desk.mailbox(letter.mailbox)
            mailbox.dead = max(0, mailbox.dead - 1)
            if waiting.op is Op.DEAD_REDRIVE:
                self._redrive(letter, mailbox)
        if fresh:
            positions = [letter.position for letter in fresh]
            desk.journal.write(DeadGone(positions))
            desk.journal.open.then.append(lambda: self._gone(positions))
        waiting.count += len(fresh)
        if len(letters) >= LIST_MAX:
            token = desk.token()
            self._reads[token] = waiting
            filter = waiting.filter
            desk.effects.append(
                ReadDead(token, letters[-1].position, LIST_MAX, filter.mailbox, filter.task, filter.ids)
            )
            return
        self._answer(waiting.session, waiting.number, Count(waiting.count))

    def _gone(self, positions: list[int]) -> None:
        for position in positions:
            self._acted.pop(position, None)

    def _redrive(self, letter: Dead, mailbox: Mailbox) -> None:
        desk = self._desk
        envelope = decode_envelopes(letter.blob)[0]
        past = decode_past(letter.story)
        fresh = Past(
            redriven=past.redriven + 1,
            attempts=past.attempts,
            first_failure=past.first_failure,
            last_failure=past.last_failure,
        )
        # Its end is undone: until it has another one nothing is known of it.
        desk.journal.write(ResultsGone([envelope.id]))
        if desk.revoked.pop(envelope.id, None) is not None:
            desk.journal.write(Revoked(envelope.id, desk.now.wall))
        if envelope.more is not None:
            # It died after it was due; a past expiry would end it unseen, and a person asked for it now.
            envelope.more.due = 0
            envelope.more.expires = 0
        self._places.append(mailbox, envelope, publisher="", durability=desk.durability(mailbox), past=fresh)

    # --- status --------------------------------------------------------------------------------------------------

    def _status(self) -> Status:
        desk = self._desk
        counts = desk.counts
        return Status(
            desk.name,
            desk.epoch,
            (desk.now.boot - desk.started_at.boot) / 1e6,
            counts.accepted,
            counts.settled,
            counts.redelivered,
            sum(mailbox.dead for mailbox in desk.mailboxes.values()),
            counts.refused,
            desk.store_full,
            [_session_info(session) for session in list(desk.sessions.values())[:LIST_MAX]],
        )


def dead_info(letter: Dead, *, body: bool) -> DeadInfo:
    """A dead letter as people see it."""
    envelope = decode_envelopes(letter.blob)[0]
    past = decode_past(letter.story)
    more = envelope.more
    return DeadInfo(
        letter.id,
        letter.name,
        letter.mailbox,
        letter.reason,
        past.bad_ends + past.refused or past.requeues,
        past.first_failure / 1e6,
        past.last_failure / 1e6,
        (more.root_id if more is not None else "") or letter.id,
        past.attempts,
        letter.position,
        past.redriven,
        past.counters(),
        envelope.content if body else "",
        envelope.body if body else b"",
    )


def _session_info(session: Session) -> SessionInfo:
    started = sum(1 for message in session.held.values() if message.stage == Stage.STARTED)
    return SessionInfo(
        session.id,
        session.role.name.lower(),
        session.node,
        session.host,
        session.pid,
        session.mailboxes,
        session.slots,
        session.window,
        len(session.held),
        started,
        session.kind.name.lower(),
        bool(session.link),
        session.trouble,
    )


def _born(envelope: Envelope) -> int:
    """Wall microseconds at which a UUIDv7 id was made; 0 for other ids."""
    id = envelope.id
    if len(id) == 36 and id[14] == "7":
        try:
            return int(id[:8] + id[9:13], 16) * 1000
        except ValueError:
            return 0
    return 0
