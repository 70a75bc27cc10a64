"""The broker: a routing actor without I/O. One event in, effects out.

`Broker.apply(event, now)` is one pass. Events change the tables through the part that owns them:

| event                        | part                                                                    |
| ---------------------------- | ----------------------------------------------------------------------- |
| Received: Hello, Attach, ... | `links` (who speaks), `accept` (Publish), `settling` (Settle, Return,   |
|                              | Started, Progress), `deaths` (Report), `results` (Watch), `admin`       |
| LinksClosed, PagesRead, Tick | `links`, `deaths`                                                       |
| Persisted, PersistFailed     | `commits`: what waited for a commit leaves, or is made anew             |
| RowsRead, ResultsRead, ...   | `rows`, `recovery`, `results`, `admin`, `states`                        |

Then, once a pass: what is due becomes ready, `dispatch` matches ready messages with credit, and the journal is cut into
one Persist. Nothing that depends on a record leaves before its commit (spec D7).

States of a message: READY, SCHEDULED, ACQUIRED, STARTED, SETTLED (`held.py`). Who may move it: accept (none -> READY or
SCHEDULED), leasing (READY or SCHEDULED -> ACQUIRED), settling and endings (any -> SETTLED), places (ACQUIRED or
STARTED -> READY or SCHEDULED, SCHEDULED -> READY). What can never happen: a message in two states; a hand-out without
a committed lease; an early-ack message that is handed out again after it may have started; a message that ends
twice.
"""

from __future__ import annotations

from ..clock import Now
from ..codec import BadFrame
from ..store.records import Recovered, SessionsGone
from ..verbs import (
    Applied,
    Attach,
    Credit,
    Goodbye,
    Hello,
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
    Trouble,
    Unwatch,
    Watch,
)
from .accept import Accepting
from .admin import Admin
from .commits import Commits
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
    ReadRows,
    Received,
    ResultsRead,
    RoomRegained,
    RowsRead,
    StatesRead,
    Stop,
    Sweep,
    Tick,
    WakeAt,
)
from .hosting import Hosting
from .leasing import Leasing
from .links import Links
from .nodes import Nodes
from .places import Places
from .quarantine import Quarantine
from .recovery import Recovery
from .removal import Removal
from .results import Watching
from .rows import Rows
from .schedule import NEVER, Schedule
from .sessions import Session
from .settings import BrokerSettings
from .settling import Settling
from .states import States
from .suspects import Suspects

#: The broker looks at its clock at least this often, so that it notices when it was itself paused (microseconds).
BEAT = 1_000_000
#: What has expired is swept out of the store this often, so many items at the most: little at a time, since it holds up
#: commits, and often, since results expire as fast as they were made.
SWEEP_EVERY = 1_000_000
SWEEP_LIMIT = 10_000
#: The tables in memory are swept this often.
FORGET_EVERY = 60_000_000


