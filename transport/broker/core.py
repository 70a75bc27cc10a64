"""The broker: a routing actor without I/O. One event in, effects out.

`Broker.apply(event, now)` is one pass. Events change the tables through the part that owns them:

| event                        | part                                                                    |
| ---------------------------- | ----------------------------------------------------------------------- |
| Received: Hello, Attach, ... | `links` (who speaks), `accept` (Publish), `settling` (Settle, Return,   |
|                              | Started, Progress), `deaths` (Report), `results` (Watch), `admin`       |
| LinksClosed, PagesRead, Tick | `links`, `deaths`                                                       |
| Persisted, PersistFailed     | `journal`: what waited for a commit leaves, or is made anew             |
| RowsRead, ResultsRead, ...   | lanes, `schedule`, `recovery`, `results`, `admin`                       |

Then, once a pass: what is due becomes ready, `dispatch` matches ready messages with credit, and the journal is cut into
one Persist. Nothing that depends on a record leaves before its commit (spec D7).

States of a message: READY, SCHEDULED, ACQUIRED, STARTED, SETTLED (`held.py`). Who may move it: accept (none -> READY or
SCHEDULED), dispatch (READY -> ACQUIRED), settling and endings (any -> SETTLED), deaths and settling (ACQUIRED or
STARTED -> READY or SCHEDULED). What can never happen: a message in two states; a hand-out without a committed
lease; an early-ack message that is handed out again after it may have started; a message that ends twice.
"""

from __future__ import annotations

from ..clock import Now
from ..codec import BadFrame
from ..store.records import Append, Lease, Record, Recovered, Synchronous
from ..verbs import (
    Applied,
    Attach,
    Credit,
    Deliver,
    FromBroker,
    Goodbye,
    Ping,
    Pong,
    Progress,
    Publish,
    Report,
    Request,
    Return,
    Settle,
    Started,
    ToBroker,
    Unwatch,
    Watch,
)
from .accept import Accepting
from .admin import Admin
from .deaths import Deaths
from .desk import Desk
from .dispatch import Dispatch
from .endings import Endings
from .events import (
    DeadRead,
    Drain,
    Effect,
    Event,
    Frame,
    LinkBlocked,
    LinksClosed,
    PagesRead,
    Persisted,
    PersistFailed,
    ReadDue,
    ReadRows,
    Received,
    ResultsRead,
    RoomRegained,
    RowsRead,
    Send,
    Stop,
    Sweep,
    Tick,
    WakeAt,
)
from .held import Message, Stage
from .journal import Batch, Say
from .links import Links
from .recovery import Recovery
from .results import Watching
from .schedule import NEVER, Schedule
from .sessions import Session
from .settings import BrokerSettings
from .settling import Settling

#: The broker looks at its clock at least this often, so that it notices when it was itself paused (microseconds).
BEAT = 1_000_000
SWEEP_EVERY = 60_000_000
SWEEP_LIMIT = 10_000


