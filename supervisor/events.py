"""What a supervisor machine is told, and what it answers.

Owns the events and the effects of `tree.SupervisorMachine`. A child is always named together with its
incarnation: 1 for its first start and one more for each that follows, so that a late word about an old
one cannot be taken for the new one. Numbers of requests and monitors are the driver's; the machine only
gives them back.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .reasons import SHUTDOWN, ExitReason
from .spec import ChildSpec

# ---- events: the life of the supervisor ----


class StartSupervisor(msgspec.Struct, frozen=True):
    """Start the children. Allowed before the first start and after an end; incarnations go on counting."""


class StopRequested(msgspec.Struct, frozen=True):
    """Stop the children in reverse start order, each within its budget, then end with `reason`."""

    reason: ExitReason = SHUTDOWN


class KillRequested(msgspec.Struct, frozen=True):
    """Kill all children at once, then end."""


class Tick(msgspec.Struct, frozen=True):
    """Time has passed. One too many, or one too early, does no harm."""


# ---- events: what the runners report ----


class ChildStarted(msgspec.Struct, frozen=True):
    """The child is up."""

    name: str
    incarnation: int


class ChildFailedToStart(msgspec.Struct, frozen=True):
    """The child did not come up, and nothing of it is left. `jitter` is a draw from 0 to 1 (backoff)."""

    name: str
    incarnation: int
    reason: ExitReason
    jitter: float = 0.0


class ChildExited(msgspec.Struct, frozen=True):
    """The child ended, and nothing of it is left. Before `ChildStarted` it is a failed start, whatever the
    reason. `jitter` is a draw from 0 to 1 (backoff)."""

    name: str
    incarnation: int
    reason: ExitReason
    jitter: float = 0.0


# ---- events: requests, each answered by one Replied ----


class AddChild(msgspec.Struct, frozen=True):
    """Add a child after the others and start it. If it does not come up, it is not added."""

    request: int
    spec: ChildSpec


class TerminateChild(msgspec.Struct, frozen=True):
    """Stop a child and keep its spec (a temporary one's is dropped); a restart that waits is cancelled."""

    request: int
    name: str


class RestartChild(msgspec.Struct, frozen=True):
    """Start a child that finished or was terminated. If it does not come up, it stays as it was."""

    request: int
    name: str


class DeleteChild(msgspec.Struct, frozen=True):
    """Drop the spec of a child that does not run."""

    request: int
    name: str


class RemoveChild(msgspec.Struct, frozen=True):
    """Stop a child, if it runs, and drop its spec."""

    request: int
    name: str


# ---- events: monitors, each answered by one ChildDown, sooner or later ----


class Monitor(msgspec.Struct, frozen=True):
    """Tell when the child is down: the name (not by a restart), or just one incarnation of it."""

    monitor: int
    name: str
    incarnation: int | None = None


class Demonitor(msgspec.Struct, frozen=True):
    """Forget a monitor; it fires no more."""

    monitor: int


# ---- effects ----


class StartChild(msgspec.Struct, frozen=True):
    """Start this incarnation; answered by `ChildStarted`, `ChildFailedToStart` or `ChildExited`."""

    name: str
    incarnation: int
    spec: ChildSpec


class StopChild(msgspec.Struct, frozen=True):
    """Ask the child to stop; it is killed `budget` microseconds later (None: never)."""

    name: str
    incarnation: int
    reason: ExitReason
    budget: int | None


class KillChild(msgspec.Struct, frozen=True):
    """End the child now. Its `ChildExited` must follow: the machine waits for it without limit, because
    the next incarnation may not start beside this one."""

    name: str
    incarnation: int


class ChildDown(msgspec.Struct, frozen=True):
    """These monitors fire, for the only time."""

    monitors: tuple[int, ...]
    name: str
    incarnation: int
    reason: ExitReason


class MonitorRefused(msgspec.Struct, frozen=True):
    """There are as many monitors as there may be; this one was not registered."""

    monitor: int
    error: str


class Replied(msgspec.Struct, frozen=True):
    """The answer to a request: done (`incarnation` is the child's latest), or `error` says why not."""

    request: int
    incarnation: int = 0
    error: str | None = None


class SupervisorStarted(msgspec.Struct, frozen=True):
    """All children are up."""


class SupervisorFailedToStart(msgspec.Struct, frozen=True):
    """A child did not come up at the first start; those that had are stopped again."""

    reason: ExitReason


class SupervisorExited(msgspec.Struct, frozen=True):
    """All children are gone, and so is the supervisor."""

    reason: ExitReason


ReportKind = Literal[
    "ended",  # by itself, while the supervisor ran
    "failed_to_start",
    "restarting",  # one attempt of the window; names the child whose end caused it
    "start_timed_out",  # and was killed
    "killed",  # its budget for stopping ran out
    "stopped_badly",  # it was asked to stop and ended abnormally
    "gave_up",  # more restarts than the intensity allows
]


class Reported(msgspec.Struct, frozen=True):
    """Something for the log, the metrics and the tree page; nothing needs to be done."""

    kind: ReportKind
    name: str
    incarnation: int
    reason: ExitReason


class WakeAt(msgspec.Struct, frozen=True):
    """Send a `Tick` at this boot time, in microseconds; replaces the WakeAt before.

    If it has passed already, the Tick comes after all events that are waiting.
    """

    boot: int


SupervisorEvent = (
    StartSupervisor
    | StopRequested
    | KillRequested
    | Tick
    | ChildStarted
    | ChildFailedToStart
    | ChildExited
    | AddChild
    | TerminateChild
    | RestartChild
    | DeleteChild
    | RemoveChild
    | Monitor
    | Demonitor
)

SupervisorEffect = (
    StartChild
    | StopChild
    | KillChild
    | ChildDown
    | MonitorRefused
    | Replied
    | SupervisorStarted
    | SupervisorFailedToStart
    | SupervisorExited
    | Reported
    | WakeAt
)
