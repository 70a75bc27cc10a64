"""What goes wrong on a simulated disk, and when.

Owns the armed faults of a disk, the question that it asks where it could go either way (`Choose`), and the exception
that stands for the end of a process or machine (`DiskStopped`). Nothing here draws: a fault is armed for the n-th
call of its kind from now, and `choose` answers the rest.

A fault waits for calls of one deed, on one file if it names one. Faults that wait for the same call are met in the
order in which they were armed, and a call meets at most one of them, beside those that only slow it down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

#: Asks for a number from 0 to `most`, both included; 0 is always the calm answer: nothing more survives, nothing is
#: torn. The text tells what it is about. A test answers from Hypothesis, so that a failure shrinks towards calm.
Choose = Callable[[str, int], int]

#: What a process does with a disk. "sync" is of a file or of the directory (whose name is ""), "change" is any of
#: those that change it: create, write, truncate, sync, delete.
Deed = Literal["open", "create", "read", "write", "truncate", "sync", "delete", "change"]
Kind = Literal["fail", "lie", "slow", "stop"]

_CHANGES: tuple[Deed, ...] = ("create", "write", "truncate", "sync", "delete")
_DEEDS: tuple[Deed, ...] = (*_CHANGES, "open", "read", "change")


class DiskStopped(Exception):
    """Raised out of a store at the point where its process, or the whole machine, came to its end.

    Nothing that the store did or said since its last answer counts. Whoever catches it throws the store away, calls
    `crash` or `power_cut` of the disk and opens a new store.
    """


@dataclass(slots=True)
class Fault:
    """One armed fault. `number` is the error of "fail", or the microseconds of "slow"."""

    deed: Deed
    kind: Kind
    number: int
    after: int
    times: int
    file: str | None


class Faults:
    """The faults that wait for their call."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        #: How often each deed was done, for who wants to go through all of them.
        self.calls: dict[Deed, int] = dict.fromkeys(_DEEDS, 0)
        #: Microseconds that slow syncs took and nobody has asked for yet.
        self.took = 0

    def arm(self, fault: Fault) -> None:
        """Let it wait for its call."""
        if fault.after < 0 or fault.times < 1:
            raise ValueError(f"a fault happens after 0 or more calls and 1 or more times, not {fault}")
        self.armed.append(fault)

    def meet(self, deed: Deed, file: str) -> Fault | None:
        """Count a call that is about to be done; return what it meets."""
        changes = deed in _CHANGES
        self.calls[deed] += 1
        if changes:
            self.calls["change"] += 1
        if not self.armed:
            return None
        met: Fault | None = None
        for fault in list(self.armed):
            if fault.deed != deed and not (changes and fault.deed == "change"):
                continue
            if fault.file is not None and fault.file != file:
                continue
            if fault.after:
                fault.after -= 1
                continue
            if fault.kind == "slow":
                self.took += fault.number
            elif met is None:
                met = fault
            else:
                continue
            fault.times -= 1
            if not fault.times:
                self.armed.remove(fault)
        return met


def calm(question: str, most: int) -> int:
    """Answer each question so that nothing more survives than must and nothing is torn."""
    return 0


def answer(choose: Choose, question: str, most: int) -> int:
    """Ask, and see that the answer is one. Raises ValueError."""
    chosen = choose(question, most)
    if not 0 <= chosen <= most:
        raise ValueError(f"choose answered {chosen} where 0 to {most} was asked for: {question}")
    return chosen
