"""The window of a child: how much it may hold, by what its bodies and the way to the disk take (spec D11).

`slots / average body * (10 ms + average settle-to-Applied)`, from `slots` to WINDOW_MAX: what this child
works off in 10 ms and while its settles are on their way. Just `slots` while nothing was measured, and when
bodies take LONG_BODY and more: what waits, waits in the broker. The broker is told when it changed by a
quarter, so that a steady load costs no words.
"""

from __future__ import annotations

from collections import deque

WINDOW_MAX = 2048
#: Work to hold ahead, beside what the way to the disk and back takes, in microseconds.
AHEAD = 10_000
#: A body that has run this long (microseconds) holds up what waits behind it.
LONG_BODY = 5_000

#: What the newest body counts in the average.
BODY_WEIGHT = 1 / 16


class Window:
    """Measures, and says what to tell. `told` is what the broker knows."""

    __slots__ = ("_commit", "_max", "_sent", "_slots", "body", "stuck", "told")

    def __init__(self, slots: int, window_max: int = WINDOW_MAX) -> None:
        self.told = slots
        self._slots = slots
        self._max = max(slots, window_max)
        #: What bodies take, in microseconds, on the average; before the first as much as a long one. The consumer
        #: writes it: the first body counts whole, the others BODY_WEIGHT.
        self.body = float(LONG_BODY)
        #: Every runner has a body that has run for LONG_BODY and goes on: nothing is held beyond the slots. The
        #: consumer clears it when one of them ends. The average learns of that body then, as of any other: one
        #: that was long because the machine was busy does not close the window for many that are short.
        self.stuck = False
        #: The same of the way to the disk and back; below 0: nothing was measured.
        self._commit = -1.0
        #: (number, boot time) of each Settle that was not answered.
        self._sent: deque[tuple[int, int]] = deque()

    def body_is_long(self) -> None:
        """Every runner's body has run for LONG_BODY and goes on: hold nothing beyond the slots until one ends."""
        self.stuck = True
        self.told = self._slots

    def settle_sent(self, number: int, boot: int) -> None:
        """A Settle went out."""
        self._sent.append((number, boot))

    def applied(self, number: int, boot: int) -> None:
        """The broker has committed every Settle up to this number."""
        sent = self._sent
        while sent and sent[0][0] <= number:
            took = boot - sent.popleft()[1]
            average = self._commit
            self._commit = took if average < 0 else average + (took - average) * 0.125

    def wanted(self) -> int:
        """What the window should be by what was measured."""
        if self.stuck or self.body >= LONG_BODY or self._commit < 0:
            return self._slots
        window = int(self._slots * (AHEAD + self._commit) / max(self.body, 1.0))
        return max(self._slots, min(window, self._max))

    def change(self, most: int) -> int | None:
        """The window to tell now, `most` at most, if it is a quarter away from what was told; else None."""
        window = min(self.wanted(), most)
        if window == self.told or abs(window - self.told) * 4 < self.told:
            return None
        self.told = window
        return window
