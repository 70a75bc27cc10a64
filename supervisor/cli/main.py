"""`greenroom`: the group of all verbs, which imports a verb only when it is used.

`greenroom --help` answers within 200 ms (a test holds it to that), so the table below has each verb's module and its
line of help, and nothing else of the project is imported here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

#: verb -> (module beside this one, attribute, line of help)
VERBS: dict[str, tuple[str, str, str]] = {
    "broker": ("broker", "broker", "Run a broker: it owns the mailboxes and keeps them on disk."),
    "worker": ("worker", "worker", "Run a worker node for an application's tasks and actors."),
    "dev": ("dev", "dev", "Run a broker and a worker together, and reload on changes."),
    "run": ("run", "run", "Run a script with an embedded cluster around it."),
    "call": ("call", "call", "Send a task by name."),
    "result": ("call", "result", "Show the result of a task."),
    "status": ("status", "status", "Show the broker and who is attached to it."),
    "mailboxes": ("status", "mailboxes", "List mailboxes with their counts."),
    "dead": ("dead", "dead", "List, show, redrive or purge dead letters."),
    "purge": ("purge", "purge", "Drop what waits in a mailbox."),
    "check-log": ("check_log", "check_log", "Judge a cluster's event log by what is promised."),
    "report": ("report", "report", "Print versions and settings for a bug report."),
}

#: Exit codes: 0 done, 1 it failed, 2 the command line is wrong.
EXIT_FAILED = 1


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f".{entry[0]}", __package__)
        command = getattr(module, entry[1])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, entry[2]) for verb, entry in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what was probably meant when there is no such verb."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no verb {args[0]!r}.{hint} `greenroom --help` lists them.")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"greenroom {version('greenroom')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each verb has --help and --json. To complete verbs and options in the shell: "
    'eval "$(_GREENROOM_COMPLETE=bash_source greenroom)", or zsh_source or fish_source.',
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Greenroom: durable tasks and actors, supervised.

    Start with `greenroom dev -A module:app`, or with a broker and workers of their own.
    """


def run(argv: Sequence[str] | None = None, *, broker: str = "") -> int:
    """Run the command line; return its exit code. Errors of ours are printed in words, without a traceback.

    `broker` is the address for verbs that are given none.
    """
    try:
        cli.main(args=argv if argv is None else list(argv), prog_name="greenroom", obj=broker)
    except SystemExit as end:
        # Also what click itself has said.
        return end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
    except BrokenPipeError:
        # The reader of our output left: nobody to tell, and nothing to flush at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        # Imported here, since who asks for help does without. Whatever is not ours is shown with its traceback.
        from ...transport.errors import GreenroomError
        from .output import say

        if not isinstance(error, GreenroomError):
            raise
        say(str(error), color="red")
        return EXIT_FAILED
    return 0


def main() -> None:
    """Run the command line for this process."""
    sys.exit(run())
