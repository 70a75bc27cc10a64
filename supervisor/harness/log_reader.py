"""Reading event logs: from files to events in order, and what cannot be read.

Owns what a line may be. A line that is no event is passed over and told, with its number. Two kinds of damage are what
a kill leaves, and no more than that: a last line without its end, and a line in which somebody was killed and behind
which others went on, on the same line or the next.

One file is read in its own order: there, causes stand before what they cause. Several are merged by their times, each
in its own order, boots of the machine one after the other. Memory does not grow with a log.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from ...transport.event_log import event_of
from .trace import Event, Kind

#: A message of 4,096 tasks with the longest names has less.
LINE_BYTES_MAX: Final = 8 << 20
#: Bad lines that are told one by one.
_TOLD_MAX: Final = 5
_BEGINNING: Final = b'{"at":'


class Unreadable(Exception):
    """Raised when there is nothing in a file that could be read as a log; says why."""


class Entry(NamedTuple):
    """An event, and where it stands: files are counted from 0, lines from 1."""

    file: int
    line: int
    event: Event


class LogFile:
    """One log, and what was found to be wrong with it while it was read."""

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path = path
        self.number = number
        #: Lines that are no events, and why: the first few of them.
        self.bad: list[tuple[int, str]] = []
        self.bad_count = 0
        #: Lines in which somebody was killed.
        self.torn: list[int] = []
        self.events = 0

    def entries(self) -> Generator[Entry]:
        """Read it from its beginning. Raises Unreadable, at its end, for a file in which there is no event."""
        self.bad, self.bad_count, self.torn, self.events = [], 0, [], 0
        try:
            with self.path.open("rb") as file:
                yield from self._read(file)
        except OSError as error:
            raise Unreadable(f"{self.path} cannot be read: {error.strerror or error}") from None
        if not self.events:
            if not self.bad_count and not self.torn:
                raise Unreadable(f"{self.path} is empty; a log of events has a line an event")
            line, reason = self.bad[0] if self.bad else (self.torn[0], "it has no end")
            raise Unreadable(f"{self.path} is no log of events: no line of it is one; line {line}: {reason}")

    def _read(self, file: BinaryIO) -> Generator[Entry]:
        number = 0
        #: A bad line whose reason may be that its writer was killed: then somebody else begins behind it.
        doubtful: tuple[int, str] | None = None
        while raw := file.readline(LINE_BYTES_MAX):
            number += 1
            if not raw.endswith(b"\n") and len(raw) == LINE_BYTES_MAX:
                while (rest := file.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                    pass
                self._tell(number, f"it has more than {LINE_BYTES_MAX:,} bytes")
                continue
            line = raw.strip()
            if not line:
                continue
            try:
                event = event_of(line)
            except ValueError as error:
                if not raw.endswith(b"\n"):
                    self.torn.append(number)
                    continue
                behind = _behind(line)
                if behind is None:
                    if doubtful is not None:
                        self._tell(*doubtful)
                    doubtful = number, str(error)
                    continue
                self.torn.append(number)
                event = behind
            if doubtful is not None:
                if event.kind is Kind.LOG:
                    self.torn.append(doubtful[0])
                else:
                    self._tell(*doubtful)
                doubtful = None
            self.events += 1
            yield Entry(self.number, number, event)
        if doubtful is not None:
            self._tell(*doubtful)

    def _tell(self, line: int, reason: str) -> None:
        self.bad_count += 1
        if len(self.bad) < _TOLD_MAX:
            self.bad.append((line, reason))


def _behind(line: bytes) -> Event | None:
    """Return the event behind a piece of another one, in the middle of which its writer was killed."""
    at = line.rfind(_BEGINNING)
    if at <= 0:
        return None
    try:
        return event_of(line[at:])
    except ValueError:
        return None


def read_logs(files: Sequence[LogFile]) -> Iterator[Entry]:
    """Return all events of these files in order. Raises Unreadable."""
    if len(files) == 1:
        return files[0].entries()
    # When each boot of the machine was, by the first that told of it: boots do not overlap.
    boots: dict[str, int] = {}
    merged = heapq.merge(*(_keyed(file, boots) for file in files), key=lambda keyed: keyed[0])
    return (entry for _, entry in merged)


def _keyed(file: LogFile, boots: dict[str, int]) -> Generator[tuple[tuple[int, int], Entry]]:
    """Give each entry its place: not before those that stand before it in its own file."""
    place = (0, 0)
    began = 0
    for entry in file.entries():
        event = entry.event
        if event.kind is Kind.LOG and "boot" in event.facts:
            began = boots.setdefault(str(event.facts["boot"]), int(event.facts.get("wall", 0)))
        place = max(place, (began, event.at))
        yield place, entry
