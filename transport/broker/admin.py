"""Requests: looking in and acting from outside (mailboxes, dead letters, purge, revoke, status).

Each is answered with one `Reply`. What only looks is answered at once or after a read; what acts is answered after its
commit. A redrive gives its messages new positions at the end of their mailbox; their past is kept, its counters
begin anew, and the letter goes in the same commit.
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
    Forget,
    Mailboxes,
    MailboxInfo,
    MailboxList,
    PurgeMailbox,
    Revoke,
    SessionInfo,
    Status,
)
from ..store.records import Dead, DeadGone, MailboxRow, Purge, ResultsGone, Revoked
from ..store.records import Past as PastRecord
from ..verbs import Cancel, Op, Recall, Reply, Request, Terminate
from .desk import Desk
from .endings import Endings
from .events import DeadRead, ReadDead, ReadResults, ResultsRead
from .held import Message, Stage
from .mailbox import Mailbox
from .past import Past, decode_past, encode_past
from .schedule import Schedule
from .sessions import Session

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

    def __init__(self, desk: Desk, endings: Endings, schedule: Schedule) -> None:
        self._desk = desk
        self._endings = endings
        self._schedule = schedule
        self._reads: dict[int, Waiting] = {}

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
                self._answer(session, request.number, Count(self._purge(params.mailbox)))
            case Revoke():
                self._answer(session, request.number, Count(self._revoke(params)))
            case Forget():
                self._desk.journal.write(ResultsGone(params.ids))
                self._answer(session, request.number, Count(len(params.ids)))
            case Declare():
                self._declare(session, request.number, params)
            case _:
                self._reply(session, request.number, self._status())

    # --- answers -------------------------------------------------------------------------------------------------

    def _reply(self, session: Session, number: int, value: msgspec.Struct) -> None:
        if session.link:
            self._desk.send(session.link, Reply(number, value=msgspec.Raw(_encoder.encode(value))))

    def _answer(self, session: Session, number: int, value: msgspec.Struct) -> None:
        """Reply after the commit of this pass."""
        self._desk.journal.say(session, Reply(number, value=msgspec.Raw(_encoder.encode(value))))

    def _error(self, session: Session, number: int, error: str) -> None:
        if session.link:
            self._desk.send(session.link, Reply(number, error))

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
                infos.append(self._info(mailbox))
        return MailboxList(infos)

    def _info(self, mailbox: Mailbox) -> MailboxInfo:
        oldest = 0.0
        lane = mailbox.first_lane()
        if lane is not None:
            born = _born(lane.head[0].envelope)
            oldest = max(0.0, (self._desk.now.wall - born) / 1e6) if born else 0.0
        consumers = sum(1 for session in mailbox.consumers if session.link)
        if mailbox.is_actor and mailbox.owner is not None and mailbox.owner.link:
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
        mailbox = self._desk.mailbox(params.mailbox)
        declared = mailbox.declared
        if params.max_messages is not None:
            declared.max_messages = params.max_messages
        if params.on_full is not None:
            declared.on_full = params.on_full
        if params.durability is not None:
            if params.durability not in (0, 1, 2):
                self._error(
                    session,
                    number,
                    f"durability is 0 (memory), 1 (process) or 2 (disk), not {params.durability}",
                )
                return
            declared.durability = params.durability
        self._desk.journal.write(MailboxRow(mailbox.name, _encoder.encode(declared)))
        self._answer(session, number, Count(1))

    def _purge(self, name: str) -> int:
        """Drop what is ready or scheduled; what is out with workers stays."""
        desk = self._desk
        mailbox = desk.mailboxes.get(name)
        if mailbox is None:
            return 0
        before = mailbox.depth
        keep: dict[int, None] = {}
        for session in desk.sessions.values():
            for message in session.held.values():
                if message.row.mailbox is mailbox:
                    keep[message.row.base] = None
        for lane in mailbox.lanes:
            while lane.head:
                desk.end(lane.pop())
            mailbox.depth -= lane.tail
            lane.tail = 0
            lane.reading = False
            lane.after = desk.next_position - 1
        for message in self._schedule.waiting_of(mailbox):
            desk.end(message)
        # What is left of the scheduled rests in the store, or waits for a quarantine child.
        rest = self._schedule.forget_tail_of(mailbox)
        mailbox.depth -= rest
        mailbox.scheduled -= rest
        desk.journal.write(Purge(name, list(keep)))
        return before - mailbox.depth

    # --- revoke --------------------------------------------------------------------------------------------------

    def _revoke(self, params: Revoke) -> int:
        desk = self._desk
        until = desk.now.wall + desk.settings.revoked_ttl
        wanted = dict.fromkeys(params.ids)
        for id in wanted:
            desk.revoked[id] = until
            desk.journal.write(Revoked(id, until))
        for session in desk.sessions.values():
            for message in session.held.values():
                if message.envelope.id in wanted:
                    self._revoke_held(session, message, params)
        for message in self._schedule.waiting_with(wanted):
            self._endings.revoked(message, "revoked")
        for mailbox in desk.mailboxes.values():
            for lane in mailbox.lanes:
                found = [message for message in lane.head if message.envelope.id in wanted]
                for message in found:
                    lane.remove(message)
                    self._endings.revoked(message, "revoked")
        return len(wanted)

    def _revoke_held(self, session: Session, message: Message, params: Revoke) -> None:
        desk = self._desk
        if session.link:
            desk.send(session.link, Recall([message.position]))
        if params.terminate:
            parent = desk.sessions.get(session.parent)
            if session.link:
                desk.send(session.link, Cancel(message.position, params.signal))
            if parent is not None and parent.link:
                desk.send(parent.link, Terminate(session.id, message.position, params.signal))

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
        for letter in letters:
            mailbox = desk.mailbox(letter.mailbox)
            mailbox.dead = max(0, mailbox.dead - 1)
            if waiting.op is Op.DEAD_REDRIVE:
                self._redrive(letter, mailbox)
        if letters:
            desk.journal.write(DeadGone([letter.position for letter in letters]))
        waiting.count += len(letters)
        if len(letters) >= LIST_MAX:
            token = desk.token()
            self._reads[token] = waiting
            filter = waiting.filter
            desk.effects.append(
                ReadDead(token, letters[-1].position, LIST_MAX, filter.mailbox, filter.task, filter.ids)
            )
            return
        self._answer(waiting.session, waiting.number, Count(waiting.count))

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
        desk.revoked.pop(envelope.id, None)
        if envelope.more is not None:
            # It died after it was due; a past expiry would end it unseen, and a person asked for it now.
            envelope.more.due = 0
            envelope.more.expires = 0
        message = self._endings.append(mailbox, envelope, publisher="", past=fresh)
        if message.row.durability:
            desk.journal.write(PastRecord(message.position, encode_past(fresh)), message.row.durability)

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
        past.bad_ends or past.requeues,
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
