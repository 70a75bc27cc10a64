"""Results: kept in the settle's commit, pushed after it to the publisher and to whoever watches (spec D22).

A result is bytes that brokers do not decode, with a state beside them. The publisher of a WATCHED message gets it
without asking while its session has a link; anybody may `Watch` ids: what the store knows now comes as a snapshot,
then each change. A watch ends with a terminal state or with its link.
"""

from __future__ import annotations

import msgspec

from ..message import TERMINAL, Envelope, Failure, Flag, Outcome, Result, State
from ..store.records import ResultRow
from ..verbs import Durability, Known, Results
from .desk import Desk
from .events import ReadResults, ResultsRead
from .held import Message
from .sessions import Session

_encoder = msgspec.msgpack.Encoder()
#: Results in one verb at the most, so that a frame stays within its limit.
RESULTS_A_VERB = 512
RESULT_BYTES_A_VERB = 256 << 10
#: As a plain integer: an IntFlag's own operators cost ten times as much.
WATCHED = int(Flag.WATCHED)
#: Where readers of a result know the errors from that the broker names: a word on the wire, nothing is imported.
ERRORS_MODULE = f"{__name__.partition('.')[0]}.actors.errors"


class Watching:
    """Who wants to know of which id."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        #: id -> sessions that watch it.
        self._watchers: dict[str, list[Session]] = {}
        #: How many watches there are, all sessions together.
        self._watches = 0
        #: Token of a read -> whose it is, on which link, of which ids.
        self._snapshots: dict[int, tuple[Session, int, list[str]]] = {}
        #: What this pass learned, by session: pushed after the commit.
        self._news: dict[str, list[Known]] = {}

    def store(self, message: Message, state: int, blob: bytes) -> None:
        """Keep this as the message's result in this pass's commit, and push it after."""
        desk = self._desk
        envelope = message.envelope
        expires = desk.expiry_of_result(envelope, state)
        durability = message.row.durability
        desk.journal.write(ResultRow(envelope.id, state, blob, expires), durability)
        if envelope.flags & WATCHED:
            publisher = desk.sessions.get(message.row.publisher)
            if publisher is not None and publisher.link:
                self._tell(publisher, Known(envelope.id, state, blob))
        if self._watchers:
            self._tell_watchers(envelope.id, state, blob)

    def store_all(self, ended: list[tuple[Message, Outcome]]) -> None:
        """`store` for a batch of outcomes, with what their neighbours have in common looked up once."""
        desk = self._desk
        watchers = self._watchers
        publisher: str | None = None
        news: list[Known] | None = None
        #: What its task type does not say otherwise.
        expires = desk.now.wall + desk.settings.result_ttl if desk.settings.result_ttl else 0
        records: list[ResultRow] = []
        durability = Durability.MEMORY
        for message, outcome in ended:
            envelope, row = message.envelope, message.row
            id, state, blob = envelope.id, outcome.state, outcome.result
            if desk.lifetimes:
                expires = desk.expiry_of_result(envelope, state)
            records.append(ResultRow(id, state, blob, expires))
            if row.durability > durability:
                durability = row.durability
            if envelope.flags & WATCHED:
                if row.publisher != publisher:
                    publisher = row.publisher
                    session = desk.sessions.get(publisher)
                    attached = session is not None and session.link
                    news = self._news.setdefault(publisher, []) if attached else None
                if news is not None:
                    news.append(Known(id, state, blob))
            if watchers:
                self._tell_watchers(id, state, blob)
        desk.journal.write_all(records, durability)

    def _tell_watchers(self, id: str, state: int, blob: bytes) -> None:
        watchers = self._watchers.get(id)
        if watchers is None:
            return
        for session in watchers:
            self._tell(session, Known(id, state, blob))
        if state in TERMINAL:
            for session in watchers:
                session.watched.pop(id, None)
            self._watches -= len(watchers)
            del self._watchers[id]

    def _tell(self, session: Session, known: Known) -> None:
        self._news.setdefault(session.id, []).append(known)

    def flush(self) -> None:
        """At the end of a pass: let what was learned follow the commit."""
        if not self._news:
            return
        desk = self._desk
        for id, news in self._news.items():
            session = desk.sessions.get(id)
            if session is None or not session.link:
                continue
            for verb, size in in_verbs(news):
                desk.journal.say(session, verb, size=size)
        self._news = {}

    def watch(self, session: Session, ids: list[str], snapshot: bool) -> None:
        """The session wants to know of these ids, from now on and, with `snapshot`, what is known now."""
        room = self._desk.settings.watches_max - self._watches
        if len(ids) > room:
            self._desk.notice("watches_full", session=session.id, asked=len(ids), room=max(0, room))
            ids = ids[: max(0, room)]
        for id in ids:
            if id not in session.watched:
                session.watched[id] = None
                self._watchers.setdefault(id, []).append(session)
                self._watches += 1
        if snapshot and ids:
            self._read(session, ids)

    def _read(self, session: Session, ids: list[str]) -> None:
        """Read what is known. The store sees what was persisted before this read; what is settled while it reads is
        pushed by `store` as well: the client takes the terminal one, whichever comes first."""
        desk = self._desk
        token = desk.token()
        self._snapshots[token] = (session, session.link, ids)
        desk.effects.append(ReadResults(token, ids))

    def read_again(self) -> None:
        """A commit failed, and its results are written anew: reads that are under way would not see them."""
        snapshots, self._snapshots = self._snapshots, {}
        for session, link, ids in snapshots.values():
            if session.link == link:
                self._read(session, ids)

    def watched(self) -> list[str]:
        """Every id that is watched, once for each session that does."""
        return [id for id, sessions in self._watchers.items() for _ in sessions]

    def unwatch(self, session: Session, ids: list[str]) -> None:
        """The session no longer wants to know."""
        for id in ids:
            if session.watched.pop(id, True) is None:
                self._drop(id, session)

    def forget_session(self, session: Session) -> None:
        """The session's link is gone: it watches anew when it is back."""
        for id in session.watched:
            self._drop(id, session)
        session.watched.clear()

    def _drop(self, id: str, session: Session) -> None:
        watchers = self._watchers.get(id)
        if watchers is not None:
            if session in watchers:
                watchers.remove(session)
                self._watches -= 1
            if not watchers:
                del self._watchers[id]

    def read(self, event: ResultsRead) -> bool:
        """A snapshot came back; False if the read was not asked for here."""
        waiting = self._snapshots.pop(event.token, None)
        if waiting is None:
            return False
        session, link, _ = waiting
        if session.link != link:
            return True
        known = [Known(row.id, row.state, row.blob) for row in event.results]
        for row in event.results:
            if row.state in TERMINAL:
                self.unwatch(session, [row.id])
        for verb, size in in_verbs(known):
            self._desk.send(session, verb, size)
        return True


