"""A cluster of real processes for a test: a broker and worker nodes around an application, to be killed and stopped.

Owns the processes and what may happen to them: SIGKILL, SIGSTOP, and a link that is parted. What simulated clusters
have is called the same here (`Sim`), as far as it can be had. All of it writes one event log; by it the test learns
where a task runs, and when the cluster is closed, the log is judged by the invariants that events suffice for.

Nothing is left behind: whatever is started here, and whatever that starts, carries a mark in its environment, by which
the process table is searched at the end. It needs nothing of the extra `testing`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from ...actors.app import App
from ...actors.results.result import AsyncResult
from ...actors.tasks.task import Task
from ...transport import requests
from ...transport.broker.settings import BrokerSettings
from ...transport.errors import GreenroomError
from ...transport.verbs import Op
from ..cluster.broker import BrokerConfig
from ..cluster.config import NodeConfig
from ..cluster.embedded import shipped
from ..cluster.launch import BROKER, BROKER_STOP, NODE, WARM, Launched
from ..pool.kernel import environment_of
from .counted import Counted
from .detour import Detour
from .log_check import Verdict, check_logs
from .log_reader import LogFile, Unreadable
from .trace import Event, Kind

R = TypeVar("R")

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
#: How long processes may take to be gone once those above them have ended.
GONE_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 60.0
AWAY_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.01
_ASK_SECONDS: Final = 0.5
_MARK: Final = "GREENROOM_REAL"


class NotInTime(AssertionError):
    """Raised when something has not happened in time; says what, and what the cluster still has."""


class RealSent(Counted, Generic[R]):
    """One call that was sent to a cluster of real processes; what is counted of it stands in the event log."""

    def __init__(self, cluster: RealCluster, result: AsyncResult[R]) -> None:
        self._cluster = cluster
        #: The result as the application sees it.
        self.result_of = result

    @property
    def id(self) -> str:
        """The id of the message."""
        return self.result_of.id

    @property
    def state(self) -> str:
        """As `AsyncResult.state`."""
        return str(self.result_of.state)

    @property
    def result(self) -> Any:
        """What the task returned, or the exception that it raised; None until then."""
        return self.result_of.result

    def get(self, timeout: float | None = SETTLE_SECONDS) -> Any:
        """Wait for the result; return it, or raise what the task raised."""
        return self.result_of.get(timeout)

    def _events(self) -> Iterable[Event]:
        return self._cluster.events()


class RealWhom:
    """A process of the cluster: found when something happens to it, which may be later than it is named."""

    def __init__(self, cluster: RealCluster, find: Callable[[], int], words: str) -> None:
        self._cluster = cluster
        self._find = find
        self._words = words

    def __repr__(self) -> str:
        return f"<{self._words}>"

    @property
    def pid(self) -> int:
        """Its process now. Raises LookupError when there is none."""
        pid = self._find()
        if not pid:
            raise LookupError(f"there is no {self._words} now")
        return pid

    @property
    def is_alive(self) -> bool:
        """Whether there is such a process now."""
        return bool(self._find())

    def kill(self) -> None:
        """SIGKILL; return when it has ended."""
        self._cluster.kill(self.pid)

    def pause(self, seconds: float = AWAY_SECONDS) -> None:
        """SIGSTOP, and SIGCONT after so much, or at `settle`."""
        self._cluster.pause(self.pid, seconds)


class RealBroker(RealWhom):
    """The broker. Once killed it is started again by `restart`, or by `settle`."""

    def restart(self) -> None:
        """Start it on the same mailboxes, if it does not run."""
        self._cluster.start_broker()


class RealWorker(RealWhom):
    """A worker node: its parent, and the link of all its processes to the broker."""

    def __init__(self, cluster: RealCluster, number: int) -> None:
        super().__init__(cluster, lambda: cluster.pid_of_worker(number), f"worker {number}")
        self._number = number

    def restart(self) -> None:
        """Start another one in its place, if it does not run."""
        self._cluster.start_worker(self._number)

    def partition(self, seconds: float = AWAY_SECONDS) -> None:
        """Let nothing pass between it and the broker for so long, or until `settle`; connections stand."""
        self._cluster.part(self._number, seconds)

    def cut(self) -> None:
        """Break the links of all its processes; what is underway on them is lost."""
        self._cluster.cut(self._number)


class RealCluster:
    """A broker and worker nodes as processes of their own. Use it as a context."""

    def __init__(
        self,
        app: App,
        *,
        workers: int = 2,
        children: int = 1,
        pool: str = "prefork",
        event_log: Path | None = None,
        settings: BrokerSettings | None = None,
        loglevel: str = "ERROR",
    ) -> None:
        """`workers` nodes with `children` processes each (or threads, or coroutines: by `pool`).

        `event_log` is kept where it is given. The application talks to this cluster for the time of the block.
        """
        self.app = app
        self._folder = Path(tempfile.mkdtemp(prefix="greenroom-"))
        self.event_log = event_log or self._folder / "events.ndjson"
        self._children = children
        self._pool = pool
        self._settings = settings or BrokerSettings()
        self._loglevel = loglevel
        self._mark = secrets.token_hex(8)
        self._broker: Launched | None = None
        self._nodes: list[Launched | None] = [None] * workers
        self._detours: list[Detour] = []
        self._paused: dict[int, None] = {}
        self._timers: list[threading.Timer] = []
        self._before = (app.conf.broker_url, app.signing_key)

    def __enter__(self) -> RealCluster:
        try:
            self._begin()
        except BaseException:
            self._end(judge=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Where the test has failed by itself, that is what it tells.
        self._end(judge=error is None)

    # --- who there is --------------------------------------------------------------------------------------------

    @property
    def broker(self) -> RealBroker:
        """The broker."""
        return RealBroker(self, lambda: _pid_of(self._broker), "broker")

    def worker(self, number: int = 0) -> RealWorker:
        """A worker node: of those that there should be, counted round."""
        return RealWorker(self, number % len(self._nodes))

    def child_of(self, sent: RealSent[Any]) -> RealWhom:
        """The child that this was handed to last."""

        def find() -> int:
            lane, pids = "", dict[str, int]()
            for event in self.events():
                if event.kind is Kind.ATTACHED:
                    pids[event.lane] = event.facts["pid"]
                elif event.kind is Kind.DELIVER and event.facts["id"] == sent.id:
                    lane = event.facts["to"]
            pid = pids.get(lane, 0)
            return pid if pid in self.left() else 0

        return RealWhom(self, find, f"child of {sent.id}")

    def pid_of_worker(self, number: int) -> int:
        """The parent of a worker node; 0 when it does not run."""
        return _pid_of(self._nodes[number])

    def left(self) -> list[int]:
        """Every process that was started here, or by one that was, and that still runs."""
        wanted = f"{_MARK}={self._mark}".encode()
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if wanted in environment_of(pid).split(b"\0")]

    # --- what is sent, and what was written down -----------------------------------------------------------------

    def send(self, task: Task[..., R], *args: Any, **kwargs: Any) -> RealSent[R]:
        """Send a call; return what stands for it once the broker has it."""
        return self.apply_async(task, args, kwargs)

    def apply_async(self, task: Task[..., R], args: Any = (), kwargs: Any = None, **options: Any) -> RealSent[R]:
        """Send a call with options, as `Task.apply_async` takes them."""
        return RealSent(self, task.apply_async(args, kwargs, **options))

    def events(self) -> list[Event]:
        """What the cluster has written down so far."""
        try:
            return [entry.event for entry in LogFile(self.event_log).entries()]
        except Unreadable:
            return []

    def until(self, name: str, sent: RealSent[Any], *, nth: int = 1, timeout: float = SETTLE_SECONDS) -> Event:
        """Wait for the `nth` event of this kind that is about a call ("STARTED", "RAN", "DEAD", ...); return it.

        Raises NotInTime, and ValueError for a kind that is none.
        """
        if name not in Kind.__members__:
            raise ValueError(f"there is no moment {name!r}; there are {', '.join(Kind.__members__)}")

        def found() -> list[Event]:
            events = (e for e in self.events() if e.kind is Kind[name] and e.facts.get("id") == sent.id)
            return list(events)[nth - 1 : nth]

        return self._wait(found, f"{sent.id} should come to {name} no. {nth}", timeout)[0]

    def settle(self, timeout: float = SETTLE_SECONDS) -> None:
        """End all faults, bring back who is missing, and wait until no message is unsettled. Raises NotInTime."""
        self.end_faults()
        self.start_broker()
        for number in range(len(self._nodes)):
            self.start_worker(number)
        self._wait(lambda: not self._unsettled(), "every message should be settled", timeout, every=0.05)

    def _unsettled(self) -> list[str]:
        try:
            answer: requests.MailboxList = self.app.client.request(Op.MAILBOXES, requests.Mailboxes(), _ASK_SECONDS)
        except GreenroomError as error:
            return [str(error)]
        return [f"{info.name}: {info.depth}" for info in answer.mailboxes if info.depth]

    # --- what happens --------------------------------------------------------------------------------------------

    def kill(self, pid: int) -> None:
        """SIGKILL to a process of this cluster; return when it has ended."""
        launched = next((one for one in (self._broker, *self._nodes) if one is not None and one.pid == pid), None)
        if launched is not None:
            launched.kill()
        else:
            os.kill(pid, signal.SIGKILL)
            self._wait(lambda: pid not in self.left(), f"process {pid} should be gone", GONE_SECONDS)

    def pause(self, pid: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so much."""
        os.kill(pid, signal.SIGSTOP)
        self._paused[pid] = None
        self._after(seconds, lambda: self._resume(pid))

    def part(self, number: int, seconds: float) -> None:
        """Hold up all links of a worker for so long."""
        self._detours[number].hold()
        self._after(seconds, self._detours[number].let_go)

    def cut(self, number: int) -> None:
        """Break all links of a worker."""
        self._detours[number].cut()

    def end_faults(self) -> None:
        """Let go on who is stopped, and let pass what is held up."""
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()
            timer.join()
        for pid in list(self._paused):
            self._resume(pid)
        for detour in self._detours:
            detour.let_go()

    def _after(self, seconds: float, act: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _resume(self, pid: int) -> None:
        self._paused.pop(pid, None)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _wait(self, what: Callable[[], R], words: str, timeout: float, every: float = _LOOK_SECONDS) -> R:
        until = time.monotonic() + timeout
        clock = threading.Event()
        while not (found := what()):
            if time.monotonic() >= until:
                left = ", ".join(self._unsettled()) if _pid_of(self._broker) else "the broker does not run"
                raise NotInTime(f"{words}: not within {timeout:g} s; {left or 'nothing is unsettled'}")
            clock.wait(every)
        return found

    # --- begin and end -------------------------------------------------------------------------------------------

    def start_broker(self) -> None:
        """Start the broker, if it does not run. Raises LaunchFailed."""
        if _pid_of(self._broker):
            return
        with self._surroundings():
            broker = self._broker = Launched(BROKER, what="the broker")
        config = BrokerConfig(
            bind=(f"ipc://{self._folder}/broker",),
            data=str(self._folder / "data"),
            name="real",
            settings=self._settings,
            loglevel=self._loglevel,
            event_log=str(self.event_log),
        )
        broker.begin(config)
        broker.wait_until_ready(READY_SECONDS)

    def start_worker(self, number: int) -> None:
        """Start this worker node, if it does not run. Raises LaunchFailed."""
        if _pid_of(self._nodes[number]):
            return
        node = self._launch_worker(number)
        node.wait_until_ready(READY_SECONDS)

    def _launch_worker(self, number: int) -> Launched:
        with self._surroundings():
            node = self._nodes[number] = Launched(NODE, what=f"worker {number}")
        node.begin(
            NodeConfig(
                app_blob=shipped(self.app),
                broker=f"ipc://{self._folder}/worker{number}",
                name=f"worker{number}@%h",
                pool=self._pool,
                concurrency=self._children,
                loglevel=self._loglevel,
                signing_key=self.app.signing_key or b"",
                event_log=str(self.event_log),
            )
        )
        return node

    @contextmanager
    def _surroundings(self) -> Generator[None]:
        """What is started now has the mark, and a runtime folder that goes with the cluster."""
        wanted = {_MARK: self._mark, "XDG_RUNTIME_DIR": str(self._folder)}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def _begin(self) -> None:
        app = self.app
        app.finalize(auto=True)
        if app.signing_key is None:
            app.signing_key = secrets.token_bytes(32)
        self.start_broker()
        app.disconnect()
        app.conf.broker_url = f"ipc://{self._folder}/broker"
        for number in range(len(self._nodes)):
            self._detours.append(Detour(self._folder / f"worker{number}", self._folder / "broker"))
        nodes = [self._launch_worker(number) for number in range(len(self._nodes))]
        for node in nodes:
            node.wait_until_ready(READY_SECONDS)

    def _end(self, *, judge: bool) -> None:
        self.end_faults()
        self.app.disconnect()
        self.app.conf.broker_url, self.app.signing_key = self._before
        try:
            for node in self._nodes:
                if _pid_of(node):
                    assert node is not None
                    node.stop(STOP_SECONDS, WARM)
            if self._broker is not None and _pid_of(self._broker):
                self._broker.stop(STOP_SECONDS, BROKER_STOP)
            self._end_left()
            if judge:
                raise_if_broken(check_logs([self.event_log]))
        finally:
            for detour in self._detours:
                detour.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end_left(self) -> None:
        """See that nothing is left; kill what is. Raises NotInTime if something was."""
        until = time.monotonic() + GONE_SECONDS
        clock = threading.Event()
        while (left := self.left()) and time.monotonic() < until:
            clock.wait(_LOOK_SECONDS)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left:
            raise NotInTime(f"processes {left} were left {GONE_SECONDS:g} s after the cluster had stopped")


def raise_if_broken(verdict: Verdict) -> None:
    """Raise AssertionError with the report of a promise that was broken, or with what of the log cannot be read."""
    if verdict.violation is not None:
        raise AssertionError(verdict.violation.text())
    if verdict.bad_lines:
        raise AssertionError("\n".join(["the event log is damaged", *verdict.notes]))


def _pid_of(launched: Launched | None) -> int:
    return 0 if launched is None or launched.process.poll() is not None else launched.pid
