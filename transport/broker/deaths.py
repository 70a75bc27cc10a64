"""Deaths: leases that ended without their holder's word (spec D14-D18, D24-D26).

Only a report or a lost node ends a lease. A `Report` comes from the child's parent, or from whoever found its page.
A node is lost when its own link and those of all its children are closed; a child whose link closed alone may come
back for 6 s. What is lost waits 7 s for evidence and is then judged without it. After a restart of the broker every
lease waits in the same way for its session to come back.

The judging itself is a table: `redelivery.py`. This file finds out how each delivery ended, and carries the verdict
out.
"""

from __future__ import annotations

import msgspec

from ..message import Envelope, Flag, More, State
from ..requests import Attempt
from ..store.records import SessionsGone
from ..verbs import Report, RingEntry, Role
from .desk import Desk
from .endings import Endings
from .events import PagesRead, ReadPages
from .held import Message
from .past import Past
from .places import Places
from .redelivery import Ending, Verdict, delay_before, judge
from .results import Watching, failure_result, retries_of
from .sessions import Session
from .settling import Settling

SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    31: "SIGSYS",
}
CAUSES = {Ending.NODE_LOST: "node_lost", Ending.UNKNOWN: "node_lost", Ending.TIMED_OUT: "timeout"}


class Deaths:
    """Ends leases whose holder is gone."""

    def __init__(self, desk: Desk, watching: Watching, endings: Endings, settling: Settling, places: Places) -> None:
        self._desk = desk
        self._watching = watching
        self._endings = endings
        self._settling = settling
        self._places = places
        #: Sessions that are waited for, in the order in which the wait began.
        self._waiting: dict[str, Session] = {}
        #: No session is judged before this boot time; 0: none waits.
        self.next_deadline = 0
        #: Until this boot time nobody is judged: the broker itself was paused (D4).
        self._grace_until = 0

    # --- links ---------------------------------------------------------------------------------------------------

    def link_closed(self, session: Session) -> None:
        """A child's or node's link is gone: find out who is lost with it (D15)."""
        desk = self._desk
        settings = desk.settings
        node = session.parent
        children = list(desk.children.get(node, {}).values())
        parent = desk.sessions.get(node)
        if (parent is None or not parent.link) and not any(child.link for child in children):
            for child in children:
                self._wait(child, settings.evidence_patience)
            self.look_for_pages(node, [child for child in children if child.held])
        elif session.role == Role.CHILD:
            # An actor's child that holds nothing still has its actors: nobody else gets them while it may come back.
            patience = settings.evidence_patience if session.held else 0
            self._wait(session, settings.reattach_patience + patience)

    def wait_for(self, session: Session) -> None:
        """After a restart: this session's leases wait for it (D18)."""
        self._wait(session, self._desk.settings.evidence_patience)

    def _wait(self, session: Session, patience: int) -> None:
        if not session.held and not session.owned:
            self.close(session)
            return
        session.judge_at = max(self._desk.now.boot + patience, self._grace_until)
        self._waiting[session.id] = session
        if not self.next_deadline or session.judge_at < self.next_deadline:
            self.next_deadline = session.judge_at

    def look_for_pages(self, node: str, children: list[Session]) -> None:
        """Ask the driver for the pages that these children of a lost node left on this host (D16)."""
        if children:
            self._desk.effects.append(ReadPages(node, [child.id for child in children]))

    def reattached(self, session: Session) -> None:
        """The session is back: nobody judges it."""
        session.judge_at = 0
        self._waiting.pop(session.id, None)

    def paused(self) -> None:
        """The broker itself stood still: give everybody time to say that they did not (D4)."""
        desk = self._desk
        self._grace_until = desk.now.boot + desk.settings.pause_grace
        for session in self._waiting.values():
            session.judge_at = max(session.judge_at, self._grace_until)

    def tick(self) -> None:
        """Judge, without evidence, those whose time is over."""
        now = self._desk.now.boot
        if not self.next_deadline or now < self.next_deadline:
            return
        for session in list(self._waiting.values()):
            if session.judge_at <= now:
                self._judge(session, Report(0, session.id, node_lost=True), evidence=False)
        self.next_deadline = min((session.judge_at for session in self._waiting.values()), default=0)

    # --- evidence ------------------------------------------------------------------------------------------------

    def pages(self, event: PagesRead) -> None:
        """Pages of a dead node were found on this host."""
        for report in event.reports:
            self.report(report)

    def report(self, report: Report) -> None:
        """A child has ended: its settles first, then the verdict on what is left. Closes the session."""
        session = self._desk.sessions.get(report.session)
        if session is None or session.role != Role.CHILD:
            # Judged already, without evidence. What it had finished still counts where nobody was first (D21).
            for settle in report.outbox:
                for outcome in settle.outcomes:
                    self._settling.late(outcome)
            return
        for settle in report.outbox:
            if settle.number > session.applied:
                session.applied = settle.number
                self._settling.settle(session, settle)
        self._judge(session, report, evidence=True)

    def _judge(self, session: Session, report: Report, *, evidence: bool) -> None:
        ring: dict[int, RingEntry] = {}
        for entry in report.ring:
            message = session.held.get(entry.position)
            if message is not None and message.lease is not None and message.lease.id == entry.lease:
                ring[entry.position] = entry
        joint = sum(1 for entry in ring.values() if not entry.finished) > 1
        for position in list(session.held):
            message = session.held[position]
            self._one(session, message, self._ending(report, ring.get(position), message, evidence), report, joint)
        self.close(session)

    def _ending(self, report: Report, entry: RingEntry | None, message: Message, evidence: bool) -> Ending:
        """How this delivery ended, by what is known."""
        position = message.position
        if not evidence:
            return Ending.UNKNOWN
        if position in report.terminated:
            return Ending.TERMINATED
        if entry is None:
            return Ending.BUFFERED
        if message.terminating and not entry.finished:
            # The child was told as well, and may have obeyed before its parent had heard of it.
            return Ending.TERMINATED
        if entry.finished:
            return Ending.FINISHED
        if position in report.timed_out:
            return Ending.TIMED_OUT
        if report.orderly or report.timed_out or report.terminated:
            # The parent ended this process, for its own reasons or another body's sake.
            return Ending.ORDERLY
        return Ending.NODE_LOST if report.node_lost else Ending.DIED

    def close(self, session: Session) -> None:
        """Nothing is left of this session: later frames of its link are told to begin anew."""
        desk = self._desk
        self._waiting.pop(session.id, None)
        self._watching.forget_session(session)
        desk.outflow.forget(session)
        self.detach(session)
        for mailbox in list(session.owned.values()):
            desk.own(mailbox, None)
            desk.rouse(mailbox)
        if desk.sessions.get(session.id) is session:
            del desk.sessions[session.id]
        if session.link:
            desk.links.pop(session.link, None)
            session.link = 0
        # A child's session is never used again: nobody will ask what became of its batches.
        if desk.publishing.pop(session.id, None) is not None:
            desk.journal.write(SessionsGone([session.id]))
        siblings = desk.children.get(session.parent)
        if siblings is not None:
            siblings.pop(session.id, None)
            if not siblings:
                del desk.children[session.parent]
                parent = desk.sessions.get(session.parent)
                if parent is not None and not parent.link:
                    del desk.sessions[parent.id]

    def detach(self, session: Session) -> None:
        """Give it nothing more: no mailbox and no actor class knows it as a consumer."""
        desk = self._desk
        session.attached = session.open = False
        desk.quarantine.pop(session.id, None)
        for name in session.mailboxes:
            mailbox = desk.mailboxes.get(name)
            if mailbox is not None and session in mailbox.consumers:
                mailbox.consumers.remove(session)
        for actor_class in session.actors:
            hosts = desk.hosts.get(actor_class)
            if hosts is not None:
                hosts.pop(session.id, None)
                if not hosts:
                    del desk.hosts[actor_class]

    # --- verdicts ------------------------------------------------------------------------------------------------

    def _one(self, session: Session, message: Message, ending: Ending, report: Report, joint: bool) -> None:
        """Carry out what follows for one message of the dead session."""
        desk = self._desk
        policy = desk.policy(message.envelope)
        flags = policy.flags
        if message.row.mailbox.is_actor and message.row.durability:
            # An actor's durable mailbox redelivers; a transient one is at most once.
            flags |= Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST
        past = message.past or Past()
        verdict = judge(ending, flags, past, joint, policy.max_deliveries)
        why = describe(report, ending)
        worker = session.node
        if verdict is Verdict.BACK:
            if ending is not Ending.BUFFERED:
                # Nobody is blamed, and yet its body will have run twice.
                desk.counts.redelivered += 1
            self._places.back(message)
            return
        if ending is Ending.UNKNOWN:
            # Its holder may be alive somewhere: the first outcome wins.
            desk.loose[message.position] = message
        attempt = self._attempt(session, message, report, ending, joint)
        past.remember(attempt, desk.now.wall, desk.settings.attempts_kept_max)
        if verdict is Verdict.LOST:
            self._endings.lost(message, why, worker)
        elif verdict is Verdict.FAILED:
            more = message.envelope.more
            self._endings.timed_out(message, more.time_limit if more is not None else 0, worker)
        elif verdict is Verdict.REVOKED:
            self._endings.revoked(message, "terminated", worker)
        elif verdict is Verdict.DEAD:
            self._endings.dead(message, past, why, worker)
        elif verdict is Verdict.RETRY:
            self._retry(message, policy.max_retries, policy.retry_delay, why, worker)
        else:
            self._again(message, past, quarantine=verdict is Verdict.QUARANTINE)

    def _again(self, message: Message, past: Past, *, quarantine: bool) -> None:
        """Deliver it once more, after the delay of D26: in quarantine if it is a suspect."""
        desk = self._desk
        desk.counts.redelivered += 1
        if quarantine and not past.suspect:
            past.suspect = True
            message.row.mailbox.suspects += 1
        message.past = past
        self._places.again(message, desk.now.wall + delay_before(past, message.envelope.id))

    def _retry(self, message: Message, max_retries: int, delay: int, why: str, worker: str) -> None:
        """Celery's retry_on_worker_lost: like retry(), with the message's own counts (spec 1.8)."""
        desk = self._desk
        envelope = message.envelope
        retries = retries_of(envelope)
        if retries >= max_retries >= 0:
            self._endings.lost(message, why, worker)
            return
        desk.counts.redelivered += 1
        if desk.keeps_result(envelope, failed=False):
            blob = failure_result(
                "WorkerLostError",
                f"Worker exited prematurely: {why}.",
                done_at=desk.now.wall,
                worker=worker,
                retries=retries,
                state=State.RETRY,
            )
            self._watching.store(message, State.RETRY, blob)
        self._settling.renew(message, with_retries(envelope, retries + 1), desk.now.wall + delay if delay > 0 else 0)

    def _attempt(self, session: Session, message: Message, report: Report, ending: Ending, joint: bool) -> Attempt:
        # A body starts within milliseconds of its hand-out, since only short ones are handed out ahead of time.
        started = message.lease.at if message.lease is not None else 0
        return Attempt(
            worker=session.id,
            node=session.node,
            pid=report.pid or session.pid,
            incarnation=session.incarnation,
            exit_code=report.exit_code,
            signal=report.signal,
            oom=report.oom,
            max_rss=report.max_rss_kib,
            started_at=started / 1e6,
            ended_at=self._desk.now.wall / 1e6,
            cause=CAUSES.get(ending, "joint" if joint else "solo"),
        )


def describe(report: Report, ending: Ending) -> str:
    """How a process ended, in Celery's words: 'signal 9 (SIGKILL)', 'exitcode 3'."""
    if ending in (Ending.NODE_LOST, Ending.UNKNOWN) and not report.signal and report.exit_code is None:
        return "its node was lost"
    if ending is Ending.TIMED_OUT:
        return "killed at its hard time limit"
    if report.signal:
        name = SIGNALS.get(report.signal, "unknown signal")
        oom = ", out of memory" if report.oom else ""
        return f"signal {report.signal} ({name}){oom}"
    return f"exitcode {report.exit_code or 0}"


def with_retries(envelope: Envelope, retries: int) -> Envelope:
    """The same message with another count of retries."""
    more = msgspec.structs.replace(envelope.more or More(), retries=retries, due=0)
    return msgspec.structs.replace(envelope, more=more)
