"""What a node's parent and its spawner say to each other, and what a spawner is started with.

The socket between them carries framed (`channel`) MessagePack structs. A fork order comes with one descriptor: the
child's end of its pipe. EOF on the spawner's side means that the parent is gone: the spawner kills all and ends.
"""

from __future__ import annotations

import msgspec

from ...actors.worker.control import Wish


class SpawnerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a spawner needs to know; it stands in its command line, so nothing secret is in it."""

    #: The descriptor of the socket to the parent, and of the lock of the node's folder (-1: none), which every
    #: process of the node holds until it ends.
    control: int
    lock: int = -1
    #: The parent's pid. If it is another by the time the spawner runs, the parent is gone.
    parent: int
    #: What the marks of all children of the node begin with.
    mark: str = ""
    #: The module to import before the first fork, those beside it, and where to look for them first.
    app: str = ""
    modules: list[str] = []
    path: list[str] = []
    #: What a child runs, as module:function; empty: `actors.worker.child.run_child`.
    body: str = ""
    #: False: the application cannot be forked after its import; each child imports it for itself.
    preload: bool = True
    #: Why not, for the log.
    reason: str = ""
    #: What the application may say of its worker (`NodeConfig.open_to_app`), and what it said before this spawner
    #: executed itself anew.
    open_to_app: list[str] = []
    wish: Wish = Wish()


# --- to a spawner ------------------------------------------------------------------------------------------------


class ForkOrder(msgspec.Struct, frozen=True, tag="fork"):
    """Fork a child; one descriptor comes with it. `mark` is its session, `config` an encoded ChildConfig."""

    number: int
    mark: str
    config: bytes


class SignalOrder(msgspec.Struct, frozen=True, tag="signal"):
    """Signal a child, if it is still there; SIGKILL is for its whole process group."""

    number: int
    signal: int


Order = ForkOrder | SignalOrder

#: How a reason begins of which the children will tell themselves, since they import the application again.
IMPORT_FAILED = "its import failed"

# --- from a spawner ----------------------------------------------------------------------------------------------


class TakesOrders(msgspec.Struct, frozen=True, tag="up"):
    """The spawner is at work. `reason`: why the application could not be imported before the fork; else empty.

    `wish`: what it says of its worker, if it could be imported at all.
    """

    reason: str = ""
    wish: Wish = Wish()


class HasForked(msgspec.Struct, frozen=True, tag="forked"):
    """The child exists."""

    number: int
    pid: int


class CannotFork(msgspec.Struct, frozen=True, tag="refused"):
    """The system refused another process."""

    number: int
    reason: str


class HasEnded(msgspec.Struct, frozen=True, tag="ended"):
    """The child was waited for, and its process group killed."""

    number: int
    exit_code: int | None
    signal: int
    oom: bool
    max_rss_kib: int


Answer = TakesOrders | HasForked | CannotFork | HasEnded
