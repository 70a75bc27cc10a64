"""How a child is brought to its end, one step after the other.

Owns the steps: the word to stop, SIGTERM, SIGKILL, and, for a spawner that carries out none of this, its own SIGKILL;
and the deadlines between them. When a child has to end is `machine`'s to say.

    asked      StopChild, and as much time as it needs (little, if it was not ready yet)
    soon       StopChild(cold), then SIGTERM after `cold_grace`, then SIGKILL after `kill_grace`
    now        SIGKILL
"""

from __future__ import annotations

import signal

from ...actors.worker.control import StopChild
from .events import KillSpawner, Look, PoolEffect, Say, Signal
from .limits import PoolLimits
from .members import Member, MemberState
from .spawners import Spawners


class Endings:
    """The steps, as effects that are appended to `effects`. `stopping`: the whole pool is being stopped."""

    __slots__ = ("_limits", "_spawners", "effects", "stopping")

    def __init__(self, limits: PoolLimits, spawners: Spawners) -> None:
        self._limits = limits
        self._spawners = spawners
        self.effects: list[PoolEffect] = []
        self.stopping = False

    def ask(self, member: Member, now: int) -> None:
        """Ask a child to leave when it has finished what it runs."""
        if member.going:
            return
        if member.pid and member.state is not MemberState.READY:
            member.kill_due = now + self._limits.idle_grace
        self._never_mind_the_fork(member)
        self.effects.append(Say(member.number, StopChild()))
        _leaves(member)

    def soon(self, member: Member, now: int) -> None:
        """End a child within the graces; at once, if it was not ready yet."""
        if member.ready_at is None:
            self.now(member, now)
        elif member.state is not MemberState.DOOMED:
            self.effects.append(Say(member.number, StopChild(cold=True)))
            _leaves(member)
            member.term_due = now + self._limits.cold_grace
            member.kill_due = member.term_due + self._limits.kill_grace

    def now(self, member: Member, now: int) -> None:
        """End a child because the pool is stopped."""
        _leaves(member)
        member.ended_by_stop = member.state is not MemberState.DOOMED or member.ended_by_stop
        self.kill(member, now)
        self._never_mind_the_fork(member)

    def kill(self, member: Member, now: int) -> None:
        """SIGKILL a child, for whatever reason."""
        if member.state is not MemberState.DOOMED:
            member.state = MemberState.DOOMED
            member.start_due = member.term_due = None
            self.effects.append(Signal(member.number, signal.SIGKILL))
        # A spawner that does not act on this must not hold up the end of the pool.
        member.kill_due = now + self._limits.idle_grace if self.stopping else None

    def kill_spawner(self, generation: int) -> None:
        """SIGKILL a spawner, once."""
        if self._spawners.kill(generation):
            self.effects.append(KillSpawner(generation))

    def due(self, member: Member, now: int) -> None:
        """Take the steps whose time has come, and look for what the child should not be running any more."""
        if member.start_due is not None and member.start_due <= now:
            member.start_due = None
            member.too_slow = True
            self._kill_or_spawner(member, now)
        if member.kill_due is not None and member.kill_due <= now:
            member.term_due = member.kill_due = None
            if member.state is MemberState.DOOMED:
                self.kill_spawner(member.generation)
            else:
                member.ended_by_stop = True
                self._kill_or_spawner(member, now)
        elif member.term_due is not None and member.term_due <= now:
            member.term_due = None
            member.ended_by_stop = True
            self.effects.append(Signal(member.number, signal.SIGTERM))
        if member.state is not MemberState.DOOMED:
            for position, lease in member.watches.due(now):
                self.effects.append(Look(member.number, position, lease))

    def _never_mind_the_fork(self, member: Member) -> None:
        """The pool stops before this child was forked: no need to wait for a spawner that reads the code."""
        if self.stopping and not member.pid and self._spawners.is_loading(member.generation):
            self.kill_spawner(member.generation)

    def _kill_or_spawner(self, member: Member, now: int) -> None:
        """Kill a child; where its fork was ordered and never came, it is the spawner that is stuck."""
        if member.pid:
            self.kill(member, now)
        else:
            self.kill_spawner(member.generation)


def _leaves(member: Member) -> None:
    member.asked = True
    if member.pid:
        member.start_due = None
    if member.active:
        member.state = MemberState.LEAVING
