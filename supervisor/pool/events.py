"""What a pool's machine is told, and what it answers.

Owns the events and the effects of `machine.PoolMachine`. A child is named by its number, which no other
child of the node ever has; a spawner by its generation. Times are boot microseconds.
"""

from __future__ import annotations

import enum

import msgspec

from ...actors.worker.control import FromChild, ToChild, Wish
from ...transport.verbs import ChildKind


class Stop(enum.IntEnum):
    """How a pool is stopped; only a higher one changes anything after a lower one."""

    #: Children finish what runs, hand back the rest, and end.
    WARM = 1
    #: Children hand back what they can and are ended soon, without blame for what ran.
    COLD = 2
    #: Children are killed at once, without blame for what ran.
    HARD = 3


# ---- events ----


class StartPool(msgspec.Struct, frozen=True):
    """Start the spawner and the children. The first event, once."""


class SpawnerUp(msgspec.Struct, frozen=True):
    """This spawner takes orders now. `wish`: what the application, which it has imported, says of the worker."""

    generation: int
    wish: Wish = Wish()


class SpawnerEnded(msgspec.Struct, frozen=True):
    """This spawner is gone, and its children with it. Each of them gets its `ChildEnded`, unless its `Forked`
    never came."""

    generation: int
    reason: str


class Forked(msgspec.Struct, frozen=True):
    """The child exists."""

    number: int
    pid: int


class ForkFailed(msgspec.Struct, frozen=True):
    """The system refused another process."""

    number: int
    reason: str


class Said(msgspec.Struct, frozen=True):
    """What a child said on its pipe. All of it is told before its end."""

    number: int
    message: FromChild


class ChildEnded(msgspec.Struct, frozen=True):
    """The child was waited for. `ran`: its page shows that it had run something, at any time; `finished`: how many
    bodies it had finished."""

    number: int
    exit_code: int | None = None
    signal: int = 0
    oom: bool = False
    max_rss_kib: int = 0
    ran: bool = False
    finished: int = 0


class SpawnAsked(msgspec.Struct, frozen=True):
    """The broker wants at least `count` children of this kind."""

    kind: ChildKind
    count: int


class TerminateAsked(msgspec.Struct, frozen=True):
    """A revoke with terminate: signal the child if it still runs this position."""

    number: int
    position: int
    signal: int


class Looked(msgspec.Struct, frozen=True):
    """The answer to `Look`, before anything else is told: whether that very delivery runs, and which others do."""

    number: int
    position: int
    running: bool
    others: list[int] = []


class BrokerReachable(msgspec.Struct, frozen=True):
    """Whether the node is attached to its broker. A child cannot be ready without one."""

    reachable: bool


class StopAsked(msgspec.Struct, frozen=True):
    """End the pool. `code`: the worker's exit code where it is not an orderly end; `reason` says why."""

    how: Stop
    code: int = 0
    reason: str = ""


class ReloadAsked(msgspec.Struct, frozen=True):
    """Replace all children by such that have read the application's code anew."""


class ResizeAsked(msgspec.Struct, frozen=True):
    """Keep so many ordinary children more, or fewer."""

    by: int


class Tick(msgspec.Struct, frozen=True):
    """Time has passed. One too many, or one too early, does no harm."""


PoolEvent = (
    StartPool
    | SpawnerUp
    | SpawnerEnded
    | Forked
    | ForkFailed
    | Said
    | ChildEnded
    | SpawnAsked
    | TerminateAsked
    | Looked
    | BrokerReachable
    | StopAsked
    | ReloadAsked
    | ResizeAsked
    | Tick
)

# ---- effects ----


class StartSpawner(msgspec.Struct, frozen=True):
    """Start a spawner; it may be given orders at once. `SpawnerUp` or `SpawnerEnded` follows."""

    generation: int


class RetireSpawner(msgspec.Struct, frozen=True):
    """Let go of a spawner that has no children; nothing needs to be told of it any more."""

    generation: int


class KillSpawner(msgspec.Struct, frozen=True):
    """Kill a spawner that does not act on its orders. `SpawnerEnded` follows."""

    generation: int


class Fork(msgspec.Struct, frozen=True):
    """Make this child. `Forked`, `ForkFailed` or `SpawnerEnded` follows."""

    generation: int
    number: int
    kind: ChildKind
    pool: str
    slots: int


class Say(msgspec.Struct, frozen=True):
    """Write to the child's pipe. It may have ended meanwhile."""

    number: int
    message: ToChild


class Signal(msgspec.Struct, frozen=True):
    """Signal the child, after its fork; SIGKILL is for it and everything that it started."""

    number: int
    signal: int


class Look(msgspec.Struct, frozen=True):
    """Look at the child's page whether it runs this delivery (`lease` 0: any of this position)."""

    number: int
    position: int
    lease: int


class Bury(msgspec.Struct, frozen=True):
    """Tell the broker that this child ended, with what its page holds (spec D14)."""

    number: int
    pid: int
    exit_code: int | None
    signal: int
    oom: bool
    max_rss_kib: int
    timed_out: list[int]
    terminated: list[int]
    orderly: bool


class PoolReady(msgspec.Struct, frozen=True):
    """For the first time all ordinary children are ready: the tasks that they can run, the mailboxes they serve.

    `pool` and `concurrency` are what the worker has become, where the application had a say in it.
    """

    tasks: list[str]
    mailboxes: list[str] = []
    pool: str = ""
    concurrency: int = 0


class Notice(msgspec.Struct, frozen=True):
    """Something for the log, in words. `kind` is a stable word, `grave` sets it apart from mere news."""

    kind: str
    text: str
    grave: bool = False


class Troubled(msgspec.Struct, frozen=True):
    """What is wrong with the pool from now on, for the status; empty: nothing any more."""

    text: str


class Exit(msgspec.Struct, frozen=True):
    """All children are gone and the pool is over; the worker's exit code, and why where it is not 0."""

    code: int
    reason: str


PoolEffect = (
    StartSpawner
    | RetireSpawner
    | KillSpawner
    | Fork
    | Say
    | Signal
    | Look
    | Bury
    | PoolReady
    | Notice
    | Troubled
    | Exit
)
