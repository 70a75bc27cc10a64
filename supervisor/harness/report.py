"""The report of a broken promise: one screen of text (spec 2.7), and the same as a page of HTML.

Owns the order of what is told: the promise in a sentence, the timeline of the smallest run that breaks it, the faults
and deviations of that run, how to run it again, and the hash by which a replay is known to be the same run.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .timeline import LINES_MAX, Line, Names, column_of, drawn, line_of, telling, timeline
from .trace import Event, Kind, Trace

#: Sentences of a report are this wide.
_WRAP: Final = 100


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of one broken run."""

    #: The invariant's name, or what the test's own assertion said.
    title: str
    #: The promise that was broken, or is in doubt, in a sentence.
    sentence: str
    lines: list[Line]
    #: How the world differed from a calm one, one line each.
    deviations: list[str]
    #: What to type to see it again; empty: nothing was drawn.
    replay: str
    #: The hash of the whole trace.
    digest: str
    #: How many events the whole trace has.
    events: int
    #: What the invariant promises; empty: it was the test's own assertion.
    promise: str = ""
    #: By which program and which search it was found.
    found: str = ""

    def text(self) -> str:
        """Return one screen of text."""
        head = f"{self.title}: {self.sentence}"
        about = [*textwrap.wrap(self.promise, _WRAP), *textwrap.wrap(f"({self.found})" if self.found else "", _WRAP)]
        parts = [head, *about, "", drawn(self.lines), ""]
        if self.deviations:
            parts += [f"  {deviation}" for deviation in self.deviations]
        else:
            parts.append("  nothing went wrong around it: no fault was needed")
        if self.replay:
            parts.append(f"replay: {self.replay}")
        parts.append(f"trace {self.digest}, {self.events} events, of which {len(self.lines)} are shown")
        return "\n".join(parts)


def report(
    title: str,
    sentence: str,
    trace: Trace,
    *,
    about: Collection[str] = (),
    deviations: Sequence[str] = (),
    replay: str = "",
    lines_max: int = LINES_MAX,
    broken_at: Event | None = None,
    promise: str = "",
    found: str = "",
) -> Report:
    """Make the report of a trace. `about`: the ids of the messages that the broken promise is about. `broken_at`: the
    event by which it was seen to be broken, which always has its line, and is marked."""
    names = Names(trace.events)
    named = sentence
    for id in about:
        named = named.replace(id, names.of(id))
    shown = _fitting(trace.events, telling(trace.events, names, about, lines_max), broken_at, lines_max)
    lines = [
        msgspec.structs.replace(line_of(event, names), mark=named) if event is broken_at else line_of(event, names)
        for event in shown
    ]
    return Report(
        title=title,
        sentence=named,
        promise=promise,
        found=found,
        lines=lines,
        deviations=list(deviations),
        replay=replay,
        digest=trace.digest(),
        events=len(trace.events),
    )


def _fitting(events: Sequence[Event], shown: Sequence[Event], broken_at: Event | None, most: int) -> list[Event]:
    """Return of these events as many as fit: all faults, the one by which it broke, and the latest of the others."""
    kept = {id(event) for event in shown if event.kind is Kind.FAULT or event is broken_at}
    if broken_at is not None:
        kept.add(id(broken_at))
    room = max(0, most - len(kept))
    others = [event for event in shown if id(event) not in kept]
    kept.update(id(event) for event in others[max(0, len(others) - room) :])
    return [event for event in events if id(event) in kept]


def first_divergence(one: Sequence[Event], other: Sequence[Event]) -> tuple[int, Event | None, Event | None] | None:
    """Return the place at which two traces part, with what each has there; None: they are the same."""
    for index, (mine, its) in enumerate(zip(one, other, strict=False)):
        if (mine.at, mine.lane, mine.words()) != (its.at, its.lane, its.words()):
            return index, mine, its
    if len(one) == len(other):
        return None
    index = min(len(one), len(other))
    return index, one[index] if index < len(one) else None, other[index] if index < len(other) else None


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #1c2024; }
h1 { font-size: 1.25rem; margin: 0 0 .25rem; } p { margin: .25rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th { position: sticky; top: 0; background: #f4f5f7; text-align: left; }
th, td { padding: .2rem .5rem; border-left: 1px solid #e3e5e8; vertical-align: top; }
td:first-child, th:first-child { border-left: 0; text-align: right; color: #60646c; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
tr.fault td { background: #fff0f0; } tr.fault td.here { color: #b00020; font-weight: 600; }
tr.quiet { color: #80838d; } code { background: #f4f5f7; padding: .1rem .3rem; }
label { float: right; font-size: .85rem; } body:not(.all) tr.quiet { display: none; }
@media (prefers-color-scheme: dark) { body { background: #111214; color: #e8eaed; }
  th, code { background: #1d1f23; } th, td { border-color: #2b2e33; } tr.fault td { background: #33191c; }
  tr.fault td.here { color: #ff8a94; } }
"""


def page_of(told: Report, events: Sequence[Event]) -> str:
    """Return a page that needs nothing but itself: one column a process, the lines of the report, and all the rest."""
    whole = timeline(events, lines_max=len(events))
    shown = {(line.at, line.column, line.text) for line in told.lines}
    lanes = list(dict.fromkeys(column_of(event.lane) for event in events))
    lanes.sort(key=lambda name: (not name.startswith("client"), name != "broker", name))
    rows: list[str] = []
    for line in whole:
        kinds = [name for name, holds in (("fault", line.is_fault), ("quiet", _key(line) not in shown)) if holds]
        cells = "".join(
            f'<td class="here">{html.escape(line.text)}</td>' if lane == line.column else "<td></td>" for lane in lanes
        )
        rows.append(f'<tr class="{" ".join(kinds)}"><td>{line.at / 1_000_000:.4f}</td>{cells}</tr>')
    heads = "".join(f"<th>{html.escape(lane)}</th>" for lane in lanes)
    deviations = "".join(f"<li>{html.escape(deviation)}</li>" for deviation in told.deviations)
    replay = f"<p>Again: <code>{html.escape(told.replay)}</code></p>" if told.replay else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(told.title)}</title><style>{_STYLE}</style>"
        "<label><input type=checkbox onchange=\"document.body.classList.toggle('all')\"> everything</label>"
        f"<h1>{html.escape(told.title)}</h1><p>{html.escape(told.sentence)}</p>"
        f"{f'<ul>{deviations}</ul>' if deviations else ''}{replay}"
        f"<table><thead><tr><th>seconds</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<p>Trace <code>{told.digest}</code>, {told.events} events.</p></html>"
    )


def write_page(told: Report, events: Sequence[Event], folder: Path) -> Path:
    """Write the page into a folder under the trace's hash; return its path. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{told.digest}.html"
    path.write_text(page_of(told, events), encoding="utf-8")
    return path


def _key(line: Line) -> tuple[int, str, str]:
    return line.at, line.column, line.text
