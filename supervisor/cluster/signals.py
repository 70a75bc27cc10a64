"""What the signals to a worker mean (Celery's, and two more).

    TERM        warm stop (cold with REMAP_SIGTERM=SIGQUIT in the environment, as for Celery)
    INT         warm stop; the second one cold, the third one hard
    QUIT        cold stop; the second one hard
    HUP         all children are replaced, one after another, by such that read the code anew
    USR1        the stacks of the parent's threads go to the log
    TTIN, TTOU  one child more, one child fewer

Owns the table alone. A second signal escalates the first one of its own kind, and never takes anything back: the
pool's machine keeps the higher stop.
"""

from __future__ import annotations

import signal
from typing import Final

from ..pool.events import PoolEvent, ReloadAsked, ResizeAsked, Stop, StopAsked

#: What the n-th signal of a kind asks for; the last entry holds for all further ones.
_STOPS: Final[dict[int, tuple[Stop, ...]]] = {
    signal.SIGTERM: (Stop.WARM,),
    signal.SIGINT: (Stop.WARM, Stop.COLD, Stop.HARD),
    signal.SIGQUIT: (Stop.COLD, Stop.HARD),
}

#: Signals that a worker answers to, apart from SIGCHLD and SIGUSR1.
TAKEN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class Signals:
    """The signals of one worker, counted."""

    def __init__(self, *, term_is_quit: bool = False) -> None:
        self._term_is_quit = term_is_quit
        self._counts: dict[int, int] = {}

    def means(self, number: int) -> PoolEvent | None:
        """Return what this signal, which has just come, asks of the pool; None: nothing."""
        if number == signal.SIGHUP:
            return ReloadAsked()
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            return ResizeAsked(1 if number == signal.SIGTTIN else -1)
        if number == signal.SIGTERM and self._term_is_quit:
            number = signal.SIGQUIT
        stops = _STOPS.get(number)
        if stops is None:
            return None
        count = self._counts.get(number, 0)
        self._counts[number] = count + 1
        return StopAsked(stops[min(count, len(stops) - 1)])
