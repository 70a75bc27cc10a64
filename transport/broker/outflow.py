"""Outflow: what is sent to a session is counted until it was read (spec D9).

After each MARK_BYTES sent to a link stands a Ping; its Pong tells that everything before it was read. What was sent
and not read is unacknowledged. With what is on its way to be sent (a Deliver waits for its commit) it is *unread*: a
session with `unacknowledged_bytes_max` unread is given no more messages. One with so much unacknowledged stands
still: it gets heartbeats only, and what else would be said to it is withheld, in order. It goes on when its Pongs
come. Its link is closed after `unacknowledged_patience`, and at once when twice as much is withheld; what it holds is
then found out or judged as after any loss of a link.

Sizes are near enough: bodies and results as they are, everything around them by a constant.
"""

from __future__ import annotations

from ..verbs import FromBroker, Ping
from .events import Effect, Send
from .sessions import Session
from .settings import BrokerSettings

#: About what a verb without bodies takes.
VERB_BYTES = 64
#: Sent between two marks, unless the limit is so low that it would be reached without one.
MARK_BYTES = 1 << 20


class Outflow:
    """Sends, counts and withholds."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._bytes_max = settings.unacknowledged_bytes_max
        self._mark_bytes = min(MARK_BYTES, self._bytes_max // 2)
        self._patience = settings.unacknowledged_patience
        self._pings = 0
        #: Sessions that stand still, in the order in which they began to.
        self.stalled: dict[str, Session] = {}

    def ping(self) -> Ping:
        """A heartbeat that nobody has been sent before."""
        self._pings += 1
        return Ping(self._pings)

    def promise(self, session: Session, size: int) -> None:
        """So much will be sent: the session is full from a certain amount on."""
        session.unread_bytes += size
        if session.unread_bytes >= self._bytes_max:
            session.open = False

    def withdraw(self, session: Session, size: int) -> None:
        """What was promised will not be sent."""
        session.unread_bytes = max(0, session.unread_bytes - size)
        self.reopen(session)

    def reopen(self, session: Session) -> None:
        """Tell by all that is known whether the session may be given messages."""
        full = session.stalled_at or session.unread_bytes >= self._bytes_max
        session.open = session.attached and bool(session.link) and not full

    def send(
        self, effects: list[Effect], session: Session, verb: FromBroker, size: int, boot: int, *, promised: bool = False
    ) -> None:
        """Say this on the session's link, or withhold it; nothing without a link. `promised`: it was counted."""
        link = session.link
        if not link:
            return
        if not promised:
            session.unread_bytes += size
        if session.stalled_at:
            session.withheld.append((verb, size))
            session.withheld_bytes += size
            return
        if effects:
            last = effects[-1]
            if type(last) is Send and last.link == link:
                last.verbs.append(verb)
            else:
                effects.append(Send(link, [verb]))
        else:
            effects.append(Send(link, [verb]))
        session.sent_bytes += size
        if session.sent_bytes - session.marked_bytes >= self._mark_bytes:
            self._mark(effects, session, boot)

    def _mark(self, effects: list[Effect], session: Session, boot: int) -> None:
        session.marked_bytes = session.sent_bytes
        ping = self.ping()
        session.marks.append((ping.number, session.sent_bytes))
        effects.append(Send(session.link, [ping]))
        if session.sent_bytes - session.acknowledged_bytes >= self._bytes_max:
            session.stalled_at = max(1, boot)
            session.open = False
            self.stalled[session.id] = session

    def pong(self, effects: list[Effect], session: Session, number: int, boot: int) -> bool:
        """Everything before this mark was read. True: the session may be given messages, and it might not before."""
        before = session.acknowledged_bytes
        marks = session.marks
        while marks and marks[0][0] <= number:
            session.acknowledged_bytes = marks.popleft()[1]
        session.unread_bytes -= session.acknowledged_bytes - before
        if session.stalled_at and session.sent_bytes - session.acknowledged_bytes < self._bytes_max:
            del self.stalled[session.id]
            session.stalled_at = 0
            withheld = session.withheld
            while withheld and not session.stalled_at:
                verb, size = withheld.popleft()
                session.withheld_bytes -= size
                self.send(effects, session, verb, size, boot, promised=True)
        was_open = session.open
        self.reopen(session)
        return session.open and not was_open

    def forget(self, session: Session) -> None:
        """The session's link is gone, and with it everything that was under way on it."""
        session.sent_bytes = session.acknowledged_bytes = session.marked_bytes = session.unread_bytes = 0
        session.marks.clear()
        session.withheld.clear()
        session.withheld_bytes = 0
        if session.stalled_at:
            session.stalled_at = 0
            self.stalled.pop(session.id, None)

    def overdue(self, boot: int) -> list[Session]:
        """Sessions that have stood still for too long, or for which too much is withheld."""
        return [
            session
            for session in self.stalled.values()
            if boot - session.stalled_at >= self._patience or session.withheld_bytes > 2 * self._bytes_max
        ]
