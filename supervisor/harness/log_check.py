"""The judgement of event logs: every invariant that events suffice for, over logs of any length.

Owns what a log says beyond its events: where the promises of a store end (a broker that began again, another store,
another boot), what was killed between a commit and its line, who writes no log, and whether it ends at rest. By that
messages are excused, and of what cannot be known it is told that it was not judged.

Memory: what is known of a message, about 1.5 KB, for `messages_max` messages at most. Those that have come to their end
are forgotten first, the oldest before the others; of what was forgotten nothing more is judged, and how much that was
is told. It needs nothing of the extra `testing`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...transport.message import TERMINAL, State
from .invariants.base import Violated
from .invariants.runs import AGAIN, BY_EVENTS, AtLeastOnce
from .log_reader import Entry, LogFile, read_logs
from .log_report import Broken, broken
from .trace import Event, Facts, Kind

MESSAGES_MAX_DEFAULT: Final = 200_000
#: Notes of logs that were closed early.
_NOTES_MAX: Final = 20
#: So many names of one thing are told.
_NAMED_MAX: Final = 3
_TERMINAL: Final = frozenset(State(state).name for state in TERMINAL)
#: What promises at the end of a log need. What only a part of the cluster has told says nothing about it.
_AT_END: Final = AtLeastOnce.name


class Judged(msgspec.Struct, frozen=True):
    """One invariant, and how often there was occasion to break it."""

    name: str
    sentence: str
    premises: int

    @property
    def is_vacuous(self) -> bool:
        """Whether it has said nothing: there was no occasion."""
        return not self.premises


class Verdict(msgspec.Struct, frozen=True):
    """What is said of logs."""

    files: list[str]
    events: int
    invariants: list[Judged]
    #: What was not judged, and why; what was found in the files.
    notes: list[str]
    #: Lines that are no events, and are not what a kill leaves.
    bad_lines: int
    #: The broken promise; None: all were kept, as far as they were judged.
    violation: Broken | None

    @property
    def vacuous(self) -> list[str]:
        """Names of those that had no occasion."""
        return [judged.name for judged in self.invariants if judged.is_vacuous]


def check_logs(paths: Sequence[Path], *, messages_max: int = MESSAGES_MAX_DEFAULT) -> Verdict:
    """Judge these logs, which are one cluster's. Raises Unreadable for one in which there is nothing to be read."""
    files = [LogFile(path, number) for number, path in enumerate(paths)]
    check = LogCheck(messages_max)
    violated: Violated | None = None
    entry: Entry | None = None
    try:
        for entry in read_logs(files):
            check.feed(entry.event)
        check.end(whole=not any(file.bad_count for file in files))
    except Violated as violation:
        violated = violation
    told = None if violated is None else broken(violated, paths, entry if violated.event is not None else None)
    return Verdict(
        [str(path) for path in paths],
        check.events,
        check.judged(),
        [*check.notes, *_of_files(files)],
        sum(file.bad_count for file in files),
        told,
    )


