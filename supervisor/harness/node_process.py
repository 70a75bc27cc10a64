"""A simulated worker node: the production machines of its parent, and children that live beside it.

Owns what `cluster.node` and `pool.pool` own over real processes: the line to the broker, the reports, the forks and
their ends. It decides nothing. Its children are processes of their own in the same world: each has a link of its own,
and dies when this one does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from ...actors.app import App
from ...actors.worker.control import ChildConfig, FromChild, Ready
from ...transport.peer.attachment import Attached, Attachment, Detached, Ended, Passed, Refused
from ...transport.peer.line import News
from ...transport.verbs import Applied, ChildKind, FromBroker, Report, Role, Spawn, Terminate, Trouble
from ..cluster.reports import Reports
from ..pool.events import (
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
from ..pool.limits import PoolLimits
from ..pool.machine import PoolMachine
from .child_process import FORK_TIME, ChildProcess
from .clockwork import Clockwork, Process
from .hands import SimLine
from .realm import Realm
from .trace import Kind, Trace

#: What the start of a spawner takes: it imports the application.
SPAWNER_TIME = 50_000
#: Between a child's death and its parent's hearing of it.
WAIT_TIME = 200
EXIT_REFUSED = 5


class NodeProcess(Process):
    """The parent of one worker node."""

    def __init__(
        self,
        clockwork: Clockwork,
        trace: Trace,
        app: App,
        limits: PoolLimits,
        pool: str,
        *,
        lane: str,
        session: str,
        broker: str,
        mailboxes: list[str],
        pids: Callable[[], int],
        realm: Realm,
        max_tasks: int = 0,
    ) -> None:
        super().__init__(clockwork, lane)
        self.session = session
        self.children: dict[int, ChildProcess] = {}
        #: Every child that there ever was.
        self.all_children: list[ChildProcess] = []
        #: The pool's last word.
        self.over: Exit | None = None
        #: What is to be done to children whose forks are under way.
        self._unborn: dict[int, list[Callable[[ChildProcess], object]]] = {}
        self.ready = False
        self._leaving = False
        self._trace = trace
        self._app = app
        self._broker = broker
        self._mailboxes = mailboxes
        self._pids = pids
        self._max_tasks = max_tasks
        self._realm = realm
        self._name = f"celery@{lane}"
        self._fiber = self.fiber(self._run)
        self._attachment = Attachment(
            role=Role.NODE,
            node=self._name,
            session=session,
            addresses=[broker],
            incarnation=1,
            host=lane,
            pid=pids(),
            pinged=True,
        )
        self.line = SimLine(self._attachment, self, trace, self._fiber.wake)
        self._reports = Reports(self._attachment, session, remove=lambda _: None)
        self._machine = PoolMachine(limits, pool)
        self._heard = 0
        self._trouble = ""
        self._waiting: list[PoolEvent] = [StartPool()]

    @property
    def is_serving(self) -> bool:
        """Whether it lives and was not asked to end."""
        return self.alive and self.over is None and not self._leaving

    @property
    def is_heard(self) -> bool:
        """Whether the broker has it, and has all of its reports."""
        link = self.line.link
        is_linked = link is not None and not link.closed and self.line.attached
        knows_all = not self._waiting and all(child.alive for child in self.children.values())
        return is_linked and knows_all and not len(self._reports)

    def tell(self, event: PoolEvent) -> None:
        """Something happened to the pool."""
        self._waiting.append(event)
        self._fiber.wake()

    def stop(self, how: Stop = Stop.WARM) -> None:
        """Ask the node to end, as a signal does."""
        self._leaving = True
        self.tell(StopAsked(how))

    def kill(self) -> None:
        """SIGKILL: its children die with it."""
        if not self.alive:
            return
        self._trace.note(Kind.DEATH, self.lane, how="signal 9")
        link = self.line.link
        if link is not None:
            link.close()
        children = [child for child in self.children.values() if child.alive]
        current = self.clockwork.current
        # Whoever has the turn goes last: its death takes the turn away.
        for child in sorted(children, key=lambda child: current is not None and current.process is child):
            if current is not None and current.process is child:
                super().die()
            child.kill(signal.SIGKILL, report=False, by="its parent's death")
        self.die()

    def pages(self, sessions: list[str]) -> list[Report]:
        """What somebody on this host finds after the node's death."""
        return [
            child.evidence.report(0, node_lost=True)
            for child in self.all_children
            if child.session in sessions and child.evidence is not None
        ]

    # --- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self.line.start()
        while True:
            for news in self.line.receive():
                self._hear(news)
            self._note_heard()
            while self._waiting:
                self._apply(self._waiting.pop(0))
            now = self.now
            wake = self._machine.wake_at()
            if wake is not None and wake <= now.boot:
                self._apply(Tick())
            self.line.send()
            if self.over is not None and (not len(self._reports) or not self.line.attached):
                break
            times = [at for at in (self._machine.wake_at(), self.line.wake_at) if at]
            self._fiber.sleep(min(times, default=0))
        self.line.leave("the worker stops")
        self.line.close()
        self.die()

    def _note_heard(self) -> None:
        if self._attachment.heard_at > self._heard:
            self._heard = self._attachment.heard_at
            for child in self.children.values():
                child.page.stamp(self._heard)

    def _hear(self, news: News) -> None:
        match news:
            case Passed(verbs):
                for verb in verbs:
                    self._obey(verb)
            case Attached():
                self._trace.note(Kind.ATTACHED, self.lane)
                self._apply(BrokerReachable(True))
                if self._trouble:
                    self._attachment.say(Trouble(self._trouble))
            case Detached():
                self._trace.note(Kind.DETACHED, self.lane)
                self._apply(BrokerReachable(False))
            case Refused(reason):
                self._apply(StopAsked(Stop.COLD, EXIT_REFUSED, f"the broker refused this node: {reason}"))
            case Ended():
                pass

    def _obey(self, verb: FromBroker) -> None:
        match verb:
            case Applied(number):
                self._reports.applied(number)
            case Spawn(kind, count):
                self._apply(SpawnAsked(ChildKind(kind), count))
            case Terminate(session, position, number):
                node, _, child = session.rpartition("/")
                if node == self.session and child.isdigit():
                    self._apply(TerminateAsked(int(child), position, number))
            case _:
                pass

    # --- the pool ------------------------------------------------------------------------------------------------

    def _apply(self, event: PoolEvent) -> None:
        for effect in self._machine.apply(event, self.now):
            self._act(effect)

    def _act(self, effect: PoolEffect) -> None:
        match effect:
            case Fork():
                self._fork(effect)
            case Say(number, message):
                self._to_child(number, lambda child: child.tell(message))
            case Signal(number, sent):
                self._to_child(number, lambda child: child.kill(sent, by="its parent"))
            case Look():
                self._look(effect)
            case Bury():
                self._bury(effect)
            case StartSpawner(generation):
                self.clockwork.after(SPAWNER_TIME, lambda: self.tell(SpawnerUp(generation)))
            case KillSpawner(generation):
                self.tell(SpawnerEnded(generation, "killed"))
            case RetireSpawner():
                pass
            case PoolReady():
                self.ready = True
                self._trace.note(Kind.READY, self.lane)
            case Notice(kind, text):
                self._trace.note(Kind.NOTICE, self.lane, notice=kind, text=text)
            case Troubled(text):
                self._trouble = text
                self._attachment.say(Trouble(text))
            case Exit():
                self.over = effect

    def _to_child(self, number: int, do: Callable[[ChildProcess], object]) -> None:
        """Tell a child, or one that is being forked: its pipe is there before it is, and the spawner obeys in order."""
        if number in self.children:
            do(self.children[number])
        elif number in self._unborn:
            self._unborn[number].append(do)

    def _fork(self, fork: Fork) -> None:
        self._unborn[fork.number] = []
        self._trace.note(Kind.FORK, self.lane, child=fork.number, of=ChildKind(fork.kind).name)
        pid = self._pids()

        def begin() -> None:
            if not self.alive:
                return
            number = fork.number
            child = ChildProcess(
                self.clockwork,
                self._trace,
                self._config(fork),
                self._app,
                pid,
                realm=self._realm,
                lane=f"{self.lane}/{number}",
                host=self.lane,
                said=lambda word: self._said(number, word),
                ended=lambda code, number_of_signal: self._ended(number, code, number_of_signal),
            )
            self.children[number] = child
            self.all_children.append(child)
            if self._heard:
                child.page.stamp(self._heard)
            self.tell(Forked(number, pid))
            for do in self._unborn.pop(number):
                do(child)

        self.clockwork.after(FORK_TIME, begin)

    def _config(self, fork: Fork) -> ChildConfig:
        return ChildConfig(
            app="simulated",
            broker=self._broker,
            node=self._name,
            node_session=self.session,
            incarnation=1,
            number=fork.number,
            kind=fork.kind,
            pool=fork.pool,
            slots=fork.slots,
            mailboxes=self._mailboxes,
            page="",
            max_tasks=self._max_tasks,
        )

    def _said(self, number: int, word: FromChild) -> None:
        if isinstance(word, Ready):
            self._trace.note(Kind.READY, f"{self.lane}/{number}")
        if self.alive:
            self.tell(Said(number, word))

    def _ended(self, number: int, code: int | None, sent: int) -> None:
        evidence = self.children[number].evidence

        def told() -> None:
            if self.alive:
                ran = evidence is not None and evidence.started > 0
                finished = 0 if evidence is None else evidence.finished
                self.tell(ChildEnded(number, exit_code=code, signal=sent, ran=ran, finished=finished))

        self.clockwork.after(WAIT_TIME, told)

    def _look(self, look: Look) -> None:
        child = self.children.get(look.number)
        ring = [] if child is None or child.evidence is not None else child.look()
        bodies = [entry for entry in ring if not entry.finished]
        wanted = [entry for entry in bodies if entry.position == look.position and look.lease in (0, entry.lease)]
        others = [entry.position for entry in bodies if entry not in wanted]
        self._apply(Looked(look.number, look.position, bool(wanted), others))

    def _bury(self, bury: Bury) -> None:
        child = self.children.pop(bury.number, None)
        if child is not None and child.evidence is not None:
            self._reports.of_child(bury, child.evidence)
