"""The order of the measurements: in each round every system once, each alone on the machine.

A system is started anew for its turn, in a temporary folder, measured in all rows, and stopped before the next one
starts. So slow changes of the machine meet all systems alike, and none pays for another that idles beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contract import FOLDER, Place, Row, System
from figures import shown
from processes import Children, StartError

#: Beyond a row's own patience: the agent's imports, and the workers' start.
AGENT_SECONDS = 45.0


@dataclass(frozen=True)
class Choice:
    """What is to be measured."""

    rows: Sequence[Row]
    systems: Sequence[System]
    rounds: int
    count: int | None
    full: bool
    #: Where the temporary folders are made: its disk is the one that is measured.
    folder: Path


@dataclass
class Outcome:
    """What came of it."""

    #: row -> system -> what each round gave.
    figures: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    #: row -> system -> what the system has not got, or did not do in the time it had.
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    #: row -> system -> why it failed.
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    #: system -> why it was not measured at all.
    missing: dict[str, str] = field(default_factory=dict)


#: Told after each measurement: round (from 1), system, row, what came of it in words.
Told = Callable[[int, str, str, str], None]


def run(choice: Choice, told: Told) -> Outcome:
    """Measure everything that was chosen. A failure is noted, and that row of that system is not tried again."""
    outcome = Outcome()
    present: list[System] = []
    for system in choice.systems:
        reason = system.missing()
        if reason is None:
            present.append(system)
        else:
            outcome.missing[system.name] = reason
    for number in range(1, choice.rounds + 1):
        for system in present:
            rows = [row for row in _in_turn(choice.rows) if _is_wanted(row, system, number, choice, outcome)]
            if rows:
                _visit(system, rows, number, choice, outcome, told)
    return outcome


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    """First what needs no workers; last what kills one."""
    return sorted(rows, key=lambda row: (row.workers, row.kills))


def _is_wanted(row: Row, system: System, number: int, choice: Choice, outcome: Outcome) -> bool:
    if system.name in outcome.absent.get(row.name, {}) or system.name in outcome.failed.get(row.name, {}):
        return False
    return number == 1 or not (choice.full and row.once_in_full)


def _visit(system: System, rows: Sequence[Row], number: int, choice: Choice, outcome: Outcome, told: Told) -> None:
    """Start one system, measure it in these rows, stop it."""
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-", dir=choice.folder) as name:
        folder = Path(name)
        (folder / "marks").mkdir()
        with Children(folder) as children:
            paths = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = {"BENCH_MARKS": str(folder / "marks"), "PYTHONPATH": os.pathsep.join(paths)}
            place = Place(folder, children, environment)
            left = list(rows)
            try:
                system.start_servers(place)
                working = False
                while left:
                    row = left[0]
                    if row.workers and not working:
                        system.start_workers(place)
                        working = True
                    words = _measure(system, row, place, choice, outcome)
                    told(number, system.name, row.name, words)
                    left.pop(0)
            except StartError as error:
                for row in left:
                    outcome.failed.setdefault(row.name, {})[system.name] = str(error)
                    told(number, system.name, row.name, f"failed: {error}")


def _measure(system: System, row: Row, place: Place, choice: Choice, outcome: Outcome) -> str:
    """Run one agent; note what came of it and return that in words."""
    answer = place.folder / "answer.json"
    answer.unlink(missing_ok=True)
    patience = row.patience[choice.full]
    order = {
        "row": row.name,
        "work": system.work,
        "count": choice.count,
        "seconds": row.seconds[choice.full],
        "patience": patience,
        "servers": place.servers,
        "full": choice.full,
    }
    environment = {**place.environment, "BENCH_CONFIRM": "1" if row.confirm else ""}
    name = f"agent-{row.name}"
    agent = place.children.start(
        [system.python, FOLDER / "agent.py", json.dumps(order), answer], name, environment, FOLDER
    )
    try:
        code: int | None = agent.wait(patience + AGENT_SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    place.children.end(agent)
    if code is None or code != 0 or not answer.exists():
        why = f"took more than {patience + AGENT_SECONDS:g} s" if code is None else _why(place, name)
        outcome.failed.setdefault(row.name, {})[system.name] = why
        return f"failed: {why}"
    told = json.loads(answer.read_text("utf-8"))
    if "absent" in told:
        outcome.absent.setdefault(row.name, {})[system.name] = told["absent"]
        return str(told["absent"])
    outcome.figures.setdefault(row.name, {}).setdefault(system.name, []).append(told["figures"])
    first = row.metrics[0]
    return f"{shown(told['figures'][first.name])} {first.unit}"


def _why(place: Place, name: str) -> str:
    """Return the last line that the agent wrote, and the workers' if it waited for them."""
    line = place.children.last_words(name)
    if "TimeoutError" not in line:
        return line
    return f"{line}; the workers' last line: {place.children.last_words('workers')}"
