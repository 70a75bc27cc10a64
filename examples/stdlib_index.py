"""Index the standard library of this Python, and lose nothing while workers are killed.

    python examples/stdlib_index.py            (or: make demo)

One task a file: it is parsed with `ast`, its definitions and identifiers are counted, and the counts are told to an
`Index` actor. On the way one worker process that runs a task is killed with SIGKILL from outside, and one message is a
poison that kills its process every time it runs. In the end the actor's answer is compared with a plain loop's.

Nothing may be lost and nothing may loop: the task that was killed runs again, the poison is set aside as a dead
letter after three deliveries, and every file is in the index once. The exit code is 0 only if all of that is so.
"""

from __future__ import annotations

import ast
import os
import random
import signal
import sys
import sysconfig
import time
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from greenroom import Actor, App, PoisonMessage

app = App("stdlib-index")

#: definitions, identifiers; (0, 0) with `readable` false for a file that is no valid Python of this version.
Counts = tuple[int, int, bool]
DEADLINE_SECONDS = 180.0


def count(path: str) -> Counts:
    """Count what a file defines and which names it uses."""
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return 0, 0, False
    definitions = identifiers = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            identifiers += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions += 1
    return definitions, identifiers, True


class Index(Actor):
    """Keeps the counts of each file, once: a task that ran twice changes nothing."""

    def __init__(self) -> None:
        self.files: dict[str, Counts] = {}

    def add(self, path: str, definitions: int, identifiers: int, readable: bool) -> None:
        """Take the counts of one file."""
        self.files[path] = (definitions, identifiers, readable)

    def totals(self) -> dict[str, int]:
        """Return how many files, definitions and identifiers are known."""
        return totals(list(self.files.values()))


def totals(counts: Sequence[Counts]) -> dict[str, int]:
    """Add counts up."""
    return {
        "files": len(counts),
        "definitions": sum(item[0] for item in counts),
        "identifiers": sum(item[1] for item in counts),
        "unreadable": sum(1 for item in counts if not item[2]),
    }


@app.task(acks_late=True, reject_on_worker_lost=True)
def index_file(path: str) -> str:
    """Count one file and tell the index."""
    definitions, identifiers, readable = count(path)
    app.ref(Index, "stdlib").tell(Index.add, path, definitions, identifiers, readable)
    return path


@app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=3)
def poison() -> None:
    """Kill the process that runs this, every time."""
    os.kill(os.getpid(), signal.SIGKILL)


