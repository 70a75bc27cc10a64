"""A broker and worker nodes as real processes of the command line, for tests that kill them.

Owns their start (each waits for the JSON banner), their logs, their end, and the promise that nothing is left behind:
whatever was started here, and whatever that started, carries a mark in its environment, by which the process table
is searched. All of it dies with the thread that started it, so that a test run which is killed leaves nothing either.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec

from greenroom import App
from greenroom.supervisor.pool.kernel import die_with_parent, environment_of
from greenroom.transport import requests
from greenroom.transport.verbs import Op
from greenroom.transport.wire.client import Client

#: Where the applications of the tests lie; workers import them by name.
APPLICATIONS = Path(__file__).parent
#: What any step may take before a test fails: far above what it needs, also on a busy machine.
PATIENCE_SECONDS = 30.0
#: How long processes may take to be gone once those above them were killed (chaos.md, row 2).
GONE_SECONDS = 2.0
#: The mark of all processes of one cluster.
MARK = "GREENROOM_LIVE"
_LOOK_SECONDS = 0.005
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


def _is_stopped(pid: int) -> bool:
    """Whether every thread of this process is stopped (proc(5))."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state in "tT" for state in states)


def wait_for(
    what: Callable[[], T],
    description: str,
    within: float = PATIENCE_SECONDS,
    *,
    while_: Callable[[], bool] | None = None,
) -> T:
    """Return what `what` returns once that is true. Raises AssertionError after `within` seconds.

    Also at once when `while_` is false, since what is waited for can't come any more.
    """
    until = time.monotonic() + within
    clock = threading.Event()
    while not (found := what()):
        assert while_ is None or while_(), f"{description}: nothing is left that could bring it about"
        assert time.monotonic() < until, f"{description}: not within {within:g} s"
        clock.wait(_LOOK_SECONDS)
    return found


