"""The event log: what happened in a cluster, one event a line, and the file in which it is written down.

Owns the words (`Kind`), the line (`Event` as JSON: `at`, `kind`, `lane`, `facts`) and the writer. Brokers, nodes and
children write what they see themselves, at the time at which they see it; the simulator's trace is made of the same
events. Who reads it is `supervisor.harness.log_reader`.

Several processes of one machine may write into one file: each write is of whole lines, and is appended whole. What is
about to be said, or to be run, is written before it is, so that in one file causes stand before what they cause. Times
are of the machine's boot clock; every writer begins with a line of the kind `log`, which tells whose it is and which
boot the times are of.

Limits: a log that has reached `bytes_max` is closed with a last line that says so; so is one that cannot be written.
Whoever writes it goes on without, and is told once (`on_closed`). It is not synced: it survives processes, not the
power. Nothing of what is written ends a broker, a node or a body.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from .clock import Clock

#: What `format` says in the first line of each writer.
FORMAT: Final = 1
BYTES_MAX_DEFAULT: Final = 1 << 30
_SHORT: Final = 8
#: Letters of what is wrong with a line that are shown.
_SHOWN: Final = 60
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Kind(enum.StrEnum):
    """What can happen. Faults are anchored to these, and `--gr-timeline` shows them."""

    #: A client hands messages to its link; in the log of a broker: they have come.
    PUBLISH = "publish"
    #: A client's call is answered.
    CONFIRM = "confirm"
    #: A client learns of a result.
    RESULT = "result"
    #: The broker hands a message out; `task`, `number` of the delivery.
    DELIVER = "deliver"
    #: A child is about to run a body.
    STARTED = "started"
    #: The body is over, and nobody knows yet.
    RAN = "ran"
    #: A child says what became of deliveries.
    SETTLE = "settle"
    #: A child gives deliveries back.
    RETURN = "return"
    #: The broker tells a child that its settle is on disk.
    APPLIED = "applied"
    #: The broker is about to commit.
    WRITE = "write"
    #: The broker has committed.
    COMMIT = "commit"
    #: A result that is there to stay is on the disk.
    STORED = "result stored"
    #: A message has become a dead letter, on the disk.
    DEAD = "dead"
    #: An operator has had what waits in a mailbox dropped.
    PURGED = "purged"
    #: A node asks for a child.
    FORK = "fork"
    #: A child is ready.
    READY = "ready"
    #: A process has died.
    DEATH = "death"
    #: A node reports the death of a child.
    REPORT = "report"
    #: A link is up.
    ATTACHED = "attached"
    #: A link is gone.
    DETACHED = "detached"
    #: The broker begins, at first or again.
    BROKER_UP = "broker up"
    #: The core has something for the operator.
    NOTICE = "notice"
    #: A fault was done.
    FAULT = "fault"
    #: User code named a moment: `sometimes`, `yield_point`.
    MARK = "mark"
    #: User code did something outside, as its test records it.
    EFFECT = "effect"
    #: Somebody begins to write this log, or (`closed`) ends it.
    LOG = "log"


Facts = dict[str, Any]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened. `at`: microseconds, of a simulated world since it began, else of the boot clock."""

    at: int
    kind: Kind
    lane: str
    facts: Facts

    def words(self) -> str:
        """Say it in a few words."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{self.kind} {facts}" if facts else str(self.kind)


#: The facts that an event has at least, and what they are. It may have more.
FACTS: Final[dict[Kind, dict[str, type | tuple[type]]]] = {
    Kind.PUBLISH: {"mailbox": str, "ids": (str,), "tasks": (str,), "flags": (int,), "bounds": (int,)},
    Kind.CONFIRM: {"ids": (str,)},
    Kind.RESULT: {"id": str, "state": str},
    Kind.DELIVER: {"to": str, "id": str, "task": str, "position": int, "lease": int},
    Kind.STARTED: {"id": str, "task": str, "position": int, "delivery": int, "flags": int, "of": str},
    Kind.RAN: {"id": str, "task": str, "position": int, "state": str},
    Kind.SETTLE: {"number": int, "positions": (int,), "states": (str,)},
    Kind.RETURN: {"positions": (int,)},
    Kind.APPLIED: {"to": str, "number": int},
    Kind.WRITE: {},
    Kind.COMMIT: {"number": int},
    Kind.STORED: {"id": str, "state": str},
    Kind.DEAD: {"id": str, "mailbox": str, "position": int, "reason": str},
    Kind.PURGED: {"mailbox": str},
    Kind.FORK: {"child": int, "of": str},
    Kind.READY: {},
    Kind.DEATH: {},
    Kind.REPORT: {"session": str},
    Kind.ATTACHED: {},
    Kind.DETACHED: {},
    Kind.BROKER_UP: {},
    Kind.NOTICE: {"notice": str},
    Kind.FAULT: {"what": str},
    Kind.MARK: {"name": str},
    Kind.EFFECT: {"name": str},
    Kind.LOG: {},
}
#: Lists that are about the same things, one entry each.
PARALLEL: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.PUBLISH: ("ids", "tasks", "flags", "bounds"),
    Kind.SETTLE: ("positions", "states"),
}

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_decode: Final = msgspec.json.Decoder(Event).decode


def line_of(event: Event) -> bytes:
    """Return the line of an event, with its end. What JSON has no word for is written as text."""
    return _encode(event) + b"\n"


def event_of(line: bytes) -> Event:
    """Return the event of a line. Raises ValueError for one that is none, or lacks what its kind must tell."""
    try:
        event = _decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    facts = event.facts
    for name, kind in FACTS[event.kind].items():
        if not _fits(facts.get(name), kind):
            what = f"a list of {kind[0].__name__}" if isinstance(kind, tuple) else kind.__name__
            raise ValueError(f"a {event.kind} tells {name!r}, {what}, and this one has {_short(facts.get(name))} there")
    lengths = {len(facts[name]) for name in PARALLEL.get(event.kind, ())}
    if len(lengths) > 1:
        raise ValueError(f"a {event.kind} has lists of one length, and this one of {sorted(lengths)}")
    return event


def _fits(fact: object, kind: type | tuple[type]) -> bool:
    if not isinstance(kind, tuple):
        return isinstance(fact, kind)
    return isinstance(fact, list) and all(isinstance(item, kind[0]) for item in cast("list[object]", fact))


def _short(fact: object) -> str:
    text = repr(fact)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def lane_of(session: str, role: str = "worker") -> str:
    """Return by what name a session stands in the log: `client-1a2b3c4d`, `worker-1a2b3c4d`, and `.../3` its child."""
    node, slash, number = session.partition("/")
    return f"{role}-{node[-_SHORT:]}{slash}{number}"


class EventLog:
    """A file of events, opened to be written by one thread. `note` buffers, `flush` writes."""

    def __init__(
        self,
        path: str,
        lane: str,
        clock: Clock,
        *,
        bytes_max: int = BYTES_MAX_DEFAULT,
        on_closed: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Open the file, which is made if it is not there (mode 0600), and write whose lines come now.

        `on_closed` is called with the reason if the log ends before its writer. Raises OSError.
        """
        self._clock = clock
        self._lane = lane
        self._bytes_max = bytes_max
        self._on_closed = on_closed
        self._lines: list[bytes] = []
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OSError(error.errno, f"the event log cannot be opened: {error.strerror}", path) from None
        size = os.fstat(self._descriptor).st_size
        if size >= bytes_max:
            self._close(f"{path} has {size:,} bytes, and its limit is {bytes_max:,}")
            return
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            # Somebody was killed in the middle of a line.
            self._lines.append(b"\n")
        now = clock()
        self.note(Kind.LOG, lane, format=FORMAT, boot=_boot_id(), wall=now.wall, pid=os.getpid())
        self.flush()

    @property
    def is_open(self) -> bool:
        """Whether what is noted is written."""
        return self._descriptor >= 0

    def note(self, kind: Kind, lane: str, **facts: Any) -> None:
        """This happens now."""
        if self._descriptor >= 0:
            self._lines.append(line_of(Event(self._clock().boot, kind, lane, facts)))

    def note_at(self, boot: int, kind: Kind, lane: str, facts: Facts) -> None:
        """This has happened at that time."""
        if self._descriptor >= 0:
            self._lines.append(line_of(Event(boot, kind, lane, facts)))

    def flush(self) -> None:
        """Write what was noted. Whatever goes wrong with that closes the log, and is told to `on_closed`."""
        if not self._lines or self._descriptor < 0:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            # After a write the place in the file is its end, whoever else writes there.
            size = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError as error:
            self._close(f"it cannot be written: {error}")
            return
        if size >= self._bytes_max:
            reason = f"it has reached its limit of {self._bytes_max:,} bytes"
            with contextlib.suppress(OSError):
                # Said in any case: to whoever writes it.
                last = Event(self._clock().boot, Kind.LOG, self._lane, {"closed": reason, "early": True})
                os.write(self._descriptor, line_of(last))
            self._close(reason)

    def close(self, reason: str, **facts: Any) -> None:
        """End it in order, with a last line that says why."""
        self.note(Kind.LOG, self._lane, closed=reason, **facts)
        self.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _close(self, reason: str) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._lines.clear()
        self._on_closed(reason)


def _boot_id() -> str:
    """Return what names this boot of this machine; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
