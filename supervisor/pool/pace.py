"""How soon another child takes the place of one that died at work.

Owns the brakes of each kind of children. A death counts against one of two:

    crash   the process ended by itself: an exit code, a signal of a crash, or the memory that it took
    kill    by a signal that may as well have come from outside, or at a time limit. It says little of the
            application, so more of them are borne, and successors never wait for long

A brake is *loose* at first: successors come at once, and the deaths of the last while are counted. One too many, and
it is *held*: successors wait, twice as long after each round that dies, up to a maximum. A child that finished a few
bodies, or that was up for a while, was a healthy one: after it the wait is the shortest again. When a child has been
up for as long, nobody has died meanwhile, and the window has room again, the brake is loose.

So one death, or a few, or all children at once, delay nobody, while a module whose every task ends its process is no
fork loop; and what does work goes on at a bounded pace. The pool never gives up for what tasks do. Not counted are
children that were asked to leave, that a revoke ended, and those for suspects, whose runs the broker bounds.
"""

from __future__ import annotations

from collections.abc import Collection

from ...transport.verbs import ChildKind
from ..backoff import Failures
from ..intensity import RestartWindow
from ..spec import Backoff
from . import deaths
from .events import ChildEnded
from .limits import PoolLimits
from .members import Member

#: Whose successors may have to wait.
PACED = (ChildKind.POOL, ChildKind.ACTORS)


class Brake:
    """The deaths of one kind of children by one kind of cause. Times are boot microseconds."""

    __slots__ = ("_backoff", "_deaths_max", "_failures", "_window", "held", "not_before")

    def __init__(self, deaths_max: int, period: int, backoff: Backoff) -> None:
        self._deaths_max = deaths_max
        self._window = RestartWindow(deaths_max, period)
        self._backoff = backoff
        self._failures = Failures()
        #: Whether successors wait.
        self.held = False
        #: They do until then.
        self.not_before = 0

    def died(self, at_once: int, productive: bool, now: int) -> bool:
        """Count a death; return whether with it, and not before, the brake is held.

        `at_once`: so many deaths are never too many. `productive`: the child had finished enough to be healthy.
        """
        self._window.intensity = max(self._deaths_max, at_once)
        too_many = not self._window.attempt(now)
        news = too_many and not self.held
        self.held = self.held or too_many
        # Those that die while a round is waited for wait with it: they were of the same round.
        if self.held and now >= self.not_before:
            if productive:
                self._failures.in_a_row = 0
            self.not_before = now + self._failures.failed(self._backoff, now, 0.0)
        self._failures.starts_again()
        return news

    def count(self, now: int) -> int:
        """Return how many deaths there were lately."""
        return self._window.count(now)

    def came_up(self, now: int) -> None:
        """A child is ready."""
        self._failures.came_up(now)

    @property
    def loose_at(self) -> int | None:
        """When it will be loose if nobody dies until then; None: it is, or no child has come up since a death."""
        healthy = self._failures.healthy_at(self._backoff) if self.held else None
        # Not before the window has room: the next death would hold it again, and the log tell it anew.
        return None if healthy is None else max(healthy, self._window.calm_at())

    def release(self, now: int) -> bool:
        """Let loose if it is time for that; return whether it was."""
        due = self.loose_at
        if due is None or now < due:
            return False
        self.held = False
        self.not_before = self._failures.in_a_row = 0
        return True

    @property
    def longest_wait(self) -> int:
        """The longest that a successor waits."""
        return self._backoff.max_microseconds


class Pace:
    """The brakes of a pool."""

    __slots__ = ("_crashes", "_kills", "_limits")

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._crashes: dict[ChildKind, Brake] = {}
        self._kills: dict[ChildKind, Brake] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all deaths: from now on children read other code."""
        limits = self._limits
        for kind in PACED:
            self._crashes[kind] = Brake(limits.crashes_max, limits.deaths_period, limits.crash_backoff)
            self._kills[kind] = Brake(limits.kills_max, limits.deaths_period, limits.kill_backoff)

    def came_up(self, kind: ChildKind, now: int) -> None:
        """A child of this kind is ready."""
        for brake in self._of(kind):
            brake.came_up(now)

    def died(self, member: Member, ended: ChildEnded, wanted: int, now: int) -> Brake | None:
        """Count the death of a child at work, one of `wanted`; return the brake that is held from now on, if one is."""
        if member.kind not in PACED or member.watches.terminated:
            return None
        by_itself = deaths.ended_by_itself(ended) and not member.watches.timed_out
        brake = (self._crashes if by_itself else self._kills)[member.kind]
        productive = ended.finished >= self._limits.healthy_bodies
        return brake if brake.died(2 * wanted, productive, now) else None

    def not_before(self, kind: ChildKind) -> int:
        """Return when the next child of this kind may be forked at the earliest; 0: at any time."""
        return max((brake.not_before for brake in self._of(kind)), default=0)

    def is_held(self, kind: ChildKind) -> bool:
        """Tell whether successors of this kind wait."""
        return any(brake.held for brake in self._of(kind))

    def next_release(self) -> int | None:
        """Return when a brake may be let loose next, or None."""
        return min(
            (due for kind in PACED for brake in self._of(kind) if (due := brake.loose_at) is not None), default=None
        )

    def release(self, now: int) -> list[ChildKind]:
        """Let loose the brakes whose time has come; return the kinds whose successors wait no more."""
        held = [kind for kind in PACED if self.is_held(kind)]
        for kind in held:
            for brake in self._of(kind):
                brake.release(now)
        return [kind for kind in held if not self.is_held(kind)]

    def _of(self, kind: ChildKind) -> Collection[Brake]:
        return (self._crashes[kind], self._kills[kind]) if kind in PACED else ()
