"""The timeline of a simulated world: who did what to whom, one line an event, one column a party.

Owns which events are worth a line, how messages are called (`charge 1`: the first message for the task `charge`) and
how the columns are laid out. A screen has room for little: kinds of events are left out from the least telling on,
until what is left fits; faults, deaths, starts of bodies and what they did outside are never left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from .trace import Event, Kind

LINES_MAX: Final = 12
WIDTH: Final = 118
_MIN_COLUMN: Final = 14
#: From the least telling on. What is not here always has its line.
_LEAST_TELLING: Final = (
    (Kind.WRITE, Kind.COMMIT, Kind.APPLIED, Kind.ATTACHED, Kind.DETACHED, Kind.READY, Kind.FORK),
    (Kind.NOTICE, Kind.CONFIRM, Kind.RETURN),
    (Kind.REPORT, Kind.BROKER_UP),
    (Kind.RAN,),
    (Kind.SETTLE,),
    (Kind.RESULT,),
    (Kind.PUBLISH,),
    (Kind.DELIVER,),
)


class Line(msgspec.Struct, frozen=True):
    """One line: when (microseconds), in which column, what."""

    at: int
    column: str
    text: str
    is_fault: bool
    #: What is wrong with it, if it is what broke a promise.
    mark: str = ""


def column_of(lane: str) -> str:
    """The party that a lane belongs to: a node's children share its column."""
    return lane.partition("/")[0]


class Names:
    """What messages are called."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._names: dict[str, str] = {}
        self._positions: dict[int, str] = {}
        counts: dict[str, int] = {}
        for event in events:
            facts = event.facts
            if event.kind is Kind.PUBLISH:
                for id, task in zip(facts["ids"], facts["tasks"], strict=True):
                    short = str(task).rpartition(".")[2]
                    if id not in self._names:
                        counts[short] = counts.get(short, 0) + 1
                        self._names[id] = f"{short} {counts[short]}"
            elif event.kind is Kind.DELIVER:
                self._positions[facts["position"]] = facts["id"]

    def of(self, id: str) -> str:
        """Return what a message is called."""
        return self._names.get(id, id)

    def at(self, position: int) -> str:
        """Return what the message at a position is called."""
        return self.of(self._positions.get(position, f"position {position}"))

    def concerned(self, event: Event) -> list[str]:
        """Return the ids that an event is about; none: it is about everybody."""
        facts = event.facts
        if "ids" in facts:
            return list(facts["ids"])
        if "id" in facts:
            return [facts["id"]]
        return [self._positions[position] for position in facts.get("positions", ()) if position in self._positions]


def timeline(events: Sequence[Event], about: Collection[str] = (), lines_max: int = LINES_MAX) -> list[Line]:
    """Return the lines that tell what became of these messages; of all of them where none is named."""
    names = Names(events)
    return [line_of(event, names) for event in telling(events, names, about, lines_max)]


def telling(events: Sequence[Event], names: Names, about: Collection[str], lines_max: int) -> list[Event]:
    """Return the events that are worth a line."""
    kept: list[Event] = []
    for event in events:
        concerned = names.concerned(event)
        if not about or not concerned or any(id in about for id in concerned):
            kept.append(event)
    for kinds in _LEAST_TELLING:
        # What is left out first says little even where there is room.
        if len(kept) > lines_max or kinds is _LEAST_TELLING[0]:
            kept = [event for event in kept if event.kind not in kinds]
    return kept


def drawn(lines: Sequence[Line], width: int = WIDTH) -> str:
    """Draw lines as text, a column a party."""
    columns = list(dict.fromkeys(line.column for line in lines))
    columns.sort(key=lambda name: (not name.startswith("client"), name != "broker", name))
    if not columns:
        return "(nothing happened)"
    # As wide as what stands in it, if all of it fits; else each as wide as the others.
    wide = {name: max(_MIN_COLUMN, *(len(line.text) + 4 for line in lines if line.column == name)) for name in columns}
    if sum(wide.values()) > width - 12:
        wide = dict.fromkeys(columns, max(_MIN_COLUMN, (width - 12) // len(columns)))
    rows = [f"{'seconds':>10}  " + "".join(f"{name:<{wide[name]}}" for name in columns).rstrip()]
    for line in lines:
        before = " " * sum(wide[name] for name in columns[: columns.index(line.column)])
        mark = "* " if line.is_fault else ""
        rows.append(f"{line.at / 1_000_000:>10.4f}  {before}{mark}{line.text}".rstrip())
        if line.mark:
            pointed = f"  <== {line.mark}"
            if len(rows[-1]) + len(pointed) > width:
                # A row of its own, as far to the right as it fits.
                rows.append(" " * max(0, min(12 + len(before), width - len(pointed))))
            rows[-1] = (rows[-1] + pointed)[:width]
    return "\n".join(rows)


def line_of(event: Event, names: Names) -> Line:
    """Return the line of an event."""
    return Line(event.at, column_of(event.lane), _text(event, names), event.kind is Kind.FAULT)


def _text(event: Event, names: Names) -> str:
    facts = event.facts
    child = event.lane.partition("/")[2]
    by = f" in child {child}" if child else ""
    match event.kind:
        case Kind.PUBLISH:
            return "sends " + ", ".join(names.of(id) for id in facts["ids"])
        case Kind.CONFIRM:
            word = f"refused ({facts['error']})" if "error" in facts else "confirmed"
            return ", ".join(names.of(id) for id in facts["ids"]) + f" {word}"
        case Kind.RESULT:
            return f"{names.of(facts['id'])} is {facts['state']}"
        case Kind.STORED:
            return f"{names.of(facts['id'])} ends: {facts['state']}"
        case Kind.DELIVER:
            return f"gives {names.of(facts['id'])} to {facts['to']}"
        case Kind.STARTED:
            return f"starts {names.of(facts['id'])}{by}"
        case Kind.RAN:
            return f"{names.of(facts['id'])} is over{by}"
        case Kind.SETTLE:
            return "settles " + ", ".join(names.at(position) for position in facts["positions"])
        case Kind.RETURN:
            return "gives back " + ", ".join(names.at(position) for position in facts["positions"])
        case Kind.DEAD:
            return f"{names.of(facts['id'])} is a dead letter"
        case Kind.DEATH:
            return f"dies{by} ({facts.get('how', 'killed')})"
        case Kind.REPORT:
            return f"reports {facts['session']}"
        case Kind.NOTICE:
            return f"notices: {facts.get('notice', '')}{by}"
        case Kind.FAULT:
            return "FAULT " + ", ".join(str(value) for value in facts.values())
        case Kind.EFFECT:
            args = str(facts.get("args", "()"))
            given = f"{args[:-2]})" if args.endswith(",)") else args
            return f"{facts['name']}{given}{facts.get('kwargs', '')}{by}"
        case _:
            return event.words() + by
