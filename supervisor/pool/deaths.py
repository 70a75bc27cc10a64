"""What the end of a child process says about it: one question a function, and no decision.

Owns which signals mean what. What is done about an end is `machine`'s, who is to blame is the broker's.
"""

from __future__ import annotations

import signal

from ..reasons import ExitReason, crashed
from .events import Bury, ChildEnded
from .members import Member

#: Signals of a crash of the program itself; SIGKILL and SIGTERM come from elsewhere.
_CRASHES = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
#: Signals by which whoever stops a whole service stops its processes (systemd sends SIGTERM to all of them).
_POLITE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_NAMES = {number.value: number.name for number in signal.Signals}


def reason_of(ended: ChildEnded) -> ExitReason:
    """Say how a process ended: by an exit code, or by a signal and its name."""
    name = _NAMES.get(ended.signal, "")
    return crashed(name, exit_code=ended.exit_code, signal=ended.signal or None, oom=ended.oom)


def killed_from_outside(ended: ChildEnded) -> bool:
    """Tell whether somebody killed it, which says nothing about its program."""
    return ended.signal == signal.SIGKILL and not ended.oom


def ended_by_itself(ended: ChildEnded) -> bool:
    """Tell whether the process ended by its own doing, as far as can be told from outside."""
    return ended.exit_code is not None or ended.signal in _CRASHES or ended.oom


def crashed_young(member: Member, ended: ChildEnded, now: int, young: int) -> bool:
    """Tell whether it crashed by itself, within `young` of being ready, and not because of what it ran."""
    return ended_by_itself(ended) and not ended.ran and member.ready_at is not None and now - member.ready_at < young


def is_orderly(member: Member, ended: ChildEnded) -> bool:
    """Tell whether it ended because it was asked to, so that nothing that it ran is to blame.

    A crash is a crash, also of a child that was asked to stop: its task is not let off.
    """
    by_stop = member.ended_by_stop or ended.exit_code == 0 or ended.signal in _POLITE
    return member.asked and by_stop and not member.watches.timed_out


def burial(member: Member, ended: ChildEnded) -> Bury:
    """Put together what is to be told of it."""
    watches = member.watches
    return Bury(
        member.number,
        member.pid,
        ended.exit_code,
        ended.signal,
        ended.oom,
        ended.max_rss_kib,
        watches.timed_out,
        watches.terminated,
        is_orderly(member, ended),
    )
