"""What a node's parent and its child process say to each other, and what a child is started with.

The pipe between them carries length-prefixed (4 bytes, big endian) MessagePack structs, a few a minute: the child's
way to the broker is its own. The parent's word is a `ToChild`, the child's a `FromChild`. EOF on the child's side
means that the parent is gone: the child ends at once (PDEATHSIG does the same for a stuck one).
"""

from __future__ import annotations

from typing import Final

import msgspec

from ...transport.event_log import BYTES_MAX_DEFAULT
from ...transport.verbs import ChildKind

POOLS: Final = ("prefork", "threads", "asyncio", "solo")
#: Processes, threads or coroutines of one pool. More are a mistake in a number rather than a wish.
CHILDREN_MAX: Final = 4096


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a child process needs to know. Times are integer microseconds."""

    #: module or module:attribute, as for `greenroom worker -A`; empty with `app_blob`.
    app: str
    #: An application shipped by value (cloudpickle; embedded clusters only), else empty.
    app_blob: bytes = b""
    broker: str
    #: The node's name (celery@host) and session; this child's session is f"{node_session}/{number}".
    node: str
    node_session: str
    incarnation: int
    number: int
    kind: int = ChildKind.POOL
    #: prefork, threads, asyncio or solo.
    pool: str = "prefork"
    slots: int = 1
    mailboxes: list[str] = []
    #: Path of this child's page, made by the child.
    page: str
    loglevel: str = "INFO"
    max_tasks: int = 0
    max_memory_kib: int = 0
    #: The worker's defaults for tasks that name no limit of their own; 0: none.
    time_limit: int = 0
    soft_time_limit: int = 0
    modules: list[str] = []
    signing_key: bytes = b""
    settings: dict[str, str | int | float | bool | None] = {}
    #: The file in which the child writes which bodies it runs, and its limit; empty: it does not.
    event_log: str = ""
    event_log_bytes: int = BYTES_MAX_DEFAULT


class Wish(msgspec.Struct, frozen=True):
    """What an application's settings say of the worker that is to run it, where the worker was not told."""

    #: prefork, threads, asyncio or solo; empty: it does not say.
    pool: str = ""
    #: 0: it does not say.
    concurrency: int = 0
    #: Why its settings cannot be, in a sentence; empty: they can.
    wrong: str = ""


# --- from a child ------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The application is imported and the child is attached to its broker.

    `tasks`: names it can run; `mailboxes`: those that it serves.
    """

    tasks: list[str] = []
    mailboxes: list[str] = []


class BodyStarted(msgspec.Struct, frozen=True, tag="started"):
    """A body with a hard time limit runs from `at` (boot); after `limit` the parent kills the child."""

    position: int
    lease: int
    at: int
    limit: int


class BodyEnded(msgspec.Struct, frozen=True, tag="ended"):
    """That body is over."""

    position: int


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """The child has settled and returned all, and exits with code 0: max tasks, max memory, or a stop."""

    reason: str


class Unusable(msgspec.Struct, frozen=True, tag="unusable"):
    """The child could not start: the application cannot be imported, say. It exits non-zero after this."""

    reason: str
    traceback: str = ""


FromChild = Ready | BodyStarted | BodyEnded | Leaving | Unusable

# --- to a child --------------------------------------------------------------------------------------------------


class StopChild(msgspec.Struct, frozen=True, tag="stop"):
    """End: finish what runs, return the rest, say Goodbye (warm). `cold`: return at once also what can be stopped."""

    cold: bool = False


class LimitsChanged(msgspec.Struct, frozen=True, tag="limits"):
    """New defaults for hard and soft limits, for bodies that start from now on."""

    time_limit: int
    soft_time_limit: int


ToChild = StopChild | LimitsChanged