class Process:
    """One process of the command line, or of another module that is run as a program."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        arguments: list[str],
        environment: dict[str, str] | None = None,
        *,
        module: str = "greenroom",
    ) -> None:
        self.name = name
        self.log = cluster.folder / f"{name}.log"
        self._out = cluster.folder / f"{name}.out"
        # A Ctrl-C between fork and exec would be raised in one of Python's hooks there, and be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        try:
            with self.log.open("ab") as errors, self._out.open("wb") as out:
                self.popen = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    cwd=cluster.folder,
                    env={**cluster.environment, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    start_new_session=True,
                    preexec_fn=_begin,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pid = self.popen.pid

    def banner(self, within: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until it says that it is ready; return what it says."""
        wait_for(
            lambda: b"\n" in self._out.read_bytes(),
            f"{self.name} (pid {self.pid}) should say that it is ready",
            within,
            while_=lambda: self.running,
        )
        banner: dict[str, Any] = json.loads(self._out.read_text().splitlines()[0])
        return banner

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def send(self, number: int) -> None:
        """Send it a signal; of SIGSTOP, see the effect: until one of its threads has taken it, the others go on."""
        self.popen.send_signal(number)
        if number == signal.SIGSTOP:
            wait_for(lambda: _is_stopped(self.popen.pid), "every thread should be stopped")

    def kill(self) -> None:
        """SIGKILL it, and wait for its end."""
        self.popen.kill()
        self.popen.wait()

    def wait(self, within: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return its exit code."""
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} (pid {self.pid}) did not end within {within:g} s") from None


class Worker(Process):
    """A worker node."""

    session: str = ""
    node: str = ""

    def ready(self) -> Worker:
        """Wait until its children are ready."""
        banner = self.banner()
        self.session, self.node = banner["session"], banner["name"]
        return self


class Cluster:
    """Processes around one broker address; use it as a context."""

    #: Those that run now, for whoever tells of a failure.
    running: ClassVar[list[Cluster]] = []

    def __init__(self, *apps: App, folder: Path | None = None, tcp: bool = False) -> None:
        """`apps` are pointed to the broker while the cluster runs.

        It listens on a socket in `folder`, or on a free port that it keeps when it is started again.
        """
        # Not pytest's folder: the path of a Unix socket has at most 107 bytes.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="greenroom-live-"))
        self.folder.chmod(0o700)
        # Not the processes' working folder: a folder `greenroom` there, which nodes make, would be imported for ours.
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.address = "tcp://127.0.0.1:0" if tcp else f"ipc://{self.folder}/broker"
        self.mark = secrets.token_hex(8)
        paths = [str(APPLICATIONS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "XDG_RUNTIME_DIR": str(self.runtime),
            MARK: self.mark,
        }
        #: Where brokers and workers write down what happens; None: nowhere.
        self.event_log: Path | None = None
        self.broker: Process | None = None
        self.workers: list[Worker] = []
        #: Leave the folder with its logs behind.
        self.keep = False
        self._programs: list[Process] = []
        self._apps = apps
        self._before: dict[str, str | None] = {}
        self._count = 0
        self._client: Client | None = None

    def __enter__(self) -> Cluster:
        self._before["XDG_RUNTIME_DIR"] = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(self.runtime)
        Cluster.running.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close(in_order=error is None)
        finally:
            Cluster.running.remove(self)
            for name, value in self._before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            if not self.keep:
                shutil.rmtree(self.folder, ignore_errors=True)

    # --- processes

    def start_broker(self, *arguments: str) -> Process:
        """Start the broker on this cluster's address and data, as often as wanted; return it once it listens."""
        broker = self.broker = Process(self, "broker", [*self.broker_command(), *arguments])
        self.address = broker.banner()["address"]
        for app in self._apps:
            if app.conf.broker_url != self.address:
                app.disconnect()
                app.conf.broker_url = self.address
        return broker

    def broker_command(self) -> list[str]:
        """The arguments that start this cluster's broker."""
        return ["broker", "--bind", self.address, "--data", str(self.folder / "data"), "--json", *self._log_option()]

    def _log_option(self) -> list[str]:
        return [] if self.event_log is None else ["--event-log", str(self.event_log)]

    def start_worker(
        self, app: str, *arguments: str, wait: bool = True, environment: dict[str, str] | None = None
    ) -> Worker:
        """Start a worker node for the application of this name; return it once its children are ready."""
        self._count += 1
        command = ["worker", "-A", app, "-b", self.address, "--json", *self._log_option(), *arguments]
        worker = Worker(self, f"worker{self._count}", command, environment)
        self.workers.append(worker)
        return worker.ready() if wait else worker

    def start_program(self, module: str, *arguments: str) -> Process:
        """Start another program in the same surroundings."""
        self._count += 1
        program = Process(self, f"{module}{self._count}", list(arguments), module=module)
        self._programs.append(program)
        return program

    def command(self, *arguments: str, within: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line to its end, against this broker."""
        return subprocess.run(
            [sys.executable, "-m", "greenroom", *arguments],
            cwd=self.folder,
            env={**self.environment, "GREENROOM_BROKER": self.address},
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def left(self) -> dict[int, str]:
        """Every process that was started here, or by one that was: pid and command."""
        wanted = f"{MARK}={self.mark}".encode()
        return {pid: _command_of(pid) for pid in _pids() if wanted in environment_of(pid).split(b"\0")}

    def assert_nothing_left(self, within: float = GONE_SECONDS) -> None:
        """Wait until none of them runs. Raises AssertionError, and kills them, if some do."""
        try:
            wait_for(lambda: not self.left(), "no process may be left", within)
        except AssertionError as error:
            left = self.left()
            self._kill_left()
            lines = "\n".join(f"  {pid} {command}" for pid, command in left.items())
            if left:
                raise AssertionError(f"{error}; there are\n{lines}") from None

    def close(self, *, in_order: bool = True) -> None:
        """Stop the workers, then the broker; nothing of them may be left. `in_order=False`: by SIGKILL."""
        if self._client is not None:
            self._client.close()
            self._client = None
        for app in self._apps:
            app.disconnect()
        if in_order:
            self._stop()
        else:
            # Also what was being started when this was interrupted.
            self._kill_left()
        self.assert_nothing_left()

    def _stop(self) -> None:
        processes = [*self._programs, *self.workers, *([self.broker] if self.broker is not None else [])]
        try:
            for process in processes:
                if process.running:
                    # It may have been stopped by a test that failed.
                    process.send(signal.SIGCONT)
                    process.send(signal.SIGTERM)
                    process.wait()
        except BaseException:
            self._kill_left()
            raise

    def _kill_left(self) -> None:
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # --- what the broker says

    @property
    def broker_pid(self) -> int:
        """The broker's process."""
        assert self.broker is not None, "no broker was started"
        return self.broker.pid

    @property
    def client(self) -> Client:
        """A link to the broker for questions."""
        if self._client is None:
            self._client = Client(self.address, origin="test")
        return self._client

    def status(self) -> requests.Status:
        """How the broker is, and who is attached."""
        status: requests.Status = self.client.request(Op.STATUS, requests.StatusRequest(), PATIENCE_SECONDS)
        return status

    def children(self, worker: Worker, kind: str = "pool") -> list[requests.SessionInfo]:
        """The children of this node that are attached, by their number."""
        found = [
            session
            for session in self.status().sessions
            if session.session.startswith(f"{worker.session}/") and session.kind == kind and session.linked
        ]
        return sorted(found, key=lambda session: int(session.session.rpartition("/")[2]))

    def mailbox(self, name: str = "celery") -> requests.MailboxInfo:
        """A mailbox and its counts; all zero if it was never used."""
        answer: requests.MailboxList = self.client.request(Op.MAILBOXES, requests.Mailboxes([name]), PATIENCE_SECONDS)
        return answer.mailboxes[0] if answer.mailboxes else requests.MailboxInfo(name, 0, 0, 0, 0, 0, 0.0, 0, 0)

    def wait_until_empty(self, name: str = "celery", within: float = PATIENCE_SECONDS) -> None:
        """Wait until nothing of this mailbox is unsettled."""
        wait_for(lambda: self.mailbox(name).depth == 0, f"mailbox {name} should become empty", within)

    def dead_letters(self) -> list[requests.DeadInfo]:
        """All dead letters, oldest first."""
        answer: requests.DeadPage = self.client.request(
            Op.DEAD_LIST, requests.DeadFilter(limit=requests.LIST_MAX), PATIENCE_SECONDS
        )
        return answer.letters

    def story(self, id: str) -> dict[str, Any] | None:
        """What `greenroom dead show --json` says of this id; None if it is no dead letter."""
        done = self.command("dead", "show", id, "--json")
        if done.returncode:
            assert "there is no dead letter" in done.stderr, done.stderr
            return None
        story: dict[str, Any] = json.loads(done.stdout)
        return story

    # --- after a failure

    def logs(self) -> Iterator[tuple[str, str]]:
        """The names of the logs, and their last part."""
        for path in sorted(self.folder.glob("*.log")):
            yield path.name, path.read_bytes()[-20_000:].decode(errors="replace")

    def state(self) -> str:
        """What runs, and what the broker says, as text; for a failure's report."""
        lines = [f"{pid} {command}" for pid, command in self.left().items()]
        if self.broker is not None and self.broker.running:
            with contextlib.suppress(Exception):
                # Told beside a failure, which must not be hidden by another.
                lines.append(msgspec.json.format(msgspec.json.encode(self.status()), indent=1).decode())
                lines.append(repr(self.mailbox()))
        return "\n".join(lines)


def _begin() -> None:
    """In the new process, before it executes the program."""
    die_with_parent(signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return "(gone)"
