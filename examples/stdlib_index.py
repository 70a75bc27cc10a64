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

from greenroom import Actor, App

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


def busy_children(cluster: Any) -> list[int]:
    """Process ids of pool children that run a task now."""
    return [
        session.pid
        for session in cluster.status().sessions
        if session.role == "child" and session.kind == "pool" and session.started
    ]


class Display:
    """What is seen while it runs: a live panel on a terminal, a line now and then elsewhere."""

    def __init__(self, sent: int) -> None:
        from rich.console import Console
        from rich.live import Live

        self.sent = sent
        self.console = Console()
        self.events: list[str] = []
        self._live = Live(console=self.console, refresh_per_second=8) if self.console.is_terminal else None
        self._told = 0.0

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

    def show(self, done: int, status: Any) -> None:
        """Show where things stand."""
        workers = [session for session in status.sessions if session.role == "child" and session.linked]
        if self._live is None:
            if time.monotonic() - self._told > 5:
                self._told = time.monotonic()
                self.console.print(f"{done}/{self.sent} done, {status.redelivered} redelivered, {status.dead} dead")
            return
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("worker process", "for", "holds", "runs"):
            table.add_column(column)
        for session in sorted(workers, key=lambda session: (session.kind, session.pid)):
            table.add_row(str(session.pid), session.kind, str(session.held), str(session.started))
        head = f"{done:,} of {self.sent:,} files    redelivered {status.redelivered}    dead letters {status.dead}"
        lines: list[Any] = [
            head,
            ProgressBar(total=self.sent, completed=done, width=60),
            "",
            table,
            "",
            *self.events[-4:],
        ]
        self._live.update(Panel(Group(*lines), title="indexing the standard library", width=76))


def main() -> int:
    """Run the demonstration; return the exit code."""
    files = source_files()
    began = time.monotonic()
    with app.run(workers=2) as cluster:
        index = app.ref(Index, "stdlib")
        half = len(files) // 2
        results = index_file.send_many([(path,) for path in files[:half]])
        poisoned = poison.delay()
        results += index_file.send_many([(path,) for path in files[half:]])
        killed: int | None = None
        with Display(len(files)) as display:
            display.event(f"{len(files):,} tasks are accepted and on disk, and one poison among them")
            pending = list(results)
            while pending:
                pending = [result for result in pending if not result.ready()]
                done = len(files) - len(pending)
                status = cluster.status()
                display.show(done, status)
                if killed is None and done > len(files) // 10:
                    busy = busy_children(cluster)
                    if busy:
                        killed = random.choice(busy)
                        os.kill(killed, signal.SIGKILL)
                        display.event(f"killed worker process {killed} in the middle of a task")
                if time.monotonic() - began > DEADLINE_SECONDS:
                    display.event(f"gave up: {len(pending)} tasks are not done after {DEADLINE_SECONDS:g} s")
                    break
                time.sleep(0.1)
            try:
                poisoned.get(timeout=60)
                display.event("the poison came back without an error")
            except Exception as error:
                # What it should be: a PoisonMessage that tells how often it was tried.
                display.event(f"the poison was set aside: {type(error).__name__}")
            answer = index.ask(Index.totals).get(timeout=30)
            status = cluster.status()
            letters = cluster.dead_letters()
            seconds = time.monotonic() - began
    done = sum(1 for result in results if result.successful())
    expected = totals([count(path) for path in files])
    return report(len(files), done, status.redelivered, letters, answer, expected, seconds, killed)


def report(
    sent: int,
    done: int,
    redelivered: int,
    letters: Sequence[Any],
    answer: dict[str, int],
    expected: dict[str, int],
    seconds: float,
    killed: int | None,
) -> int:
    """Print the end, and say by the exit code whether everything is as it should be."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    lost = sent - done
    table = Table(title=f"{sent:,} files in {seconds:.1f} s", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in (
        ("sent (with the poison)", sent + 1),
        ("done", done),
        ("redelivered", redelivered),
        ("dead", len(letters)),
        ("lost", lost),
    ):
        table.add_row(name, f"{value:,}")
    console.print(table)
    console.print(f"the index says  {answer}")
    console.print(f"a plain loop    {expected}")
    for letter in letters:
        ends = ", ".join(
            f"signal {item.signal}" if item.signal else f"exit {item.exit_code}" for item in letter.attempts
        )
        console.print(f"dead letter     {letter.task}: {letter.deliveries} deliveries ({ends})")
    problems: list[str] = []
    if lost:
        problems.append(f"{lost} tasks are lost")
    if answer != expected:
        problems.append("the index is not what a plain loop counts")
    if [letter.task for letter in letters] != [poison.name]:
        problems.append("the poison, and nothing else, should be a dead letter")
    if killed is None:
        problems.append("no worker could be killed in the middle of a task")
    for problem in problems:
        console.print(f"[red]wrong: {problem}[/red]")
    if not problems:
        console.print("Nothing was lost and nothing looped. To look around in a cluster of your own:")
        console.print("  greenroom dev -A examples.stdlib_index      a broker and a worker")
        console.print("  greenroom status | mailboxes | dead ls      what they do")
        console.print("  greenroom dead show ID | redrive ID         the story of a dead letter, and another try")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
