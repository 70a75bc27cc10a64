"""What the verbs print: tables and texts that fit the terminal, JSON with --json, errors in words."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import click
import msgspec

#: Click leaves colours to terminals; this leaves them to those who want them.
COLOR = False if os.environ.get("NO_COLOR") else None


def print_json(value: Any, *, one_line: bool = False, err: bool = False) -> None:
    """Print a value (structs, lists, dicts, plain values; anything else as text) as JSON; `err`: to stderr."""
    plain = _finite(msgspec.to_builtins(value, str_keys=True, enc_hook=str))
    click.echo(json.dumps(plain, indent=None if one_line else 2, ensure_ascii=False, allow_nan=False), err=err)


def _finite(value: Any) -> Any:
    """JSON has no word for infinities and for what is no number: they become texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_finite(item) for item in cast("list[object]", value)]
    return value


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str, notes: Sequence[str] = ()
) -> None:
    """Print a table; `empty` in its place when it has no row.

    `notes` has a text for each row: on a terminal it stands under the row, elsewhere behind it.
    """
    if not rows:
        click.echo(empty)
        return
    from .table import printable, table_lines

    terminal = terminal_width()
    if notes and not terminal:
        columns = [*columns, "note"]
        rows = [[*row, note] for row, note in zip(rows, notes, strict=True)]
    head, *bodies = table_lines(columns, rows, terminal)
    for line in head:
        click.secho(line, bold=True, color=COLOR)
    for index, body in enumerate(bodies):
        for line in body:
            click.echo(line)
        if notes and terminal:
            click.secho(filled(printable(notes[index]), "    "), dim=True, color=COLOR)


def print_fields(fields: Sequence[tuple[str, str | Sequence[str]]]) -> None:
    """Print names and what they stand for, one below the other; several texts of a name below each other."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        for index, text in enumerate([value] if isinstance(value, str) else value or ["none"]):
            click.echo(filled(text, f"  {'' if index else name:<{width}}  "))
    sys.stdout.flush()


def own_tasks(names: list[str]) -> list[str]:
    """Return the tasks of an application without those that each one has."""
    return [name for name in names if not name.startswith("celery.")]


def filled(text: str, head: str = "") -> str:
    """Return a text behind a head, in lines that are as wide as the terminal; elsewhere in one."""
    terminal = terminal_width()
    if not terminal:
        return head + text
    return textwrap.fill(
        text,
        max(terminal, len(head) + 20),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )


def terminal_width() -> int:
    """Return how many columns the terminal has that stdout is; 0 if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def duration(seconds: float) -> str:
    """Return a time in words: 42 s, 3 min, 2 h, 5 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def seconds_ago(value: float, now: float) -> str:
    """Return an age in words; '-' for a time that never was."""
    return duration(now - value) if value else "-"


def say(message: str, *, color: str | None = None) -> None:
    """Say something beside the answer, on stderr."""
    click.secho(f"greenroom: {message}", err=True, fg=color, color=COLOR)


def confirm(question: str) -> None:
    """Ask a yes-or-no question on the terminal; exit unless the answer is yes, or where there is nobody to ask."""
    if not sys.stdin.isatty():
        fail("this cannot be undone, and there is no terminal to ask on; say --force if you mean it")
    if not click.confirm(question, err=True):
        fail("nothing was done")


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong, and exit."""
    say(message, color="red")
    raise SystemExit(code)
