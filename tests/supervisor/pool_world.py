"""A world for the pool's machine: simple enough to be right.

It keeps the processes that exist, does what the machine says, and checks at each effect that it may be said.
"""

from __future__ import annotations

import signal
from collections import deque

from greenroom.actors.worker.control import FromChild, Leaving, Ready, StopChild
from greenroom.supervisor.pool.events import (
    BrokerReachable,
    Bury,
    ChildEnded,
    Exit,
    Fork,
    Forked,
    KillSpawner,
    Look,
    Looked,
    Notice,
    PoolEffect,
    PoolEvent,
    PoolReady,
    RetireSpawner,
    Said,
    Say,
    Signal,
    SpawnerEnded,
    SpawnerUp,
    StartPool,
    StartSpawner,
    Tick,
    Troubled,
)
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.supervisor.pool.machine import PoolMachine
from greenroom.transport.clock import Now
from greenroom.transport.verbs import ChildKind

SECOND = 1_000_000


class Process:
    """A child in the world."""

    def __init__(self, fork: Fork) -> None:
        self.fork = fork
        self.pid = 0
        self.ready = False
        self.told: StopChild | None = None
        self.left = False
        self.signals: list[int] = []
        #: Position -> lease of what its page shows as running.
        self.running: dict[int, int] = {}

    @property
    def counts(self) -> bool:
        return not (self.told or self.left or signal.SIGKILL in self.signals)


class World:
    """Processes, and a machine that is told of them. Every effect is checked as it is carried out."""

    def __init__(self, limits: PoolLimits | None = None, kind: str = "prefork") -> None:
        self.limits = limits or PoolLimits(concurrency=2)
        self.machine = PoolMachine(self.limits, kind)
        self.boot = 1_000 * SECOND
        self.events: deque[PoolEvent] = deque()
        self.busy = False
        self.spawners: dict[int, bool] = {}
        self.processes: dict[int, Process] = {}
        self.buried: dict[int, Bury] = {}
        #: Ended, and the machine is being told.
        self.ended: set[int] = set()
        self.last_number = 0
        self.notices: list[Notice] = []
        self.trouble = ""
        self.ready_with: list[str] | None = None
        self.exit: Exit | None = None
        self.stopping = False
        self.forks: list[Fork] = []

    # ---- driving ----

    def tell(self, event: PoolEvent) -> list[PoolEffect]:
        """Apply it and what follows from carrying it out; what is told meanwhile comes next, as in the driver."""
        self.events.append(event)
        told: list[PoolEffect] = []
        while self.events and not self.busy:
            self.busy = True
            for effect in self.machine.apply(self.events.popleft(), Now(self.boot, self.boot)):
                self.carry_out(effect)
                told.append(effect)
            self.busy = False
        return told

    def start(self, *, ready: bool = True) -> World:
        self.tell(StartPool())
        self.tell(BrokerReachable(True))
        if ready:
            self.everybody_comes_up()
        return self

    def everybody_comes_up(self) -> None:
        """Let every spawner take orders and every child get ready, as long as something comes of it."""
        for generation, up in list(self.spawners.items()):
            if not up:
                self.spawner_up(generation)
        while waiting := [p for p in self.processes.values() if not p.ready and p.counts]:
            for process in waiting:
                self.comes_up(process.fork.number)

    def spawner_up(self, generation: int) -> None:
        self.spawners[generation] = True
        self.tell(SpawnerUp(generation))

    def comes_up(self, number: int) -> None:
        process = self.processes[number]
        if not process.pid:
            self.forked(number)
        process.ready = True
        self.say(number, Ready(["tasks.add"]))

    def forked(self, number: int) -> None:
        process = self.processes[number]
        process.pid = 10_000 + number
        self.tell(Forked(number, process.pid))

    def say(self, number: int, message: FromChild) -> None:
        if isinstance(message, Leaving):
            self.processes[number].left = True
        self.tell(Said(number, message))

    def ends(
        self,
        number: int,
        exit_code: int | None = None,
        by: int = 0,
        *,
        ran: bool = False,
        oom: bool = False,
        finished: int = 0,
    ) -> Bury:
        assert self.processes[number].pid
        self.is_told_to_have_ended(ChildEnded(number, exit_code, by, oom, 1, ran, finished))
        return self.buried[number]

    def is_told_to_have_ended(self, end: ChildEnded) -> None:
        self.ended.add(end.number)
        self.tell(end)

    def spawner_dies(self, generation: int) -> None:
        del self.spawners[generation]
        of_it = [p for p in self.processes.values() if p.fork.generation == generation]
        self.ended |= {process.fork.number for process in of_it if not process.pid}
        self.tell(SpawnerEnded(generation, "signal 9"))
        for process in of_it:
            if process.pid:
                self.is_told_to_have_ended(ChildEnded(process.fork.number, signal=signal.SIGKILL))

    def wait(self, microseconds: int) -> None:
        """Let time pass, with a Tick whenever the machine wants one."""
        until = self.boot + microseconds
        while (wake := self.machine.wake_at()) is not None and wake <= until:
            self.boot = max(wake, self.boot)
            before = self.machine.wake_at()
            self.tell(Tick())
            assert self.machine.wake_at() != before, "it wants to be woken again at the same time"
        self.boot = until

    def counting(self, kind: ChildKind = ChildKind.POOL) -> list[int]:
        return [n for n, process in self.processes.items() if process.counts and process.fork.kind == kind]

    # ---- carrying out ----

    def carry_out(self, effect: PoolEffect) -> None:
        assert self.exit is None, f"{effect} after the last word"
        match effect:
            case StartSpawner(generation):
                assert generation not in self.spawners
                self.spawners[generation] = False
            case RetireSpawner(generation):
                assert not [p for p in self.processes.values() if p.fork.generation == generation]
                del self.spawners[generation]
            case KillSpawner(generation):
                self.spawner_dies(generation)
            case Fork():
                assert not self.stopping, "a fork after the word to stop"
                assert effect.number == self.last_number + 1
                assert effect.generation in self.spawners
                self.last_number = effect.number
                self.forks.append(effect)
                self.processes[effect.number] = Process(effect)
            case Say(number, message):
                if isinstance(message, StopChild):
                    self.processes[number].told = message
            case Signal(number, which):
                assert number not in self.buried
                self.processes[number].signals.append(which)
            case Look(number, position, lease):
                running = self.processes[number].running
                found = position in running and lease in (0, running[position])
                others = [other for other in running if other != position]
                self.tell(Looked(number, position, found, others))
            case Bury(number):
                assert number not in self.buried, "buried twice"
                assert number in self.ended, "buried alive"
                self.buried[number] = effect
                del self.processes[number]
            case PoolReady(tasks):
                assert self.ready_with is None
                self.ready_with = tasks
            case Notice():
                self.notices.append(effect)
            case Troubled(text):
                assert text != self.trouble, "told what is known"
                self.trouble = text
            case Exit():
                assert not self.processes
                assert not self.spawners
                self.exit = effect

    def said(self, kind: str) -> list[str]:
        return [notice.text for notice in self.notices if notice.kind == kind]
