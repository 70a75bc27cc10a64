"""Measure Greenroom and the peers that are installed, alternating: `benchmarks/run.py --help`.

`make bench` is this. What each row means stands in rows/, what each system is in systems/, how to install the peers
in README.md.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

import machine
import table
from contract import FOLDER
from processes import adopt_orphans, sweep
from rows import ROWS
from runner import Choice, run
from systems import SYSTEMS, USUAL

#: Of the table, where the output is no terminal.
COLUMNS = 120
ROUNDS = 3
ROUNDS_FULL = 5
JSON_FILE = FOLDER / "latest.json"
#: A folder that is on a disk: /tmp is in memory on many machines, where a sync costs nothing.
DISK = Path("/var/tmp")


Check = Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[str, ...]]


def some_of(known: Collection[str]) -> Check:
    """Return what reads an option that takes names, with commas between them or given more than once."""

    def check(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name for value in values for name in value.replace(",", " ").split())
        for name in names:
            if name not in known:
                raise click.BadParameter(f"expected some of {', '.join(known)}; got {name!r}", ctx, param)
        return names

    return check


@click.command(context_settings={"max_content_width": 110})
@click.option("--rows", multiple=True, callback=some_of(ROWS), help=f"Rows, of: {', '.join(ROWS)}. Default: all.")
@click.option(
    "--systems",
    multiple=True,
    callback=some_of(SYSTEMS),
    help=f"Systems, of: {', '.join(SYSTEMS)}. Default: all but greenroom-process.",
)
@click.option("--rounds", type=click.IntRange(min=1), help=f"Default: {ROUNDS}; with --full {ROUNDS_FULL}.")
@click.option("--n", "count", type=click.IntRange(min=1), help="Calls in a measurement. Default: by time.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), default=JSON_FILE)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=DISK if DISK.is_dir() else Path(tempfile.gettempdir()),
    show_default=True,
    help="Where the temporary folders of brokers and servers are made: its disk is measured.",
)
@click.option("--full", is_flag=True, help="Measure longer, more rounds, ten million messages waiting.")
def main(
    rows: tuple[str, ...],
    systems: tuple[str, ...],
    rounds: int | None,
    count: int | None,
    json_file: Path,
    folder: Path,
    full: bool,
) -> None:
    """Measure Greenroom and the peers that are installed, alternating; print a table and write JSON."""
    choice = Choice(
        rows=[row for name, row in ROWS.items() if name in (rows or ROWS)],
        systems=[system for name, system in SYSTEMS.items() if name in (systems or USUAL)],
        rounds=rounds or (ROUNDS_FULL if full else ROUNDS),
        count=count,
        full=full,
        folder=folder,
    )
    # What is piped is not cut to the 80 columns of a terminal that is not there.
    console = Console() if sys.stdout.isatty() else Console(width=COLUMNS)
    facts = machine.facts(folder)

    def told(number: int, system: str, row: str, words: str) -> None:
        click.echo(f"round {number} of {choice.rounds}  {system:16} {row:11} {words}", err=True)

    outcome = run(choice, told)
    json_file.write_text(json.dumps(table.as_json(choice, outcome, facts), indent=1) + "\n", "utf-8")
    table.show(console, choice, outcome, facts, json_file)
    if any(table.OURS in whys for whys in outcome.failed.values()):
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """TERM is met like Ctrl-C: what was started is stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    adopt_orphans()
    try:
        main()
    finally:
        sweep()