class LogCheck:
    """Judges events as they come. `feed` and `end` raise Violated."""

    def __init__(self, messages_max: int = MESSAGES_MAX_DEFAULT) -> None:
        self.events = 0
        #: What was not judged, and why.
        self.notes: list[str] = []
        self._messages_max = messages_max
        self._premises = Counter[str]()
        self._forgotten = 0
        self._epoch = 0
        self._boot = ""
        self._begin()

    def _begin(self) -> None:
        """Know nothing: positions and ids are those of another store from now on."""
        self._excused: dict[str, None] = {}
        self._invariants = [invariant() for invariant in BY_EVENTS]
        for invariant in self._invariants:
            invariant.excused = self._excused
        self._alo = next(invariant for invariant in self._invariants if isinstance(invariant, AtLeastOnce))
        #: Positions of each message that is known, in the order in which they became known; those that ended.
        self._known: OrderedDict[str, list[int]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._ids: dict[int, str] = {}
        #: Ids by what their mailbox promises to survive, where that is not everything.
        self._fragile: dict[str, dict[str, None]] = {"MEMORY": {}, "PROCESS": {}}
        #: Dead letters of commits that nobody has told the end of, by number.
        self._in_doubt: dict[int, list[str]] = {}
        #: How many messages the broker has left unsettled, once it has stopped.
        self._unsettled: int | None = None
        self._watched: dict[str, None] = {}
        self._unwatched: dict[str, None] = {}
        self._whole = False
        self._cut = ""

    # --- events --------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Judge an event."""
        self.events += 1
        kind, facts = event.kind, event.facts
        match kind:
            case Kind.LOG:
                self._hear_of_log(event)
            case Kind.BROKER_UP:
                self._begins(facts)
            case Kind.PUBLISH:
                for id in facts["ids"]:
                    self._learn(id)
            case Kind.CONFIRM:
                fragile = self._fragile.get(str(facts.get("durability")))
                if fragile is not None:
                    fragile.update({id: None for id in facts["ids"] if id in self._known})
            case Kind.DELIVER:
                self._learn(facts["id"], facts["position"])
                if not self._whole and facts["to"] not in self._watched:
                    self._unwatched[facts["to"]] = None
            case Kind.WRITE:
                self._in_doubt[int(facts.get("number", 0))] = list(facts.get("dead", ()))
            case Kind.COMMIT:
                for number in [number for number in self._in_doubt if number <= facts["number"]]:
                    del self._in_doubt[number]
            case Kind.DEATH if "running" not in facts and "positions" in facts:
                running = [self._ids[position] for position in facts["positions"] if position in self._ids]
                event = Event(event.at, kind, event.lane, {**facts, "running": running})
            case _:
                pass
        for invariant in self._invariants:
            invariant.on_event(event)
        if _is_end(kind, facts):
            self._end(facts["id"])

    def end(self, *, whole: bool = True) -> None:
        """There are no more events. `whole`: no lines were lost."""
        self._conclude(whole=whole)
        self._count()

    def judged(self) -> list[Judged]:
        """Return what was judged, and how often."""
        return [
            Judged(
                invariant.name,
                invariant.sentence,
                self._premises[invariant.name] + next(i.premises for i in self._invariants if i.name == invariant.name),
            )
            for invariant in BY_EVENTS
        ]

    # --- what the log says of itself -----------------------------------------------------------------------------

    def _hear_of_log(self, event: Event) -> None:
        facts = event.facts
        if "closed" in facts:
            if "unsettled" in facts:
                self._unsettled = int(facts["unsettled"])
            elif facts.get("early"):
                self._cut = f"{event.lane} has written no more: {facts['closed']}"
                if self._cut not in self.notes and len(self.notes) < _NOTES_MAX:
                    self.notes.append(self._cut)
            return
        self._watched[event.lane] = None
        self._whole = self._whole or bool(facts.get("whole"))
        boot = str(facts.get("boot", ""))
        if boot and self._boot and boot != self._boot:
            # The machine was down: nothing but what was synced is promised to be there.
            self._excused.update(self._fragile["PROCESS"])
        self._boot = boot or self._boot

    def _begins(self, facts: Facts) -> None:
        epoch = int(facts.get("epoch", 0))
        if epoch and epoch <= self._epoch:
            # What it counts begins anew as well.
            self._conclude(whole=True)
            self._count()
            self._begin()
        elif self._epoch:
            self._excused.update(self._fragile["MEMORY"])
            for ids in self._in_doubt.values():
                # On the disk or not: who knew was killed before he could say it.
                self._excused.update(dict.fromkeys(ids))
            self._in_doubt = {}
        self._epoch = epoch
        self._unsettled = None

    def _conclude(self, *, whole: bool) -> None:
        """Judge what must be so in the end, as far as the log tells of it."""
        unfinished = len(self._alo.unfinished())
        if not unfinished:
            self._alo.judge(0)
            return
        why = ""
        if not whole:
            why = "lines of the log cannot be read"
        elif self._cut:
            why = self._cut
        elif self._unwatched:
            why = f"there is no log of {_named(list(self._unwatched))}, to which messages went"
        elif self._unsettled is None:
            why = "the log does not end at rest: the broker has not stopped in order"
        if why:
            self.notes.append(f"{_AT_END} is not judged for {unfinished:,} confirmed tasks that had no end: {why}")
            self._alo.judge(unfinished)
            return
        assert self._unsettled is not None
        self._alo.judge(self._unsettled)
        self.notes.append(
            f"{_AT_END} is not judged for {unfinished:,} confirmed tasks that had no end: the log does not end at "
            f"rest, the broker has left {self._unsettled:,} messages unsettled"
        )

    # --- what is remembered --------------------------------------------------------------------------------------

    def _learn(self, id: str, position: int = 0) -> None:
        positions = self._known.get(id)
        if positions is None:
            positions = self._known[id] = []
            while len(self._known) > self._messages_max:
                self._forget(next(iter(self._ended or self._known)))
        if position and position not in positions:
            positions.append(position)
            self._ids[position] = id

    def _end(self, id: str) -> None:
        if id in self._known:
            self._ended[id] = None

    def _forget(self, id: str) -> None:
        positions = self._known.pop(id)
        if id in self._ended:
            del self._ended[id]
        else:
            self._forgotten += 1
        for position in positions:
            self._ids.pop(position, None)
        for fragile in self._fragile.values():
            fragile.pop(id, None)
        self._excused.pop(id, None)
        for invariant in self._invariants:
            invariant.forget(id, positions)

    def _count(self) -> None:
        if self._unwatched and not self._whole:
            self.notes.append(
                f"starts of bodies are not known of {_named(list(self._unwatched))}: run workers with --event-log too"
            )
        if self._forgotten:
            self.notes.append(
                f"{self._forgotten:,} tasks were forgotten before they ended, and not judged any more: more than "
                f"{self._messages_max:,} were open at once (--remember)"
            )
            self._forgotten = 0
        for invariant in self._invariants:
            self._premises[invariant.name] += invariant.premises
            invariant.premises = 0


def _is_end(kind: Kind, facts: Facts) -> bool:
    """Whether the message that this is about is over."""
    match kind:
        case Kind.DEAD:
            return True
        case Kind.STORED:
            return facts["state"] in _TERMINAL
        case Kind.RAN:
            return facts["state"] not in AGAIN
        case _:
            return False


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _of_files(files: Sequence[LogFile]) -> list[str]:
    """What was found to be wrong with the files."""
    notes: list[str] = []
    for file in files:
        notes += [f"{file.path}:{line} is no event: {reason}" for line, reason in file.bad]
        if file.bad_count > len(file.bad):
            notes.append(f"{file.path}: {file.bad_count - len(file.bad):,} further lines are no events")
        if file.torn:
            lines = _named([str(line) for line in file.torn])
            notes.append(f"{file.path}: somebody was killed while he wrote line {lines}; that is no harm")
    return notes
