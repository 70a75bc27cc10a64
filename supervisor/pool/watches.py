"""What a child runs that it may have to be ended for: bodies with a hard time limit, and revoked messages.

Owns the deadlines of one child's bodies and of its terminations, by position. It never says "kill" of its own: it
says which deliveries must be looked for in the page, and what follows from the look.

    body         running -> due -> looked: not there, forgotten / there, the child is to be killed; but not with
                 others that run in it: then it is looked again after `look_again`, until they have ended
    termination  asked -> looked: not there, forgotten / there, the signal is sent -> due -> looked -> killed
"""

from __future__ import annotations

import signal

import msgspec

#: Signals that a revoke may send without meaning the end of the process.
_HARMLESS = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH})


class Body(msgspec.Struct):
    """A body with a hard time limit: its lease, and the boot time at which the page is looked at for it.

    `overdue`: its time was over before, and its child was spared for the others that it runs.
    """

    lease: int
    due: int
    overdue: bool = False


class Termination(msgspec.Struct):
    """A revoke with terminate: its signal's number; once that was sent, when SIGKILL follows (None: never)."""

    number: int
    sent: bool = False
    due: int | None = None


class Watches:
    """The deadlines of what one child runs. Times are boot microseconds."""

    __slots__ = ("_bodies", "_look_again", "_terminations", "timed_out")

    def __init__(self, look_again: int) -> None:
        self._look_again = look_again
        self._bodies: dict[int, Body] = {}
        self._terminations: dict[int, Termination] = {}
        #: Positions for which the child was killed at their time limit.
        self.timed_out: list[int] = []

    def body_started(self, position: int, lease: int, due: int) -> None:
        """Watch a body: it may run until `due`."""
        self._bodies[position] = Body(lease, due)

    def body_ended(self, position: int) -> None:
        """Forget a body."""
        self._bodies.pop(position, None)

    def terminate(self, position: int, number: int) -> bool:
        """Note a revoke that sends signal `number`; return whether it is news, so that the page must be looked at."""
        if position in self._terminations:
            return False
        self._terminations[position] = Termination(number)
        return True

    @property
    def terminated(self) -> list[int]:
        """The positions for which the child was signalled."""
        return [position for position, end in self._terminations.items() if end.sent]

    def next_due(self) -> int | None:
        """Return when the page must be looked at next, or None."""
        dues = [body.due for body in self._bodies.values()]
        dues.extend(end.due for end in self._terminations.values() if end.due is not None)
        return min(dues, default=None)

    def due(self, now: int) -> list[tuple[int, int]]:
        """Return the (position, lease) to be looked for now; lease 0: any."""
        bodies = [(position, body.lease) for position, body in self._bodies.items() if body.due <= now]
        ends = [(position, 0) for position, end in self._terminations.items() if end.due is not None and end.due <= now]
        return bodies + ends

    def not_there(self, position: int) -> None:
        """The page does not show this position as running: nothing is to be ended for it."""
        self._bodies.pop(position, None)
        self._terminations.pop(position, None)

    def signal_due(self, position: int, now: int, grace: int) -> int | None:
        """Return the signal that a revoke sends now, once, to the child that does run the position.

        SIGKILL follows after `grace`, unless it is a signal that is not meant to end the process.
        """
        end = self._terminations.get(position)
        if end is None or end.sent:
            return None
        end.sent = True
        end.due = None if end.number in _HARMLESS else now + grace
        return end.number

    def termination_due(self, position: int, now: int) -> bool:
        """Tell whether the child, which does run the position, is to be killed for a revoke now."""
        end = self._terminations.get(position)
        return end is not None and end.due is not None and end.due <= now

    def limit_due(self, position: int, others: list[int], now: int) -> bool | None:
        """Tell whether the child, which does run the position, is to be killed for its time limit.

        None: it is, and runs `others` whose time is not over; it is looked at again later.
        """
        body = self._bodies.get(position)
        if body is None or body.due > now:
            return False
        overdue = [position, *(other for other in others if self._is_overdue(other))]
        if len(overdue) <= len(others):
            body.due = now + self._look_again
            body.overdue = True
            return None
        self.timed_out += overdue
        return True

    def _is_overdue(self, position: int) -> bool:
        body = self._bodies.get(position)
        return body is not None and body.overdue
