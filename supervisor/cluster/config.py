"""What a worker node is started with, and the names of nodes.

Owns the struct that `greenroom worker`, `app.run()` and `python -m greenroom.supervisor.cluster.node` fill in.
Durations are integer microseconds.
"""

from __future__ import annotations

import os
import socket

import msgspec

from ...actors.worker.control import CHILDREN_MAX, POOLS
from ...transport.errors import GreenroomError
from ...transport.event_log import BYTES_MAX_DEFAULT
from ..pool.limits import PoolLimits

DEFAULT_NAME = "celery@%h"


class NodeConfigError(GreenroomError, ValueError):
    """Raised when a worker is described in a way that cannot work."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One worker node: one parent, its spawner and its children."""

    #: module or module:attribute; empty with `app_blob`.
    app: str = ""
    #: An application sent by value (cloudpickle), which the parent passes on and never loads.
    app_blob: bytes = b""
    #: One address, or several with `;` between them.
    broker: str
    #: name@host; %h, %n, %d and %i are filled in by `node_name`.
    name: str = DEFAULT_NAME
    pool: str = "prefork"
    #: 0: as many as this process may use processors.
    concurrency: int = 0
    #: Of "pool" and "concurrency", what nobody has said: the application's settings go before what stands above.
    open_to_app: list[str] = []
    mailboxes: list[str] = []
    loglevel: str = "INFO"
    max_tasks: int = 0
    max_memory_kib: int = 0
    time_limit: int = 0
    soft_time_limit: int = 0
    #: Modules to import beside the application (Celery's include).
    modules: list[str] = []
    #: Folders to put before sys.path, so that the application is found.
    path: list[str] = []
    signing_key: bytes = b""
    settings: dict[str, str | int | float | bool | None] = {}
    incarnation: int = 1
    #: What the pool may do; its `concurrency` is taken from here.
    limits: PoolLimits = PoolLimits()
    #: Import the application before the forks, where it allows that.
    preload: bool = True
    #: Its broker ends with it and nobody has its address again, so that evidence left unreported is for nobody.
    for_one_broker: bool = False
    #: The file in which the node and its children write what happens, and its limit in bytes; empty: none.
    event_log: str = ""
    event_log_bytes: int = BYTES_MAX_DEFAULT
    #: What a child runs, as module:function; empty: a worker's child.
    body: str = ""
    #: A descriptor whose EOF means that whoever started this node is gone: it stops, cold. -1: none.
    lifeline: int = -1
    #: A descriptor that is told, once, that its children are ready, or why not (`ready.Word`). -1: none.
    ready: int = -1

    def check(self) -> None:
        """Raise NodeConfigError where something cannot be."""
        if not self.app and not self.app_blob and not self.body:
            raise NodeConfigError("a worker needs an application; name it with -A module or -A module:attribute")
        if self.pool not in POOLS:
            raise NodeConfigError(f"there is no pool {self.pool!r}; choose one of {', '.join(POOLS)}")
        if not 0 <= self.concurrency <= CHILDREN_MAX:
            raise NodeConfigError(
                f"concurrency is {self.concurrency}; it must be 1 to {CHILDREN_MAX}, or 0 for one a processor"
            )

    def pool_limits(self) -> PoolLimits:
        """Return the pool's limits with the concurrency filled in."""
        concurrency = self.concurrency or len(os.sched_getaffinity(0))
        return msgspec.structs.replace(self.limits, concurrency=1 if self.pool == "solo" else concurrency)


def node_name(pattern: str, index: int = 0) -> str:
    """Fill in a node's name: %h the host with its domain, %n without, %d the domain, %i `index`, %% a %.

    A name without @ is the host's part, as for Celery: `-n blue` is celery@blue.
    """
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    if "@" not in pattern:
        pattern = f"celery@{pattern}" if pattern else DEFAULT_NAME
    filled: list[str] = []
    parts = {"h": host, "n": short, "d": domain, "i": str(index), "I": f"-{index}" if index else "", "%": "%"}
    letters = iter(pattern)
    for letter in letters:
        if letter != "%":
            filled.append(letter)
            continue
        key = next(letters, "")
        if key not in parts:
            raise NodeConfigError(
                f"the node name {pattern!r} has %{key}; %h, %n, %d, %i and %I are known, %% is a percent sign"
            )
        filled.append(parts[key])
    return "".join(filled)