def source_files() -> list[str]:
    """The standard library's files."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [str(path) for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]


#: What is shown of a worker process: its pid, what it is for, messages that it holds, and those of them that run.
Row = tuple[int, str, int, int]


class Display:
    """What is seen while it runs: a live panel on a terminal, a line now and then elsewhere."""

    #: Lines that the panel keeps free, so that it stays as high as it is.
    PROCESSES = 5
    EVENTS = 4

    def __init__(self, sent: int) -> None:
        self.sent = sent
        self.console = Console(highlight=False)
        self.events: list[str] = []
        self._live = Live(console=self.console, refresh_per_second=8) if self.console.is_terminal else None
        self._told = 0.0
        self._state: tuple[int, int, int, Sequence[Row]] = (0, 0, 0, [])

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, text: str) -> None:
        """Something happened that is worth a line."""
        self.events.append(text)
        if self._live is None:
            self.console.print(text)
        else:
            self._live.update(self._panel())

    def show(self, done: int, redelivered: int, dead: int, workers: Sequence[Row]) -> None:
        """Show where things stand."""
        self._state = (done, redelivered, dead, sorted(workers))
        if self._live is not None:
            self._live.update(self._panel())
        elif time.monotonic() - self._told > 5:
            self._told = time.monotonic()
            self.console.print(f"{done}/{self.sent} done, {redelivered} redelivered, {dead} dead")

    def _panel(self) -> Panel:
        done, redelivered, dead, workers = self._state
        table = Table(box=None, pad_edge=False)
        for column in ("worker process", "for", "holds", "runs"):
            table.add_column(column)
        for number in range(self.PROCESSES):
            row = workers[number] if number < len(workers) else ("", "", "", "")
            table.add_row(*map(str, row))
        events = self.events[-self.EVENTS :]
        head = f"{done:,} of {self.sent:,} files    redelivered {redelivered}    dead letters {dead}"
        bar = ProgressBar(total=self.sent, completed=done, width=60)
        body = Group(head, bar, "", table, "", *events, *[""] * (self.EVENTS - len(events)))
        return Panel(body, title="indexing the standard library", width=76)


def main() -> int:
    """Run the demonstration; return the exit code."""
    files = source_files()
    began = time.monotonic()
    # What the workers log of their deaths is shown in other words here.
    with app.run(workers=2, loglevel="CRITICAL") as cluster, Display(len(files)) as display:
        index = app.ref(Index, "stdlib")
        half = len(files) // 2
        results = index_file.send_many([(path,) for path in files[:half]])
        poisoned = poison.delay()
        results += index_file.send_many([(path,) for path in files[half:]])
        display.event(f"{len(files):,} tasks are accepted and on disk, and one poison among them")
        killed: int | None = None
        look_again = 0.0
        try:
            for done, _ in enumerate(app.ResultSet(results).iterate(DEADLINE_SECONDS, propagate=False), 1):
                if time.monotonic() < look_again and done < len(files):
                    continue
                look_again = time.monotonic() + 0.1
                status = cluster.status()
                children = [session for session in status.sessions if session.role == "child" and session.linked]
                rows = [(session.pid, session.kind, session.held, session.started) for session in children]
                display.show(done, status.redelivered, status.dead, rows)
                busy = [session.pid for session in children if session.kind == "pool" and session.started]
                if killed is None and busy and done > len(files) // 10:
                    killed = random.choice(busy)
                    os.kill(killed, signal.SIGKILL)
                    display.event(f"killed worker process {killed} in the middle of a task")
        except TimeoutError:
            display.event(f"gave up after {DEADLINE_SECONDS:g} s")
        try:
            poisoned.get(timeout=60)
            display.event("the poison came back without an error")
        except PoisonMessage:
            display.event("the poison was set aside after three deliveries")
        answer = index.ask(Index.totals).get(timeout=30)
        status = cluster.status()
        letters: list[str] = []
        for letter in cluster.dead_letters():
            ends = ", ".join(how_it_ended(attempt) for attempt in letter.attempts)
            letters.append(f"{letter.task}: {letter.deliveries} deliveries ({ends})")
        seconds = time.monotonic() - began
    print("Counting once more in a plain loop, to compare ...")
    expected = totals([count(path) for path in files])
    done = sum(1 for result in results if result.successful())
    return report(len(files), done, status.redelivered, letters, answer, expected, seconds, killed)


def how_it_ended(attempt: Any) -> str:
    """Say how an attempt ended its process."""
    return f"signal {attempt.signal}" if attempt.signal else f"exit {attempt.exit_code}"


def report(
    sent: int,
    done: int,
    redelivered: int,
    letters: Sequence[str],
    answer: dict[str, int],
    expected: dict[str, int],
    seconds: float,
    killed: int | None,
) -> int:
    """Print the end, and say by the exit code whether everything is as it should be."""
    console = Console(highlight=False)
    lost = sent - done
    table = Table(title=f"{sent:,} files in {seconds:.1f} s", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("sent (with the poison)", sent + 1),
        ("done", done),
        ("redelivered", redelivered),
        ("dead", len(letters)),
        ("lost", lost),
    ):
        table.add_row(name, f"{value:,}")
    console.print(table)
    counts = Table(box=None, pad_edge=False)
    counts.add_column("")
    for name in expected:
        counts.add_column(name, justify="right")
    counts.add_row("the index says", *(f"{value:,}" for value in answer.values()))
    counts.add_row("a plain loop", *(f"{value:,}" for value in expected.values()))
    console.print(counts)
    for letter in letters:
        console.print(f"dead letter     {letter}")
    problems: list[str] = []
    if lost:
        problems.append(f"{lost} tasks are lost")
    if answer != expected:
        problems.append("the index is not what a plain loop counts")
    if len(letters) != 1 or not letters[0].startswith(f"{poison.name}: 3 deliveries"):
        problems.append("the poison, and nothing else, should be a dead letter")
    if killed is None:
        problems.append("no worker could be killed in the middle of a task")
    for problem in problems:
        console.print(f"[red]wrong: {problem}[/red]")
    if not problems:
        console.print("Nothing was lost and nothing looped. To look around in a cluster of your own:")
        console.print("  greenroom dev -A examples.stdlib_index    a broker and a worker")
        console.print("  greenroom status, mailboxes, dead ls      what they do")
        console.print("  greenroom dead show ID, dead redrive ID   a dead letter's story; another try")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
