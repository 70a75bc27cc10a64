"""The report of a promise that a log shows to be broken: one screen, with the numbers of the lines.

Owns what is told of a message whose promise was broken: the log is read once more, and of each event that is about it
only what is about it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...transport.event_log import PARALLEL
from .invariants.base import Violated
from .log_reader import Entry, LogFile, read_logs
from .timeline import LINES_MAX, Line, Names, drawn, line_of, telling
from .trace import Event, Facts, Kind

#: Of one message no more events are looked at: the latest.
_EVENTS_MAX: Final = 10_000
#: What is about nobody, and may have to do with everybody.
_OF_PROCESSES: Final = (Kind.DEATH, Kind.REPORT, Kind.DETACHED, Kind.ATTACHED, Kind.BROKER_UP)


class Broken(msgspec.Struct, frozen=True):
    """A broken promise: which, how, where it shows (empty: at the end), and what became of the message."""

    name: str
    sentence: str
    detail: str
    file: str
    line: int
    #: The id of the message.
    about: str
    timeline: list[Line]

    def text(self) -> str:
        """Return one screen of text."""
        where = f"{self.file}:{self.line}" if self.line else "the end of the log"
        return "\n".join(
            [
                f"{self.name} violated: {self.detail}",
                self.sentence,
                "",
                drawn(self.timeline),
                "",
                f"It shows at {where}. Numbers in brackets are lines of the log; {self._called()}",
            ]
        )

    def _called(self) -> str:
        return f"the message is {self.about}." if self.about else "no message is named."


def broken(violated: Violated, paths: Sequence[Path], where: Entry | None) -> Broken:
    """Return what is told of a violation that showed at this entry, or at the end of these logs."""
    lines = _timeline(violated.about, paths, where) if violated.about else []
    return Broken(
        violated.invariant,
        violated.sentence,
        violated.detail,
        str(paths[where.file]) if where is not None else "",
        where.line if where is not None else 0,
        violated.about,
        lines,
    )


def _timeline(about: str, paths: Sequence[Path], until: Entry | None) -> list[Line]:
    files = [LogFile(path, number) for number, path in enumerate(paths)]
    kept: list[Entry] = []
    positions: dict[int, None] = {}
    lanes: dict[str, None] = {}
    began: int | None = None
    for entry in read_logs(files):
        event = entry.event
        began = event.at if began is None else began
        narrow = _narrowed(event, about, positions, lanes)
        if narrow is not None:
            kept.append(Entry(entry.file, entry.line, Event(event.at - began, event.kind, event.lane, narrow)))
            if len(kept) > _EVENTS_MAX:
                del kept[0]
        if until is not None and entry[:2] == until[:2]:
            break
    events = [entry.event for entry in kept]
    places = {id(entry.event): entry for entry in kept}
    names = Names(events)
    chosen = telling(events, names, [about], LINES_MAX)
    lines: list[Line] = []
    for event in chosen[-LINES_MAX:]:
        line, place = line_of(event, names), places[id(event)]
        at = f"{place.file + 1}:{place.line}" if len(paths) > 1 else str(place.line)
        lines.append(msgspec.structs.replace(line, text=f"{line.text} [{at}]"))
    return lines


def _narrowed(event: Event, about: str, positions: dict[int, None], lanes: dict[str, None]) -> Facts | None:
    """Return the facts of an event as far as they are about this message; None: they are not."""
    facts = event.facts
    if facts.get("id") == about:
        if "position" in facts:
            positions[facts["position"]] = None
        if event.kind is Kind.DELIVER:
            lanes[facts["to"]] = None
        return facts
    if about in facts.get("ids", ()):
        return _only(facts, "ids", PARALLEL.get(event.kind, ("ids",)), {about: None})
    if "positions" in facts and any(position in positions for position in facts["positions"]):
        return _only(facts, "positions", PARALLEL.get(event.kind, ("positions",)), positions)
    if event.kind not in _OF_PROCESSES or not lanes:
        return None
    who = str(facts.get("session") or facts.get("to") or event.lane)
    is_near = event.kind is Kind.BROKER_UP or any(lane == who or lane.startswith(f"{who}/") for lane in lanes)
    return {name: fact for name, fact in facts.items() if name != "positions"} if is_near else None


def _only(facts: Facts, by: str, parallel: Sequence[str], wanted: dict[str, None] | dict[int, None]) -> Facts:
    """Return facts with only the entries of their lists that are about what is wanted."""
    places = [place for place, item in enumerate(facts[by]) if item in wanted]
    return {
        name: [fact[place] for place in places] if name in parallel and isinstance(fact, list) else fact
        for name, fact in facts.items()
    }
