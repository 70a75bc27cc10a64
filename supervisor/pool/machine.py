"""A pool of child processes, as a machine: it keeps the right number of them, ends them and buries them.

Owns every decision about the children of one worker node, and which signal and exit code follow from what.
It is told what happened (`events`) and answers with what to do; forks, pipes, pages and clocks are `pool`'s.
The states of a child are in `members`. The pool is

    new -> running -> warm -> cold -> hard -> over          (it may skip states, and never goes back)

* *running*: where the application has a say in what the worker is, its word comes first (`opening`). Of each
  kind as many children are kept as are wanted: ordinary ones by the limits, those for suspects and for actors
  as many as the broker asked for at some time (`SpawnAsked`), within the limits. A child that ends is replaced
  at once. One that ends before it was ready, or that crashes soon after without having run anything, is a
  *failed start*: it passes the window (`intensity`) and delays the next fork (`backoff`); one too many, and the
  pool gives up. One that dies of what it runs is its task's fault: the pool never gives up for that, but when
  too many of them die, their successors wait (`pace`), and the log and the status say so. So a broken
  application is no fork loop, whether it breaks at its start or in each task.
* *warm*: nothing is forked any more; children were told to stop and take the time that they need.
* *cold*: also SIGTERM, then SIGKILL follow, and nothing that ran is blamed. A pool that gives up ends so.
* *hard*: SIGKILL.
* *over*: `Exit` was said, after the last child was buried.

*Reload*: a new spawner reads the code anew. A child of it is forked beside the others; when it is ready, one
of the old ones is told to leave, and so on. If a new one fails to start, the old spawner is taken again and
the new children leave: a broken application never replaces one that works.

*Time limits and revokes*: before a child is killed because of what it runs, its page is looked at whether
that very delivery still runs. A child that runs others beside one past its limit leaves first: it is killed when
they have ended, so that nobody pays for another's limit.

What can never happen: more children of a kind than wanted, one being replaced apart, that are not on their
way out; a fork after the word to stop; two burials of one child, or none; an `Exit` while a child lives; a
SIGKILL for a time limit at a child whose page did not show that delivery. Words about children that are gone
are ignored: they race.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Any

from ...actors.worker.control import BodyEnded, BodyStarted, Leaving, Ready, Unusable
from ...transport.clock import Now
from ...transport.verbs import ChildKind
from ..reasons import ExitReason
from . import deaths, notices
from .endings import Endings
from .events import (
    BrokerReachable,
    ChildEnded,
    Exit,
    Fork,
    Forked,
    ForkFailed,
    Look,
    Looked,
    PoolEffect,
    PoolEvent,
    PoolReady,
    ReloadAsked,
    ResizeAsked,
    RetireSpawner,
    Said,
    Signal,
    SpawnAsked,
    SpawnerEnded,
    SpawnerUp,
    StartPool,
    StartSpawner,
    Stop,
    StopAsked,
    TerminateAsked,
    Tick,
    Troubled,
)
from .limits import PoolLimits
from .members import Member, MemberState, Roll
from .opening import Opening
from .pace import PACED, Pace
from .spawners import Spawners
from .starts import Starts
from .strength import Strength
from .watches import Watches

#: Exit codes of a worker (0: it was asked to stop). The supervision gave up, as OTP's top supervisor does.
EXIT_GAVE_UP = 1
#: The application could not be loaded, by any child, since the start.
EXIT_UNUSABLE = 3
#: Children were killed because somebody insisted.
EXIT_KILLED = 4

#: Spawners at a time: the present one, and old ones whose children still finish their work.
SPAWNERS_MAX = 8


class _Mode(IntEnum):
    NEW = 0
    RUNNING = 1
    WARM = 2
    COLD = 3
    HARD = 4
    OVER = 5


class PoolMachine:
    """The children of one worker node. `kind` is its pool: prefork, threads, asyncio or solo.

    Of "pool" and "concurrency" the application may say what is in `open_to_app`.
    """

    def __init__(self, limits: PoolLimits, kind: str = "prefork", open_to_app: Collection[str] = ()) -> None:
        self.limits = limits
        self._mode = _Mode.NEW
        self._roll = Roll()
        self._strength = Strength(Opening(limits, kind, open_to_app))
        self._reachable = False
        self._spawners = Spawners()
        self._endings = Endings(limits, self._spawners)
        self._starts = Starts(limits)
        self._pace = Pace(limits)
        #: A soft stop becomes a cold one then.
        self._cold_due: int | None = None
        self._announced = False
        self._tasks: list[str] = []
        self._mailboxes: list[str] = []
        #: What the status was told last of what is wrong.
        self._trouble = ""
        self._exit_code = 0
        self._exit_reason = ""
        self._handlers: dict[type[PoolEvent], Callable[[Any, int], None]] = {
            StartPool: self._start,
            SpawnerUp: self._spawner_up,
            SpawnerEnded: self._spawner_ended,
            Forked: self._forked,
            ForkFailed: self._fork_failed,
            Said: self._said,
            ChildEnded: self._ended,
            SpawnAsked: self._spawn_asked,
            TerminateAsked: self._terminate_asked,
            Looked: self._looked,
            BrokerReachable: self._broker_reachable,
            StopAsked: self._stop_asked,
            ReloadAsked: self._reload_asked,
            ResizeAsked: self._resize_asked,
            Tick: self._tick,
        }

    # ---- for the driver ----

    def apply(self, event: PoolEvent, now: Now) -> list[PoolEffect]:
        """Take one event; return what the driver must do, in order."""
        if self._mode is _Mode.OVER:
            return []
        self._handlers[type(event)](event, now.boot)
        self._balance(now.boot)
        effects, self._endings.effects = self._endings.effects, []
        return effects

    def wake_at(self) -> int | None:
        """Return the boot time (microseconds) at which a `Tick` is wanted, or None."""
        if self._mode is _Mode.OVER:
            return None
        dues = [self._roll.next_due(), self._cold_due, self._strength.opening.due]
        if self._mode is _Mode.RUNNING:
            dues += [self._fork_due(kind) for kind in self._missing()]
            dues.append(self._pace.next_release())
        return min((due for due in dues if due is not None), default=None)

    @property
    def running(self) -> bool:
        """Whether children that end are replaced."""
        return self._mode is _Mode.RUNNING

    # ---- spawners ----

    def _start(self, _: StartPool, now: int) -> None:
        if self._mode is _Mode.NEW:
            self._mode = _Mode.RUNNING
            self._strength.opening.begin(now)
            self._start_spawner()

    def _start_spawner(self) -> None:
        self._effect(StartSpawner(self._spawners.add()))

    def _spawner_up(self, event: SpawnerUp, now: int) -> None:
        self._spawners.came_up(event.generation)
        if (wrong := self._strength.settle(event.wish)) and self._mode is _Mode.RUNNING:
            self._effect(notices.unusable(Unusable(wrong)))
            self._give_up(EXIT_UNUSABLE, wrong, now)

    def _spawner_ended(self, event: SpawnerEnded, now: int) -> None:
        if not self._spawners.remove(event.generation):
            return
        for member in self._roll.of_generation(event.generation):
            if not member.pid:
                # Perhaps it was forked and nobody could tell us; then it died with its spawner.
                self._bury(member, ChildEnded(member.number, signal=signal.SIGKILL))
        if event.generation != self._spawners.current or self._mode is not _Mode.RUNNING:
            return
        if not self._starts.spawner_died(now):
            self._give_up(
                EXIT_GAVE_UP,
                f"the spawner died more than {self.limits.spawner_deaths_max} times within "
                f"{notices.seconds(self.limits.start_failures_period)} s, the last time: {event.reason}",
                now,
            )
            return
        self._effect(notices.spawner_died(event.reason))
        self._start_spawner()

    # ---- the life of a child ----

    def _forked(self, event: Forked, now: int) -> None:
        member = self._roll.get(event.number)
        if member is None:
            return
        member.pid = event.pid
        if member.state is MemberState.FORKING:
            member.state = MemberState.STARTING
            member.start_due = now + self.limits.start_timeout if self._reachable else None
        elif member.kill_due is None:
            member.start_due, member.kill_due = None, now + self.limits.idle_grace

    def _fork_failed(self, event: ForkFailed, now: int) -> None:
        member = self._roll.remove(event.number)
        if member is not None and not member.asked and self._mode is _Mode.RUNNING:
            self._start_failed(member, f"it could not be forked: {event.reason}", now)

    def _said(self, event: Said, now: int) -> None:
        member, message = self._roll.get(event.number), event.message
        if member is None:
            return
        match message:
            case Ready():
                member.start_due = None
                member.ready_at = now
                if member.active:
                    member.state = MemberState.READY
                    self._came_up(member, message, now)
                elif self._mode < _Mode.COLD and member.state is MemberState.LEAVING:
                    # It may have begun to run something before it read that it should stop.
                    member.kill_due = None
            case BodyStarted():
                member.watches.body_started(message.position, message.lease, message.at + message.limit)
            case BodyEnded():
                member.watches.body_ended(message.position)
            case Leaving():
                member.asked = True
                member.kill_due = now + self.limits.idle_grace
                if member.active:
                    member.state = MemberState.LEAVING
                    self._effect(notices.leaving(member, message.reason))
            case Unusable():
                member.unusable = message.reason
                if self._starts.is_news(message.reason):
                    self._effect(notices.unusable(message))

    def _came_up(self, member: Member, ready: Ready, now: int) -> None:
        self._starts.came_up(now)
        self._pace.came_up(member.kind, now)
        self._tasks = self._tasks or ready.tasks
        self._mailboxes = self._mailboxes or ready.mailboxes
        members = self._roll.active(ChildKind.POOL)
        up = sum(member.state is MemberState.READY for member in members)
        if not self._announced and up >= self._strength.wanted(ChildKind.POOL):
            self._announced = True
            self._effect(PoolReady(self._tasks, self._mailboxes, self._strength.pool, self._strength.concurrency))

    def _ended(self, event: ChildEnded, now: int) -> None:
        member = self._roll.get(event.number)
        if member is None:
            return
        self._bury(member, event)
        if self._mode is not _Mode.RUNNING or member.asked:
            return
        reason = deaths.reason_of(event)
        if member.ready_at is None:
            self._ended_before_ready(member, event, reason, now)
        elif deaths.crashed_young(member, event, now, self.limits.young):
            self._start_failed(member, f"it ended as soon as it was ready: {reason}", now)
        else:
            self._died_at_work(member, event, reason, now)

    def _died_at_work(self, member: Member, event: ChildEnded, reason: ExitReason, now: int) -> None:
        held = self._pace.died(member, event, self._strength.wanted(member.kind), now)
        if member.watches.timed_out:
            self._effect(notices.timed_out(member))
        elif member.watches.terminated:
            self._effect(notices.terminated(member, reason))
        else:
            self._effect(notices.died(member, reason, self._pace.not_before(member.kind) - now))
        if held is not None:
            period = self.limits.deaths_period
            self._effect(notices.crash_loop(member.kind, held.count(now), period, held.longest_wait))

    def _ended_before_ready(self, member: Member, event: ChildEnded, reason: ExitReason, now: int) -> None:
        if member.unusable is not None and not self._starts.any_ready:
            self._give_up(EXIT_UNUSABLE, member.unusable, now)
        elif member.too_slow:
            seconds = notices.seconds(self.limits.start_timeout)
            self._start_failed(member, f"it was not ready within {seconds} s, and was killed", now)
        elif deaths.killed_from_outside(event):
            self._starts.was_killed(now)
            self._effect(notices.died_before_ready(member, reason))
        else:
            self._start_failed(member, member.unusable or f"it ended before it was ready: {reason}", now)

    def _start_failed(self, member: Member, why: str, now: int) -> None:
        if self._takes_old_spawner(member):
            self._effect(notices.reload_failed(member, why))
            return
        if self._starts.failed(now):
            self._effect(notices.start_failed(member, why))
            return
        self._give_up(
            EXIT_GAVE_UP,
            f"children failed to start more than {self.limits.start_failures_max} times within "
            f"{notices.seconds(self.limits.start_failures_period)} s; the last one, child {member.number}: {why}",
            now,
        )

    def _takes_old_spawner(self, member: Member) -> bool:
        """While a reload is under way, go back to the spawner whose children work."""
        if member.generation != self._spawners.current:
            return False
        for generation in self._spawners.older():
            if any(other.state is MemberState.READY for other in self._roll.of_generation(generation)):
                self._spawners.current = generation
                return True
        return False

    def _bury(self, member: Member, event: ChildEnded) -> None:
        self._roll.remove(member.number)
        self._effect(deaths.burial(member, event))

    # ---- what the broker asks for ----

    def _spawn_asked(self, event: SpawnAsked, now: int) -> None:
        if event.kind == ChildKind.POOL:
            return
        most = self._strength.ask(event.kind, event.count)
        if event.count > most:
            self._effect(notices.spawn_limited(event, most))

    def _terminate_asked(self, event: TerminateAsked, now: int) -> None:
        member = self._roll.get(event.number)
        if member is None or member.state is MemberState.DOOMED:
            return
        if member.slots > 1:
            self._effect(notices.terminate_refused(member))
        elif member.watches.terminate(event.position, event.signal):
            self._effect(Look(member.number, event.position, 0))

    def _looked(self, event: Looked, now: int) -> None:
        member = self._roll.get(event.number)
        if member is None or member.state is MemberState.DOOMED:
            return
        if not event.running:
            member.watches.not_there(event.position)
            return
        number = member.watches.signal_due(event.position, now, self.limits.terminate_grace)
        if number is not None:
            self._effect(Signal(member.number, number))
        if member.watches.termination_due(event.position, now):
            self._endings.kill(member, now)
            return
        overdue = member.watches.limit_due(event.position, event.others, now)
        if overdue:
            self._endings.kill(member, now)
        elif overdue is None and not member.going:
            self._effect(notices.over_limit(member))
            self._endings.ask(member, now)

    def _broker_reachable(self, event: BrokerReachable, now: int) -> None:
        self._reachable = event.reachable
        for member in self._roll:
            if member.state is MemberState.STARTING:
                member.start_due = now + self.limits.start_timeout if event.reachable else None

    # ---- stop, reload, resize ----

    def _stop_asked(self, event: StopAsked, now: int) -> None:
        mode = {Stop.WARM: _Mode.WARM, Stop.COLD: _Mode.COLD, Stop.HARD: _Mode.HARD}[event.how]
        if mode is _Mode.COLD and self.limits.soft_stop and self._mode < _Mode.WARM:
            mode = _Mode.WARM
            self._cold_due = now + self.limits.soft_stop
        if mode > self._mode:
            self._exit_code = self._exit_code or event.code
            self._exit_reason = self._exit_reason or event.reason
            self._enter(mode, now)

    def _enter(self, mode: _Mode, now: int) -> None:
        self._mode = mode
        self._endings.stopping = True
        if mode > _Mode.WARM:
            self._cold_due = None
        for member in self._roll:
            if mode is _Mode.WARM:
                self._endings.ask(member, now)
            elif mode is _Mode.COLD:
                self._endings.soon(member, now)
            else:
                self._endings.now(member, now)
        if mode is _Mode.HARD and not self._exit_code:
            self._exit_code = EXIT_KILLED

    def _give_up(self, code: int, reason: str, now: int) -> None:
        self._exit_code, self._exit_reason = code, reason
        if code != EXIT_UNUSABLE:
            # That nothing can use the application was told when the first child said so.
            self._effect(notices.gave_up(reason))
        self._enter(_Mode.COLD, now)

    def _reload_asked(self, _: ReloadAsked, now: int) -> None:
        if self._mode is not _Mode.RUNNING:
            return
        if len(self._spawners) < SPAWNERS_MAX:
            self._effect(notices.reload())
            self._pace.begin_anew()
            self._start_spawner()
        else:
            self._effect(notices.reload_refused(SPAWNERS_MAX - 1))

    def _resize_asked(self, event: ResizeAsked, now: int) -> None:
        wanted = self._strength.resize(event.by)
        if wanted is None:
            self._effect(notices.resize_refused(self._strength.pool))
        else:
            self._effect(notices.resized(wanted))

    # ---- time ----

    def _tick(self, _: Tick, now: int) -> None:
        self._strength.tick(now)
        if self._cold_due is not None and self._cold_due <= now:
            self._enter(_Mode.COLD, now)
        for member in self._roll:
            due = member.next_due()
            if due is not None and due <= now:
                self._endings.due(member, now)

    # ---- the right number ----

    def _balance(self, now: int) -> None:
        """Fork what is missing, let go of what is too much, and end the pool after its last child."""
        if self._mode is _Mode.RUNNING:
            while (member := self._strength.too_many(self._roll, self._spawners.current)) is not None:
                self._endings.ask(member, now)
            for kind in self._pace.release(now):
                self._effect(notices.crash_loop_over(kind))
            for kind in self._missing():
                if now >= self._fork_due(kind):
                    self._fork(kind, now)
            self._tell_trouble()
        for generation in self._spawners:
            # The old spawner of a reload goes with its last child.
            if generation != self._spawners.current and not self._roll.of_generation(generation):
                self._retire_spawner(generation)
        if self._mode >= _Mode.WARM and not len(self._roll):
            for generation in self._spawners:
                self._retire_spawner(generation)
            self._mode = _Mode.OVER
            self._effect(Exit(self._exit_code, self._exit_reason))

    def _missing(self) -> list[ChildKind]:
        """Return the kinds of the children that have to be forked."""
        if self._strength.opening.waiting or self._spawners.is_killed(self._spawners.current):
            return []
        return self._strength.missing(self._roll, self._spawners.current)

    def _fork_due(self, kind: ChildKind) -> int:
        """Return when a missing child of this kind may be forked."""
        return max(self._starts.not_before, self._pace.not_before(kind))

    def _tell_trouble(self) -> None:
        """Let the status know when something begins or ceases to be wrong."""
        trouble = notices.trouble([kind for kind in PACED if self._pace.is_held(kind)])
        if trouble != self._trouble:
            self._trouble = trouble
            self._effect(Troubled(trouble))

    def _fork(self, kind: ChildKind, now: int) -> None:
        pool, slots = self._strength.shape(kind)
        due, watches = now + self.limits.start_timeout, Watches(self.limits.look_again)
        member = self._roll.add(kind, self._spawners.current, slots, due, watches)
        self._effect(Fork(member.generation, member.number, kind, pool, slots))

    def _retire_spawner(self, generation: int) -> None:
        self._spawners.remove(generation)
        self._effect(RetireSpawner(generation))

    def _effect(self, effect: PoolEffect) -> None:
        self._endings.effects.append(effect)
