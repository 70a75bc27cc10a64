"""`greenroom check-log`: the invariants of the test harness over the event log of a real cluster."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from .options import json_option
from .output import fail, filled, print_json, print_table

EXIT_VIOLATED = 1
EXIT_UNREADABLE = 2
#: As `supervisor.harness.log_check` has it.
REMEMBERED = 200_000


@click.command("check-log")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--remember",
    type=click.IntRange(min=1),
    default=REMEMBERED,
    show_default=True,
    metavar="N",
    help="Know so many messages at once, at about 1.5 KB each; those that ended are forgotten first.",
)
@json_option()
def check_log(files: tuple[Path, ...], remember: int, as_json: bool) -> None:
    """Judge event logs (broker, worker: --event-log) by the promises that events suffice for.

    Several FILEs are taken for the logs of one cluster. The exit code is 0 if nothing is broken, 1 if a promise is,
    and 2 if there is no log in a file, or lines of it cannot be read.
    """
    # Only here: nobody else on the command line needs the harness.
    from ..harness.log_check import check_logs
    from ..harness.log_reader import Unreadable

    try:
        verdict = check_logs(files, messages_max=remember)
    except Unreadable as error:
        fail(str(error), EXIT_UNREADABLE)
    if as_json:
        print_json({**msgspec.structs.asdict(verdict), "vacuous": verdict.vacuous})
    else:
        click.echo(f"{verdict.events:,} events")
        print_table(
            ["promise", "occasions"],
            [[judged.name, judged.premises] for judged in verdict.invariants],
            notes=[judged.sentence for judged in verdict.invariants],
            empty="",
        )
        for note in verdict.notes:
            click.echo(filled(note))
        if verdict.vacuous:
            click.echo(filled(f"Nothing is said of {', '.join(verdict.vacuous)}: there was no occasion to break them."))
        click.echo(verdict.violation.text() if verdict.violation is not None else "No promise is broken.")
    if verdict.violation is not None:
        raise SystemExit(EXIT_VIOLATED)
    if verdict.bad_lines:
        raise SystemExit(EXIT_UNREADABLE)
