"""What user code in a simulated world sees of the outside: its time, its chance, its ids, and what it may not touch.

Owns one `Realm` a world, and the answer to who is inside at the moment: the bodies that a world runs, and a test within
`Realm.inside()`. It is kept in a context variable, and each fiber has a context of its own, so that drivers, machines
and Hypothesis are outside even while a body waits for them. `patches` asks here before it answers in place of the
standard library; `escapes` asks before it lets anything out.

Chance comes in streams, one a label (a lane and a use), so that an additional draw in one disturbs no other.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import greenlet

from ...transport.clock import MICROSECONDS, Now
from .clockwork import Clockwork, Process
from .trace import Trace

if TYPE_CHECKING:
    from .effects import Effect

#: The lane of what the test itself does.
TEST_LANE: Final = "test"

#: How often `poll` looks, in microseconds.
_POLL_MIN: Final = 1_000
_POLL_MAX: Final = 1_000_000

_current: ContextVar[Realm | None] = ContextVar("greenroom_realm", default=None)

#: Return the realm that the caller is in; None: it is outside of any.
current_realm: Final = _current.get


def enter(realm: Realm | None) -> None:
    """Let the caller be in this realm from now on; None: in none."""
    _current.set(realm)


class Realm:
    """The outside of one world, as those within it see it."""

    def __init__(self, clockwork: Clockwork, trace: Trace, seed: int = 0) -> None:
        """`seed` decides everything that user code draws."""
        self.clockwork = clockwork
        self.trace = trace
        #: What may be touched at present, by the name of the kind (see `escapes`).
        self.allowed: Counter[str] = Counter()
        #: What user code has recorded as done, in order (see `effects`).
        self.effects: list[Effect] = []
        #: The first thing that got out of user code and should not have.
        self.escaped: Exception | None = None
        self._seed = seed
        self._streams: dict[str, random.Random] = {}
        self._ids = 0

    @contextmanager
    def inside(self) -> Generator[None]:
        """Within this, the caller is in the world, as a body is."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    # --- who ------------------------------------------------------------------------------------------------------

    @property
    def process(self) -> Process | None:
        """The simulated process that acts; None: the test."""
        fiber = self.clockwork.current
        return None if fiber is None else fiber.process

    @property
    def lane(self) -> str:
        """The lane of who acts."""
        process = self.process
        return TEST_LANE if process is None else process.lane

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        """The present instant; the wall clock is that of the host of who acts."""
        true, process = self.clockwork.now, self.process
        return true if process is None else Now(true.boot, process.now.wall)

    def sleep(self, seconds: float) -> None:
        """Let so much time pass; others have their turns meanwhile."""
        clockwork = self.clockwork
        if clockwork.closed:
            # The world is over, and what is left of it is being unwound.
            raise greenlet.GreenletExit
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        end = clockwork.now.boot + round(seconds * MICROSECONDS)
        if end == clockwork.now.boot:
            self.yield_turn()
        else:
            clockwork.wait(lambda: clockwork.now.boot >= end, end - clockwork.now.boot, lambda _: None)

    def poll(self, until: Callable[[], bool], seconds: float | None) -> bool:
        """Look again and again, more and more seldom, for so many seconds at most; tell whether it came to that."""
        end = None if seconds is None else self.now.boot + round(seconds * MICROSECONDS)
        step = _POLL_MIN
        while not until():
            left = step if end is None else min(step, end - self.now.boot)
            if left <= 0:
                return False
            self.sleep(left / MICROSECONDS)
            step = min(2 * step, _POLL_MAX)
        return True

    def yield_turn(self) -> None:
        """Let everybody who is ready go first. Nothing happens where the test itself calls it."""
        fiber = self.clockwork.current
        if fiber is not None and not self.clockwork.closed:
            fiber.wake()
            fiber.sleep()

    # --- chance ---------------------------------------------------------------------------------------------------

    def stream(self, label: str) -> random.Random:
        """Return the generator of this label, the same one each time."""
        stream = self._streams.get(label)
        if stream is None:
            stream = self._streams[label] = random.Random(f"{self._seed} {label}")
        return stream

    @property
    def random(self) -> random.Random:
        """What stands behind the functions of `random` for who acts."""
        return self.stream(f"random {self.lane}")

    def urandom(self, size: int) -> bytes:
        """Return bytes that stand for the system's randomness."""
        return self.stream(f"urandom {self.lane}").randbytes(size)

    def new_id(self) -> str:
        """Return a UUIDv7 of the world's time, the next one at each call."""
        self._ids += 1
        milliseconds, number = self.now.wall // 1_000, self._ids
        return (
            f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{number >> 48 & 0xFFF:03x}"
            f"-8000-{number & 0xFFFF_FFFF_FFFF:012x}"
        )
