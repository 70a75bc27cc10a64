"""The broker's witness: what a broker hears, does and commits, as events of the log.

Owns which of it is an event, and of whom: events are told by lanes, so it remembers whose each link is. What stands in
a Persist is told when that is committed; dead letters among it also before (`write`), since a broker that is killed in
between has them and never says so. What is about to be sent is written before it is sent: `flush` comes first.

Bodies, arguments and results are never told. Memory: an entry a link, the ids of what was published and not yet
answered, and of a Persist that is underway what will be told of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from ..broker.events import (
    CloseLink,
    Effect,
    Event,
    LinksClosed,
    Notice,
    PagesRead,
    Persist,
    Persisted,
    PersistFailed,
    Received,
    Send,
    Stop,
)
from ..clock import Clock
from ..codec import decode_envelopes
from ..event_log import EventLog, Facts, Kind, lane_of
from ..message import TERMINAL, Result, State
from ..store.records import Dead, Purge, Record, ResultRow
from ..verbs import (
    Applied,
    Confirm,
    Deliver,
    Durability,
    FromBroker,
    Goodbye,
    Hello,
    Publish,
    Refusal,
    Report,
    Results,
    Return,
    Role,
    Settle,
    ToBroker,
    Welcome,
)

#: The broker's own lane: a log is of one broker.
LANE: Final = "broker"
_ROLES: Final = {Role.CLIENT: "client", Role.NODE: "worker", Role.CHILD: "worker"}

_result: Final = msgspec.msgpack.Decoder(Result)
_Happened = tuple[Kind, Facts]


class Peer(NamedTuple):
    """Who speaks on a link."""

    session: str
    lane: str
    role: str
    node: str
    pid: int


class Witness:
    """Writes down one life of a broker. Its owner calls it in one thread."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._boot = 0
        self._peers: dict[int, Peer] = {}
        #: The newest link of each session.
        self._links: dict[str, int] = {}
        #: Ids of what was published and not answered, by lane and number.
        self._unanswered: dict[tuple[str, int], list[str]] = {}
        #: What will be so once the Persist of this number is committed.
        self._underway: deque[tuple[int, list[_Happened]]] = deque()
        self.flush = log.flush

    def begins(self, name: str, epoch: int) -> None:
        """The broker has recovered, and listens."""
        self._boot = self._clock().boot
        self._note(Kind.BROKER_UP, LANE, name=name, epoch=epoch)
        self.flush()

    def ends(self, stop: Stop) -> None:
        """The broker stops. What it leaves unsettled is told by one that stops in order."""
        unsettled = {"unsettled": stop.unsettled} if stop.unsettled >= 0 else {}
        self._log.close(f"the broker stops: {stop.reason}", **unsettled)

    # --- what the core is told -----------------------------------------------------------------------------------

    def hears(self, event: Event) -> None:
        """Called before the core is told."""
        self._boot = self._clock().boot
        if isinstance(event, Received):
            for frame in event.frames:
                if isinstance(frame.verbs, list):
                    for verb in frame.verbs:
                        self._heard(frame.link, verb)
        elif isinstance(event, Persisted):
            self._committed(event.serial)
        elif isinstance(event, PersistFailed):
            # What it wanted is made anew, or the broker stops.
            self._underway = deque(entry for entry in self._underway if not event.first <= entry[0] <= event.last)
        elif isinstance(event, LinksClosed):
            for link in event.links:
                self._detach(link, "closed")
        elif isinstance(event, PagesRead):
            for report in event.reports:
                self._reported(report, LANE)

    def _heard(self, link: int, verb: ToBroker) -> None:
        if isinstance(verb, Hello):
            if link not in self._peers:
                role = _ROLES.get(Role(verb.role), "peer") if verb.role in _ROLES else "peer"
                self._peers[link] = Peer(verb.session, lane_of(verb.session, role), role, verb.node, verb.pid)
            return
        peer = self._peers.get(link)
        if peer is None:
            return
        lane = peer.lane
        if isinstance(verb, Settle):
            self._note(
                Kind.SETTLE,
                lane,
                number=verb.number,
                positions=[outcome.position for outcome in verb.outcomes],
                states=[_name_of(outcome.state) for outcome in verb.outcomes],
            )
        elif isinstance(verb, Publish):
            self._published(lane, verb)
        elif isinstance(verb, Return):
            self._note(Kind.RETURN, lane, positions=verb.positions)
        elif isinstance(verb, Report):
            self._reported(verb, lane)
        elif isinstance(verb, Goodbye):
            self._detach(link, "goodbye")

    def _published(self, lane: str, publish: Publish) -> None:
        ids: list[str] = []
        for group in publish.groups:
            try:
                envelopes = decode_envelopes(bytes(group.messages))
            except msgspec.MsgspecError:
                # The core refuses it.
                continue
            of_group = [envelope.id for envelope in envelopes]
            ids += of_group
            self._note(
                Kind.PUBLISH,
                lane,
                mailbox=group.mailbox,
                tasks=[envelope.name for envelope in envelopes],
                ids=of_group,
                flags=[envelope.flags for envelope in envelopes],
                bounds=[0 if envelope.more is None else envelope.more.max_deliveries for envelope in envelopes],
            )
        self._unanswered[lane, publish.number] = ids

    def _reported(self, report: Report, lane: str) -> None:
        self._note(
            Kind.REPORT,
            lane,
            session=lane_of(report.session),
            how=how_it_ended(report.exit_code, report.signal),
            positions=[entry.position for entry in report.ring if not entry.finished],
            node_lost=report.node_lost,
        )

    def _detach(self, link: int, why: str) -> None:
        peer = self._peers.pop(link, None)
        if peer is None or self._links.get(peer.session) != link:
            return
        del self._links[peer.session]
        # What was not answered is said again on the next link.
        for key in [key for key in self._unanswered if key[0] == peer.lane]:
            del self._unanswered[key]
        self._note(Kind.DETACHED, LANE, to=peer.lane, why=why)

    def _committed(self, serial: int) -> None:
        self._note(Kind.COMMIT, LANE, number=serial)
        underway = self._underway
        while underway and underway[0][0] <= serial:
            for kind, facts in underway.popleft()[1]:
                self._note(kind, LANE, **facts)

    # --- what the core wants -------------------------------------------------------------------------------------

    def does(self, effects: Sequence[Effect]) -> None:
        """Called before the driver acts. What closes a link is written at once, the rest with the next `flush`."""
        self._boot = self._clock().boot
        for effect in effects:
            if isinstance(effect, Send):
                peer = self._peers.get(effect.link)
                if peer is not None:
                    for verb in effect.verbs:
                        self._says(effect.link, peer, verb)
            elif isinstance(effect, Persist):
                self._persists(effect.serial, effect.records)
            elif isinstance(effect, Notice):
                self._note(Kind.NOTICE, LANE, notice=effect.kind, fields=effect.fields)
            elif isinstance(effect, CloseLink):
                self._detach(effect.link, effect.reason)
                self.flush()

    def _says(self, link: int, peer: Peer, verb: FromBroker) -> None:
        lane = peer.lane
        if isinstance(verb, Deliver):
            for delivery in verb.deliveries:
                self._note(
                    Kind.DELIVER,
                    LANE,
                    to=lane,
                    id=delivery.envelope.id,
                    task=delivery.envelope.name,
                    position=delivery.position,
                    lease=verb.lease,
                )
        elif isinstance(verb, Applied):
            self._note(Kind.APPLIED, LANE, to=lane, number=verb.number)
        elif isinstance(verb, Confirm):
            ids = self._unanswered.pop((lane, verb.number), None)
            if ids is not None:
                refused = {"error": Refusal(verb.refusal).name} if verb.refusal else {}
                durability = Durability(verb.durability).name
                self._note(Kind.CONFIRM, lane, ids=ids, durability=durability, **refused)
        elif isinstance(verb, Results):
            for known in verb.results:
                self._note(Kind.RESULT, lane, id=known.id, state=_name_of(known.state))
        elif isinstance(verb, Welcome):
            self._links[peer.session] = link
            self._note(Kind.ATTACHED, lane, role=peer.role, node=peer.node, session=peer.session, pid=peer.pid)

    def _persists(self, serial: int, records: Sequence[Record]) -> None:
        happened: list[_Happened] = []
        dead: list[str] = []
        for record in records:
            if isinstance(record, ResultRow):
                if record.state in TERMINAL:
                    happened.append((Kind.STORED, _stored(record)))
            elif isinstance(record, Dead):
                dead.append(record.id)
                facts: Facts = {"id": record.id, "mailbox": record.mailbox, "position": record.position}
                happened.append((Kind.DEAD, {**facts, "reason": record.reason}))
            elif isinstance(record, Purge):
                happened.append((Kind.PURGED, {"mailbox": record.mailbox}))
        if happened:
            self._underway.append((serial, happened))
        if dead:
            self._note(Kind.WRITE, LANE, number=serial, dead=dead)

    def _note(self, kind: Kind, lane: str, **facts: object) -> None:
        self._log.note_at(self._boot, kind, lane, facts)


def how_it_ended(exit_code: int | None, signal: int) -> str:
    """Say how a process ended."""
    return f"signal {signal}" if signal else "unknown" if exit_code is None else f"exit {exit_code}"


def _name_of(state: int) -> str:
    try:
        return State(state).name
    except ValueError:
        return str(state)


def _stored(record: ResultRow) -> Facts:
    facts: Facts = {"id": record.id, "state": State(record.state).name}
    if record.state == State.FAILURE:
        failure = _result.decode(record.blob).failure
        if failure is not None:
            facts["failure"] = failure.exc_type or failure.text
    return facts