class Broker:
    """Routes messages to mailboxes and remembers who holds what."""

    def __init__(self, recovered: Recovered, settings: BrokerSettings, name: str, now: Now) -> None:
        desk = self.desk = Desk(settings, name, recovered.epoch, now)
        self.schedule = Schedule(settings.head_messages_max)
        self.watching = Watching(desk)
        self.endings = Endings(desk, self.watching)
        self.dispatch = Dispatch(desk, self.endings)
        self.settling = Settling(desk, self.watching, self.endings, self.schedule, self.dispatch)
        self.deaths = Deaths(desk, self.watching, self.endings, self.settling, self.dispatch)
        self.links = Links(desk, self.watching, self.deaths)
        self.accepting = Accepting(desk, self.schedule)
        self.admin = Admin(desk, self.endings, self.schedule)
        self.recovery = Recovery(desk, self.schedule, self.dispatch, self.deaths)
        self._first = self.recovery.tables(recovered)
        #: Token of the read that recovery waits for; events wait with it.
        self._recovering = 0
        self._due_read = 0
        self._early: list[Event] = []
        self._last_boot = now.boot
        self._sweep_at = now.boot + SWEEP_EVERY
        self._wake_at = 0

    def start(self, now: Now) -> list[Effect]:
        """The first effects: read what recovery needs, or begin at once."""
        self.desk.now = now
        if self._first:
            self._recovering = self.desk.token()
            return [ReadRows(self._recovering, self._first)]
        return self._finish_pass()

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return what the driver must do, in order."""
        desk = self.desk
        if self._recovering and not (isinstance(event, RowsRead) and event.token == self._recovering):
            self._early.append(event)
            return []
        if now.boot - self._last_boot > desk.settings.pause_noticed:
            self.deaths.paused()
        self._last_boot = now.boot
        desk.now = now
        self._take(event)
        return self._finish_pass()

    def _take(self, event: Event) -> None:
        match event:
            case Received():
                for frame in event.frames:
                    self._frame(frame)
            case Persisted():
                self._persisted(event)
            case LinksClosed():
                for link in event.links:
                    self.links.closed(link)
            case Tick():
                pass
            case RowsRead():
                self._rows_read(event)
            case ResultsRead():
                if not self.watching.read(event):
                    self.admin.results_read(event)
            case DeadRead():
                self.admin.dead_read(event)
            case PagesRead():
                self.deaths.pages(event)
            case PersistFailed():
                self._persist_failed(event)
            case RoomRegained():
                self.desk.store_full = False
                self.desk.notice("room_regained")
            case LinkBlocked():
                self._blocked(event)
            case Drain():
                self.desk.draining = True

    # --- frames --------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        verbs = frame.verbs
        link = frame.link
        if isinstance(verbs, BadFrame):
            self.links.bad_frame(link, verbs)
            return
        used = 0
        for verb in verbs:
            session = self.links.speaker(link, verb)
            if session is None:
                continue
            if type(verb) is Publish:
                count = sum(group.parts for group in verb.groups)
                self.accepting.publish(session, verb, frame.parts[used : used + count], frame.bytes)
                used += count
            else:
                self._verb(session, verb)

    def _verb(self, session: Session, verb: ToBroker) -> None:
        match verb:
            case Settle():
                if self._is_new(session, verb.number):
                    self.settling.settle(session, verb)
            case Return():
                if self._is_new(session, verb.number):
                    self.settling.give_back(session, verb)
                    self._wake_mailboxes(session)
            case Credit():
                session.window = min(verb.window, self.desk.settings.window_max)
            case Started():
                self.settling.started(session, verb)
            case Progress():
                if self._is_new(session, verb.number):
                    self.settling.progress(session, verb)
            case Report():
                if self._is_new(session, verb.number):
                    self.deaths.report(verb)
            case Attach():
                self.links.attach(session, verb)
            case Watch():
                self.watching.watch(session, verb.ids, verb.snapshot)
            case Unwatch():
                self.watching.unwatch(session, verb.ids)
            case Request():
                self.admin.request(session, verb)
            case Ping():
                self.desk.send(session.link, Pong(verb.number))
            case Goodbye():
                self.links.goodbye(session, verb)
            case _:
                pass

    def _is_new(self, session: Session, number: int) -> bool:
        """Count a numbered verb, and have it answered after the commit; False if it was applied before."""
        new = number > session.applied
        if new:
            session.applied = number
        self.desk.journal.say(session, Applied(session.applied))
        return new

    def _wake_mailboxes(self, session: Session) -> None:
        for name in session.mailboxes:
            mailbox = self.desk.mailboxes.get(name)
            if mailbox is not None and mailbox.ready:
                self.desk.busy[name] = mailbox

    # --- the end of a pass ---------------------------------------------------------------------------------------

    def _finish_pass(self) -> list[Effect]:
        desk = self.desk
        now = desk.now
        for message in self.schedule.take_due(now.wall):
            self._due(message)
        self.links.tick()
        self.deaths.tick()
        self.dispatch.run()
        self._read_schedule()
        self.watching.flush()
        self.accepting.flush()
        journal = desk.journal
        reads, desk.effects = desk.effects, []
        effects: list[Effect] = []
        persist = journal.cut()
        if persist is not None:
            effects.append(persist)
        effects.extend(reads)
        for say in journal.unblocked():
            _send(effects, say)
        if now.boot >= self._sweep_at:
            self._sweep(effects)
        if desk.draining and not journal.waiting:
            effects.append(Stop(0, "drained"))
        wake = self._next_wake()
        if wake != self._wake_at:
            self._wake_at = wake
            effects.append(WakeAt(wake))
        return effects

    def _due(self, message: Message) -> None:
        """A message's time has come."""
        if message.stage != Stage.SCHEDULED:
            return
        mailbox = message.row.mailbox
        mailbox.scheduled -= 1
        message.stage = Stage.READY
        mailbox.lane(message.row.priority).put_behind(message)
        self.desk.busy[mailbox.name] = mailbox

    def _read_schedule(self) -> None:
        if self.schedule.wants_reading():
            self.schedule.reading = True
            self._due_read = self.desk.token()
            due, base = self.schedule.horizon
            self.desk.effects.append(ReadDue(self._due_read, due, base, self.desk.settings.head_messages_max))

    def _next_wake(self) -> int:
        now = self.desk.now
        wake = now.boot + BEAT
        deadline = self.deaths.next_deadline()
        if deadline:
            wake = min(wake, max(deadline, now.boot))
        for due in (self.schedule.next_due, self.dispatch.next_suspect_due(), self._next_blocked()):
            if 0 < due < NEVER:
                wake = min(wake, now.boot + max(0, due - now.wall))
        return wake

    def _next_blocked(self) -> int:
        wall = self.desk.now.wall
        return min(
            (
                mailbox.blocked_until
                for mailbox in self.desk.busy.values()
                if mailbox.quarantined and mailbox.blocked_until > wall
            ),
            default=0,
        )

    def _sweep(self, effects: list[Effect]) -> None:
        desk = self.desk
        self._sweep_at = desk.now.boot + SWEEP_EVERY
        effects.append(Sweep(SWEEP_LIMIT))
        wall = desk.now.wall
        for id in [id for id, until in desk.revoked.items() if until <= wall]:
            del desk.revoked[id]
        oldest = wall - desk.settings.session_ttl
        for id in [id for id, publishing in desk.publishing.items() if publishing.seen_at < oldest]:
            if id not in desk.sessions:
                del desk.publishing[id]

    # --- commits -------------------------------------------------------------------------------------------------

    def _persisted(self, event: Persisted) -> None:
        effects = self.desk.effects
        duplicates = set(event.duplicates)
        for batch in self.desk.journal.committed(event.serial):
            if duplicates:
                for accepted in batch.accepted:
                    self.accepting.duplicates(accepted, duplicates)
                    ids = [message.envelope.id for message in accepted.unique if message.position in duplicates]
                    if ids and accepted.session.link:
                        self.watching.watch(accepted.session, ids, snapshot=True)
            for then in batch.then:
                then()
            for say in batch.says:
                _send(effects, say)

    def _persist_failed(self, event: PersistFailed) -> None:
        """No room: publishes are refused and undone, everything else is written anew (D29). Else: the end."""
        desk = self.desk
        if not event.full:
            desk.effects.append(Stop(1, event.reason))
            return
        batches = desk.journal.failed()
        if desk.store_full and not any(batch.accepted for batch in batches):
            desk.effects.append(Stop(1, f"not even settles fit on the disk: {event.reason}"))
            return
        desk.store_full = True
        desk.notice("store_full", reason=event.reason)
        undone: set[int] = set()
        for batch in batches:
            for accepted in batch.accepted:
                undone.update(row.base for row in accepted.rows)
                positions = {message.position for message in accepted.messages}
                undone.update(positions)
                self.accepting.undo(accepted)
        for batch in batches:
            self._write_anew(batch, undone)

    def _write_anew(self, batch: Batch, undone: set[int]) -> None:
        journal = self.desk.journal
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
                journal.say(say.session, verb, say.link)

    def _blocked(self, event: LinkBlocked) -> None:
        """A peer does not read: cut it; what it holds is found out when it comes back, or is judged."""
        self.links.drop(event.link, "it does not read what it is sent")

    # --- reads ---------------------------------------------------------------------------------------------------

    def _rows_read(self, event: RowsRead) -> None:
        if event.token == self._recovering:
            self._recovering = 0
            self.recovery.rows(event.rows)
            early, self._early = self._early, []
            for waiting in early:
                self._take(waiting)
            return
        if event.token == self._due_read:
            self._due_read = 0
            entries = [(row.due, message) for row in event.rows for message in self.recovery.messages(row)]
            for _, message in entries:
                message.stage = Stage.SCHEDULED
            last = (event.rows[-1].due, event.rows[-1].base) if event.rows else None
            self.schedule.read(entries, last)
            return
        lane = self.dispatch.reads.pop(event.token, None)
        if lane is None or not lane.reading:
            return
        lane.reading = False
        if not event.rows:
            lane.tail = 0
        for stored in event.rows:
            messages = self.recovery.messages(stored)
            lane.tail = max(0, lane.tail - len(messages))
            row = messages[0].row if messages else None
            if row is not None:
                lane.append(row, messages)
            lane.after = stored.base
        self.desk.busy[lane.mailbox.name] = lane.mailbox


def _send(effects: list[Effect], say: Say) -> None:
    """Turn a say into a send, on the link it was meant for; verbs for one link in a row share a Send."""
    link = say.session.link
    if not link or (say.link and say.link != link):
        return
    if effects:
        last = effects[-1]
        if type(last) is Send and last.link == link:
            last.verbs.append(say.verb)
            return
    effects.append(Send(link, [say.verb]))


def _without(record: Record, undone: set[int]) -> Record | None:
    """The record without what was undone; None when nothing is left of it."""
    if isinstance(record, Append):
        return None if record.base in undone else record
    if isinstance(record, Lease):
        positions = [position for position in record.positions if position not in undone]
        return Lease(record.lease, record.session, positions) if positions else None
    return record


def _without_deliveries(verb: FromBroker, undone: set[int]) -> FromBroker | None:
    if not isinstance(verb, Deliver):
        return verb
    deliveries = [delivery for delivery in verb.deliveries if delivery.position not in undone]
    return Deliver(verb.partition, verb.epoch, verb.lease, deliveries) if deliveries else None
