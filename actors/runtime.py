"""What an application needs of the floor above: to run clusters and workers.

Owns the `Runtime` contract and the one that is installed. The root of the package hands in how it is loaded; it is
loaded when an application first asks for it, so that a program that only sends never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, Unpack

if TYPE_CHECKING:
    from pathlib import Path

    from ..transport.requests import DeadInfo, MailboxInfo, Status
    from .app import App


class ClusterOptions(TypedDict, total=False):
    """What `app.run` takes beside the number of workers."""

    #: How tasks run: in processes (the default), threads, coroutines, or in one process, one after another.
    pool: Literal["prefork", "threads", "asyncio", "solo"]
    #: Mailboxes to serve. Default: the application's.
    mailboxes: list[str] | None
    #: Folder of the mailboxes, which then outlive the cluster. Default: a temporary one.
    data: str | Path | None
    #: DEBUG, INFO, WARNING (the default), ERROR or CRITICAL.
    loglevel: str
    #: What an accepted message survives: a loss of power (the default), a crash of the broker, nothing.
    durability: Literal["disk", "process", "memory"]
    #: Messages that a mailbox may hold. Default: 10,000,000.
    max_messages: int
    #: A file in which what happens is written down, for `greenroom check-log`. Default: none.
    event_log: str | Path | None
    #: How long broker and workers may take to be ready. Default: 30.
    start_seconds: float
    #: How long running tasks may take to end when the block is left. Default: 30.
    stop_seconds: float


class Cluster(Protocol):
    """An embedded cluster that runs: `with app.run() as cluster`."""

    @property
    def address(self) -> str:
        """Where its broker listens, as other programs may name it."""
        ...

    def status(self) -> Status:
        """Return how the broker is, and who is attached to it. Raises BrokerUnavailable."""
        ...

    def mailboxes(self) -> list[MailboxInfo]:
        """Return the mailboxes with their counts, by name. Raises BrokerUnavailable."""
        ...

    def dead_letters(self) -> list[DeadInfo]:
        """Return the dead letters, oldest first, 1,000 at the most. Raises BrokerUnavailable."""
        ...


class Runtime(Protocol):
    """Who can run brokers and workers."""

    def run(
        self, app: App, *, workers: int, **options: Unpack[ClusterOptions]
    ) -> AbstractContextManager[Cluster, None]:
        """Return an embedded cluster, a broker with its store and `workers` worker processes, for a `with`.

        Entering it starts the cluster and points the app to it; leaving it stops all that was started.
        """
        ...

    def worker_main(self, app: App, argv: Sequence[str]) -> int:
        """Run a worker of this app with the arguments of `greenroom worker`, until it stops; return its exit code."""
        ...

    def start(self, app: App, argv: Sequence[str]) -> int:
        """Run the command line for this app; return its exit code."""
        ...


_load: Callable[[], Runtime] | None = None
_runtime: Runtime | None = None


def install_runtime(load: Callable[[], Runtime]) -> None:
    """Say how the runtime is loaded when it is first needed."""
    global _load, _runtime
    _load, _runtime = load, None


def runtime() -> Runtime:
    """Return the runtime. Raises RuntimeError where none is installed."""
    global _runtime
    if _runtime is None:
        if _load is None:
            raise RuntimeError("nothing that can run a cluster is installed; import greenroom, not greenroom.actors")
        _runtime = _load()
    return _runtime
