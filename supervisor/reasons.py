"""Why a child or a supervisor ended, as a value.

Owns `ExitReason` and the few ways to make one. A reason is normal or abnormal, and that alone decides
whether a transient child comes back; the rest is told to monitors, logs and people.

    normal               it finished its work
    shutdown             it was asked to stop and did, `text` may say why
    crashed              an exception, a bad exit code, a signal or the OOM killer ended it
    killed               its supervisor killed it, or its runner gave it up
    failed_to_start      it never came up
    intensity_exceeded   a supervisor that restarted too often and gave up
    no_such_child        nothing of that name and incarnation runs (only told to monitors)

`intensity_exceeded` is abnormal on purpose: a subtree that gives up escalates, also where its own
supervisor holds it as a transient child.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ReasonKind = Literal[
    "normal", "shutdown", "crashed", "killed", "failed_to_start", "intensity_exceeded", "no_such_child"
]


class ExitReason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something ended.

    `exit_code` and `signal` are those of a process, `oom` says that the kernel's OOM killer chose it.
    """

    kind: ReasonKind
    text: str = ""
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False

    @property
    def abnormal(self) -> bool:
        """Whether a transient child that ended so is started again."""
        return self.kind not in ("normal", "shutdown")

    def __str__(self) -> str:
        """Say it in a line for logs and errors, such as `crashed (signal 9, out of memory)`."""
        details: list[str] = []
        if self.exit_code is not None:
            details.append(f"exit code {self.exit_code}")
        if self.signal is not None:
            details.append(f"signal {self.signal}")
        if self.oom:
            details.append("out of memory")
        if self.text:
            details.append(self.text)
        words = self.kind.replace("_", " ")
        return f"{words} ({', '.join(details)})" if details else words


NORMAL = ExitReason("normal")
SHUTDOWN = ExitReason("shutdown")
KILLED = ExitReason("killed")
NO_SUCH_CHILD = ExitReason("no_such_child")


def crashed(
    text: str = "", *, exit_code: int | None = None, signal: int | None = None, oom: bool = False
) -> ExitReason:
    """Return the reason of a child that ended by an exception, an exit code, a signal or lack of memory."""
    return ExitReason("crashed", text, exit_code, signal, oom)


def failed_to_start(text: str) -> ExitReason:
    """Return the reason of a child, or a supervisor, that did not come up; `text` says why."""
    return ExitReason("failed_to_start", text)


def intensity_exceeded(text: str) -> ExitReason:
    """Return the reason of a supervisor that gave up; `text` says over which child and how often."""
    return ExitReason("intensity_exceeded", text)