class Broker:
    """Routes messages to mailboxes and remembers who holds what."""

    def __init__(self, recovered: Recovered, settings: BrokerSettings, name: str, now: Now) -> None:
        desk = self.desk = Desk(settings, name, recovered.epoch, now)
        self.schedule = Schedule(desk)
        self.suspects = Suspects(desk)
        self.watching = Watching(desk)
        self.rows = Rows(desk, self.schedule)
        self.places = Places(desk, self.schedule, self.suspects)
        self.endings = Endings(desk, self.watching, self.places)
        self.states = States(desk)
        self.settling = Settling(desk, self.watching, self.endings, self.places, self.states)
        self.deaths = Deaths(desk, self.watching, self.endings, self.settling, self.places)
        leasing = Leasing(desk)
        nodes = Nodes(desk)
        self.hosting = Hosting(desk, self.endings, leasing, self.rows, nodes)
        self.quarantine = Quarantine(desk, self.suspects, self.endings, leasing, nodes)
        self.dispatch = Dispatch(desk, self.endings, leasing, self.rows, self.hosting, self.quarantine)
        self.links = Links(desk, self.watching, self.deaths, self.places, self.hosting)
        self.accepting = Accepting(desk, self.schedule)
        self.commits = Commits(desk, self.accepting, self.watching)
        removal = Removal(desk, self.endings, self.schedule, self.suspects, self.accepting)
        self.admin = Admin(desk, self.places, removal, self.states)
        self.recovery = Recovery(desk, self.schedule, self.places, self.rows, self.deaths)
        self._first = self.recovery.tables(recovered)
        #: Token of the read that recovery waits for; events wait with it.
        self._recovering = 0
        self._early: list[Event] = []
        self._last_boot = now.boot
        self._sweep_at = now.boot + SWEEP_EVERY
        self._forget_at = now.boot + FORGET_EVERY
        self._wake_at = 0
        self._stopped = False

    @property
    def recovering(self) -> bool:
        """Whether rows are still read that must be known before anything happens."""
        return bool(self._recovering)

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
        if self.commits.over:
            return []
        if self._recovering and not (isinstance(event, RowsRead) and event.token == self._recovering):
            if isinstance(event, PersistFailed):
                # The read that everything waits for has failed: nobody will answer it any more.
                return self._give_up(event.reason)
            self._early.append(event)
            return []
        desk.now = now
        if now.boot - self._last_boot > desk.settings.pause_noticed:
            self.deaths.paused()
        self._last_boot = now.boot
        self._take(event)
        if self.commits.over:
            return self._give_up(self.commits.over)
        return self._finish_pass()

    def _give_up(self, reason: str) -> list[Effect]:
        """Nobody knows what the store holds: nothing more is said or written, until the next life has read it."""
        self.commits.over = reason
        return [Stop(1, reason)]

    def _take(self, event: Event) -> None:
        match event:
            case Received():
                for frame in event.frames:
                    self._frame(frame)
            case Persisted():
                self.commits.persisted(event)
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
            case StatesRead():
                self.states.read(event)
            case PagesRead():
                self.deaths.pages(event)
            case PersistFailed():
                self.commits.failed(event)
            case RoomRegained():
                self.desk.store_full = False
                self.desk.notice("room_regained")
            case LinkBlocked():
                # What it holds is found out when it comes back, or is judged.
                self.links.drop(event.link, "it does not read what it is sent", final=False)
            case Drain():
                self.desk.draining = True

    def _rows_read(self, event: RowsRead) -> None:
        if event.token != self._recovering:
            self.rows.read(event)
            return
        self._recovering = 0
        self.recovery.rows(event.rows)
        early, self._early = self._early, []
        for waiting in early:
            self._take(waiting)

    # --- frames --------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        verbs = frame.verbs
        link = frame.link
        if isinstance(verbs, BadFrame):
            self.links.bad_frame(link, verbs)
            return
        links = self.desk.links
        used = 0
        for verb in verbs:
            if type(verb) is Hello:
                if link in links:
                    continue
                self.links.hello(link, verb)
                if link not in links:
                    return
                continue
            session = self.links.speaker(link, verb)
            if session is None:
                return
            if type(verb) is Publish:
                count = sum(group.parts for group in verb.groups)
                refusal = self.accepting.publish(session, verb, frame.parts[used : used + count], frame.bytes)
                if refusal:
                    self.links.drop(link, refusal)
                    return
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
                    self.links.credit(session, verb)
            case Credit():
                self.links.credit(session, verb)
            case Started():
                self.settling.started(session, verb)
            case Progress():
                if self._is_new(session, verb.number):
                    self.settling.progress(session, verb)
            case Report():
                if self._is_new(session, verb.number):
                    self.deaths.report(verb)
            case Trouble():
                session.trouble = verb.text
            case Attach():
                self.links.attach(session, verb)
            case Watch():
                self.watching.watch(session, verb.ids, verb.snapshot)
            case Unwatch():
                self.watching.unwatch(session, verb.ids)
            case Request():
                self.admin.request(session, verb)
            case Ping():
                self.desk.send_link(session.link, Pong(verb.number))
            case Pong():
                self.links.pong(session, verb.number)
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

    # --- the end of a pass ---------------------------------------------------------------------------------------

    def _finish_pass(self) -> list[Effect]:
        desk = self.desk
        boot = desk.now.boot
        self.places.due()
        self.links.tick()
        self.deaths.tick()
        self.dispatch.run()
        self.schedule.read_ahead()
        self.watching.flush()
        self.accepting.flush()
        journal = desk.journal
        persist = journal.cut()
        for say in journal.unblocked():
            self.commits.say(say)
        if desk.draining and not journal.waiting and not self._stopped:
            self._stop()
        effects, desk.effects = desk.effects, []
        if persist is not None:
            # Before the reads of this pass, which see it.
            effects.insert(0, persist)
        if boot >= self._sweep_at:
            self._sweep_at = boot + SWEEP_EVERY
            effects.append(Sweep(SWEEP_LIMIT))
        if boot >= self._forget_at:
            self._forget_at = boot + FORGET_EVERY
            self._forget()
        wake = self._next_wake()
        # An earlier one stands: it costs a Tick, where another effect a pass would cost more.
        if wake < self._wake_at or self._wake_at <= boot:
            self._wake_at = wake
            effects.append(WakeAt(wake))
        return effects

    def _stop(self) -> None:
        """Drained: everything that waited for a commit has left. Children keep their leases for who comes next."""
        desk = self.desk
        self._stopped = True
        for link in desk.links:
            desk.send_link(link, Goodbye("the broker is shutting down"))
        desk.effects.append(Stop(0, "drained", sum(mailbox.depth for mailbox in desk.mailboxes.values())))

    def _next_wake(self) -> int:
        now = self.desk.now
        wake = now.boot + BEAT
        if self.deaths.next_deadline:
            wake = min(wake, max(self.deaths.next_deadline, now.boot))
        for due in (self.schedule.next_due, self.suspects.next_due, self.hosting.next_due):
            if now.wall < due < NEVER:
                wake = min(wake, now.boot + due - now.wall)
        return wake

    def _forget(self) -> None:
        """Let go of what is over: revocations, sessions that are long away, mailboxes that nobody uses."""
        desk = self.desk
        wall = desk.now.wall
        for id in [id for id, until in desk.revoked.items() if until <= wall]:
            del desk.revoked[id]
        oldest = wall - desk.settings.session_ttl
        surplus = len(desk.publishing) - desk.settings.sessions_max
        away: list[str] = []
        for id, publishing in desk.publishing.items():
            if id not in desk.sessions and (surplus > len(away) or publishing.seen_at < oldest):
                away.append(id)
        for id in away:
            del desk.publishing[id]
        if surplus > 0:
            desk.journal.write(SessionsGone(away))
            desk.notice("sessions_forgotten", count=len(away))
        desk.forget_idle_mailboxes()