def in_verbs(known: list[Known]) -> list[tuple[Results, int]]:
    """Cut results into verbs that fit their frames, each with about what it takes."""
    verbs: list[tuple[Results, int]] = []
    start = 0
    size = 0
    for index, item in enumerate(known):
        more = len(item.result) + len(item.id) + 16
        if index > start and (index - start >= RESULTS_A_VERB or size + more > RESULT_BYTES_A_VERB):
            verbs.append((Results(known[start:index]), size))
            start = index
            size = 0
        size += more
    if start < len(known):
        verbs.append((Results(known[start:]), size))
    return verbs


def failure_result(
    exc_type: str,
    text: str,
    *,
    done_at: int,
    worker: str,
    retries: int,
    state: State = State.FAILURE,
    args: list[float | int] | None = None,
    dead: bool = False,
) -> bytes:
    """The encoded Result of a failure that the broker itself knows of; `dead`: of a dead letter.

    `args` are the exception's; by default its text is.
    """
    failure = Failure(exc_type, ERRORS_MODULE, msgspec.msgpack.encode([text] if args is None else args), text)
    result = Result(state, failure=failure, done_at=done_at, worker=worker, retries=retries, dead=dead)
    return _encoder.encode(result)


def revoked_result(text: str, *, done_at: int, worker: str = "") -> bytes:
    """The encoded Result of a message that was revoked or has expired; `text` says which, as in Celery."""
    failure = Failure("TaskRevokedError", ERRORS_MODULE, msgspec.msgpack.encode([text]), text)
    return _encoder.encode(Result(State.REVOKED, failure=failure, done_at=done_at, worker=worker))


def retries_of(envelope: Envelope) -> int:
    """How often the message was retried so far."""
    return envelope.more.retries if envelope.more is not None else 0
