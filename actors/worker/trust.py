"""Trust: whether a child may rely on what it holds being leased to it (spec D19).

A machine without I/O, and a part of the consumer.

    whole      what is held is this child's; it may be started
               -> doubted: its node has not heard the broker for HEARD_MAX, or this process was not awake for
                  PAUSE_NOTICED (stopped, or starved)
    doubted    the broker must look at what is held, on a new link
               -> confirmed: it has
    confirmed  the node must have heard the broker too
               -> whole: it has
               -> doubted: this process was not awake once more

Only a whole trust lets anything start, or asks for credit: so a child that was stopped wakes up harmless, and one
whose node stays stopped keeps nothing from others.
"""

from __future__ import annotations

import enum

#: How long ago (microseconds) the node may have heard the broker for a body to be started.
HEARD_MAX = 6_000_000
#: A gap between two signs of life of this process after which it no longer trusts what it holds. The broker
#: gives a child's lost link 6 s (D15); a child that was away for less has its link still.
PAUSE_NOTICED = 3_000_000
#: How long a child whose list the broker has seen keeps what it has not started, while its node hears nothing: after a
#: broker's restart nodes are back a little later than their children.
KEEP_MAX = 1_000_000


class _State(enum.IntEnum):
    WHOLE = 0
    DOUBTED = 1
    CONFIRMED = 2


class Trust:
    """One child's trust in what it holds."""

    __slots__ = ("_confirmed_at", "_reattach", "_state", "awake_at", "is_whole")

    def __init__(self) -> None:
        #: Whether what is held may be started.
        self.is_whole = True
        #: When this process was last seen to run; 0: never. The consumer writes it where a call would be too much.
        self.awake_at = 0
        self._state = _State.WHOLE
        self._reattach = False
        self._confirmed_at = 0

    @property
    def waits_for_node(self) -> bool:
        """Whether it is whole as soon as the node hears the broker."""
        return self._state is _State.CONFIRMED

    def awake(self, boot: int) -> None:
        """This process runs at this time; after a long silence it is in doubt."""
        if boot - self.awake_at > PAUSE_NOTICED and self.awake_at and self._state is not _State.DOUBTED:
            self.doubt()
        self.awake_at = boot

    def doubt(self) -> None:
        """Let the broker look at what is held, on a new link."""
        self._move(_State.DOUBTED)
        self._reattach = True

    def take_wish(self) -> bool:
        """Tell, once, whether a new link is needed."""
        wish, self._reattach = self._reattach, False
        return wish

    def confirmed(self, boot: int) -> None:
        """The broker has looked at what is held."""
        if self._state is not _State.WHOLE:
            self._move(_State.CONFIRMED)
            self._confirmed_at = boot

    def look(self, boot: int, heard: int) -> bool:
        """The node heard the broker at `heard`. True: it was in doubt, and is whole again."""
        if boot - heard > HEARD_MAX:
            if self._state is _State.WHOLE:
                self.doubt()
        elif self._state is _State.CONFIRMED:
            self._move(_State.WHOLE)
            return True
        return False

    def is_hopeless(self, boot: int) -> bool:
        """Whether the node has been deaf for so long that what was not started is better given back."""
        return self._state is _State.CONFIRMED and boot - self._confirmed_at >= KEEP_MAX

    def _move(self, state: _State) -> None:
        self._state = state
        self.is_whole = state is _State.WHOLE
