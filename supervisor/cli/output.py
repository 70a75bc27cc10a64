"""What the verbs print: a table for people, JSON with --json, and the options that several verbs share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_BROKER = "tcp://127.0.0.1:5670"


def json_option(function: F) -> F:
    """Every verb has --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def broker_option(function: F) -> F:
    """Where the broker is."""
    return click.option(
        "-b",
        "--broker",
        envvar="GREENROOM_BROKER",
        default=DEFAULT_BROKER,
        show_default=True,
        show_envvar=True,
        help="The broker's address.",
    )(function)


def timeout_option(function: F) -> F:
    """How long to wait for the broker."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0.05),
        default=4.0,
        show_default=True,
        help="Seconds to wait for an answer.",
    )(function)


def print_json(value: Any) -> None:
    """Print a value (structs, lists, dicts, plain values) as JSON."""
    plain = msgspec.to_builtins(value, str_keys=True)
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", empty: str = "") -> None:
    """Print a table; `empty` in its place when there is no row. Numbers stand to the right."""
    if not rows and empty:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not markup: names and errors come from users.
        table.add_row(*(Text(_cell(value)) for value in row))
    width = None if os.isatty(1) else 160
    Console(width=width, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def seconds_ago(value: float, now: float) -> str:
    """An age in words: 42 s, 3 min, 2 h, 5 d; '-' for a time that never was."""
    if not value:
        return "-"
    age = max(0.0, now - value)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * size:
            return f"{age / size:.0f} {unit}"
    return f"{age:.0f} s"


def fail(message: str, code: int = 1) -> None:
    """Say what is wrong, and exit."""
    click.echo(f"greenroom: {message}", err=True)
    raise SystemExit(code)
