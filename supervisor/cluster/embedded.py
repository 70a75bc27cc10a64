"""An embedded cluster: `with app.run(workers=2):` starts a broker, its store and a worker node, and points the app
there.

The broker listens on a Unix socket in a temporary folder that only this user can enter, keeps its mailboxes there
(or in `data`, which then outlives the cluster) and is gone at the end of the block. The worker runs the
application by name where it can be imported, and by value (cloudpickle, signed with a random key) where it stands in a
script's `__main__`, a REPL or a notebook.

Leaving the block stops in order: the client flushes, the worker finishes what runs, the broker commits. Leaving it
by an exception stops the worker cold, and a Ctrl-C while it stops makes that quicker. If this process is killed, its
lifelines end, and everything started here stops too. In a process that was forked off inside the block, leaving it
stops nothing: the cluster is its parent's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from ...actors.app import App
from ...actors.worker.control import POOLS
from ...transport import requests
from ...transport.broker.settings import BrokerSettings
from ...transport.errors import EncodeError, GreenroomError
from ...transport.verbs import Durability, Op
from .broker import BrokerConfig
from .config import NodeConfig
from .launch import BROKER, BROKER_STOP, COLD, NODE, WARM, Launched, address_in
from .logs import LEVELS

START_SECONDS = 30.0
#: How long running tasks may take to end when the block is left.
STOP_SECONDS = 30.0
FLUSH_SECONDS = 10.0
ASK_SECONDS = 4.0


class EmbeddedCluster:
    """A broker and a worker node that live as long as a `with` block. Use `app.run(...)`."""

    def __init__(
        self,
        app: App,
        *,
        workers: int = 2,
        pool: str = "prefork",
        mailboxes: list[str] | None = None,
        data: str | Path | None = None,
        loglevel: str = "WARNING",
        durability: str = "disk",
        max_messages: int = 10_000_000,
        event_log: str | Path | None = None,
        start_seconds: float = START_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """Prepare a cluster with `workers` processes (or threads, or coroutines: by `pool`).

        `workers=0` starts a broker alone. `event_log`: a file for what happens (`greenroom check-log`). Raises
        ValueError for what cannot be.
        """
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        if pool not in POOLS:
            raise ValueError(f"there is no pool {pool!r}; choose one of {', '.join(POOLS)}")
        if durability.upper() not in ("MEMORY", "PROCESS", "DISK"):
            raise ValueError(f"durability is 'memory', 'process' or 'disk', not {durability!r}")
        if loglevel.upper() not in LEVELS:
            raise ValueError(f"there is no log level {loglevel!r}; choose one of {', '.join(LEVELS)}")
        if max_messages < 1:
            raise ValueError(f"max_messages must be 1 or more, not {max_messages}")
        self.app = app
        self._workers = workers
        self._pool = pool
        self._mailboxes = mailboxes
        self._data = Path(data) if data is not None else None
        self._loglevel = loglevel.upper()
        self._event_log = os.path.abspath(event_log) if event_log is not None else ""
        self._settings = BrokerSettings(durability=Durability[durability.upper()], mailbox_max_messages=max_messages)
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._owner = 0
        self._folder: Path | None = None
        self._broker: Launched | None = None
        self._node: Launched | None = None
        self._before: tuple[Any, bytes | None] | None = None
        self._address = ""

    def __enter__(self) -> EmbeddedCluster:
        if self._folder is not None:
            raise GreenroomError("this cluster runs already; make another with app.run()")
        self._owner = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="greenroom-"))
        try:
            self._start(self._folder)
        except BaseException:
            self._stop(cold=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() == self._owner:
            self._stop(cold=error is not None)

    @property
    def address(self) -> str:
        """Where its broker listens; the last place, once it has stopped."""
        return self._address

    @property
    def broker_pid(self) -> int:
        """The broker's process. Raises GreenroomError when the cluster does not run."""
        if self._broker is None:
            raise GreenroomError("this cluster does not run; enter it with `with`")
        return self._broker.pid

    @property
    def node_pid(self) -> int:
        """The worker node's parent; 0 without workers."""
        return self._node.pid if self._node is not None else 0

    def status(self) -> requests.Status:
        """How the broker is, and who is attached to it. Raises BrokerUnavailable."""
        answer: requests.Status = self.app.client.request(Op.STATUS, requests.StatusRequest(), ASK_SECONDS)
        return answer

    def mailboxes(self) -> list[requests.MailboxInfo]:
        """The mailboxes with their counts, by name. Raises BrokerUnavailable."""
        answer: requests.MailboxList = self.app.client.request(Op.MAILBOXES, requests.Mailboxes(), ASK_SECONDS)
        return answer.mailboxes

    def dead_letters(self) -> list[requests.DeadInfo]:
        """The dead letters, oldest first, 1,000 at the most. Raises BrokerUnavailable."""
        wanted = requests.DeadFilter(limit=requests.LIST_MAX)
        answer: requests.DeadPage = self.app.client.request(Op.DEAD_LIST, wanted, ASK_SECONDS)
        return answer.letters

    def _start(self, folder: Path) -> None:
        app = self.app
        app.finalize(auto=True)
        self._broker = Launched(BROKER, what="the embedded broker")
        if self._workers:
            # It imports what it needs while the broker does.
            self._node = Launched(NODE, what="the embedded worker")
        self._broker.begin(
            BrokerConfig(
                bind=(address_in(folder),),
                data=str(self._data or folder / "data"),
                name="embedded",
                settings=self._settings,
                loglevel=self._loglevel,
                event_log=self._event_log,
                temporary=str(folder),
            )
        )
        self._address = self._broker.wait_until_ready(self._start_seconds).address
        self._before = (app.conf.broker_url, app.signing_key)
        app.disconnect()
        app.conf.broker_url = self._address
        if app.signing_key is None:
            app.signing_key = secrets.token_bytes(32)
        if self._node is not None:
            self._begin_work(self._node)

    def _begin_work(self, node: Launched) -> None:
        app = self.app
        node.begin(
            NodeConfig(
                app_blob=shipped(app),
                broker=self._address,
                name="embedded@%h",
                pool=self._pool,
                concurrency=self._workers,
                mailboxes=self._mailboxes or [],
                loglevel=self._loglevel,
                event_log=self._event_log,
                signing_key=app.signing_key or b"",
                for_one_broker=True,
            )
        )
        node.wait_until_ready(self._start_seconds)

    def _stop(self, *, cold: bool) -> None:
        def stop_node(kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
            # A Ctrl-C that ended an earlier step is meant for the rest as well; a mere error is not.
            hurry = kind is not None and not issubclass(kind, Exception)
            self._stop_node(cold=cold or hurry)

        # Each of these is done whatever those before it raised, the last one first.
        with ExitStack() as steps:
            steps.callback(self._remove_folder)
            steps.callback(self._stop_broker)
            steps.push(stop_node)
            steps.callback(self._point_back)
            if self._before is not None and not cold:
                self.app.flush(FLUSH_SECONDS)

    def _point_back(self) -> None:
        """Let the app mean again what it meant before the block."""
        if self._before is not None:
            self.app.disconnect()
            self.app.conf.broker_url, self.app.signing_key = self._before
            self._before = None

    def _stop_node(self, *, cold: bool) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.stop(self._stop_seconds, COLD if cold else WARM)

    def _stop_broker(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.stop(self._stop_seconds, BROKER_STOP)

    def _remove_folder(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def shipped(app: App) -> bytes:
    """Return the app by value. Raises EncodeError in words for what cannot be written down."""
    try:
        return app.ship()
    except Exception as error:
        # Pickling runs whatever the application's objects define, and raises whatever they raise.
        raise EncodeError(
            f"the application cannot be sent to its workers: {type(error).__name__}: {error}. What its tasks use of "
            "the program around them must be picklable; open files, locks and connections inside the tasks, or put "
            "the tasks into a module that the workers can import"
        ) from error
