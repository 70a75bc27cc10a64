"""`greenroom worker`: one worker node in this process."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import click
import msgspec

from ...transport.errors import GreenroomError
from ..cluster.config import DEFAULT_NAME, POOLS, NodeConfig
from ..cluster.node import NodeReady, run_node
from .logs import set_up_logging
from .output import broker_option

SECOND = 1_000_000


class Names(click.ParamType):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Cut at the commas."""
        if isinstance(value, list):
            return value
        return [name.strip() for name in str(value).split(",") if name.strip()]


class Concurrency(click.ParamType):
    """A number of processes, or "auto"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; "auto" is 0."""
        if str(value) == "auto":
            return 0
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)
        if number < 1:
            self.fail(f"{number} is less than 1", param, ctx)
        return number


@click.command()
@click.option("-A", "--app", default="", help="The application: module or module:attribute.")
@broker_option
@click.option(
    "-c",
    "--concurrency",
    type=Concurrency(),
    default="auto",
    show_default=True,
    help="Processes (or threads, or coroutines).",
)
@click.option("-P", "--pool", type=click.Choice(POOLS), default="prefork", show_default=True, help="How tasks run.")
@click.option(
    "-Q",
    "--queues",
    "--mailboxes",
    "mailboxes",
    type=Names(),
    default="",
    help="Mailboxes to serve, with commas. Default: the application's.",
)
@click.option(
    "-n",
    "--hostname",
    default=DEFAULT_NAME,
    show_default=True,
    help="The node's name; %h, %n, %d and %i are filled in.",
)
@click.option("-I", "--include", type=Names(), default="", help="Further modules to import, with commas.")
@click.option("-l", "--loglevel", default="INFO", show_default=True)
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=0),
    default=0,
    help="Replace a child after so many tasks; 0: never.",
)
@click.option(
    "--max-memory-per-child", type=click.IntRange(min=0), default=0, help="Replace a child above so many KiB; 0: never."
)
@click.option(
    "--time-limit", type=click.FloatRange(min=0), default=0.0, help="Hard limit of a task in seconds; 0: none."
)
@click.option(
    "--soft-time-limit", type=click.FloatRange(min=0), default=0.0, help="Soft limit of a task in seconds; 0: none."
)
@click.option(
    "--workdir", type=click.Path(exists=True, file_okay=False), default=None, help="Change to this folder first."
)
@click.option("--json", "as_json", is_flag=True, help="Print the banner as one line of JSON.")
def worker(**options: Any) -> None:
    """Run a worker node for an application's tasks and actors.

    TERM or Ctrl-C stops it warm: what runs is finished, the rest is handed back. A second Ctrl-C, or QUIT, stops it
    cold.
    """
    if not options["app"]:
        raise click.UsageError("A worker needs an application: -A module or -A module:attribute.")
    sys.exit(run_worker(options, b"", b""))


def run_worker(options: dict[str, Any], app_blob: bytes, signing_key: bytes) -> int:
    """Run a node by the options of `greenroom worker`; return its exit code."""
    set_up_logging(options["loglevel"])
    if options["workdir"]:
        os.chdir(options["workdir"])
    as_json: bool = options["as_json"]
    key = signing_key or os.environ.get("GREENROOM_SIGNING_KEY", "").encode()
    config = NodeConfig(
        app=options["app"],
        app_blob=app_blob,
        broker=options["broker"],
        name=options["hostname"],
        pool=options["pool"],
        concurrency=options["concurrency"],
        mailboxes=options["mailboxes"],
        loglevel=options["loglevel"].upper(),
        max_tasks=options["max_tasks_per_child"],
        max_memory_kib=options["max_memory_per_child"],
        time_limit=int(options["time_limit"] * SECOND),
        soft_time_limit=int(options["soft_time_limit"] * SECOND),
        modules=options["include"],
        path=[os.getcwd()],
        signing_key=key,
    )
    return run_node(config, on_ready=lambda ready: _banner(ready, as_json=as_json))


def run_for_app(app: Any, arguments: list[str]) -> int:
    """`app.worker_main(argv)`: the command line's worker for an application that stands in this process.

    It is sent by value where it cannot be imported, as a script's `__main__` cannot.
    """
    context = worker.make_context("worker", ["-A", app.main or "__main__", *arguments])
    options = dict(context.params)
    options["app"] = ""
    if context.get_parameter_source("broker") is not click.core.ParameterSource.COMMANDLINE:
        options["broker"] = _first_address(app.conf.broker_url)
    if app.signing_key is None:
        raise_for_unsigned(app)
    return run_worker(options, app.ship(), app.signing_key or b"")


def raise_for_unsigned(app: Any) -> None:
    """Give the application a key for this process alone, since it is shipped to our own children only."""
    import secrets

    app.signing_key = secrets.token_bytes(32)


def _first_address(url: Any) -> str:
    addresses = re.split(r"[;,]", url) if isinstance(url, str) else list(url)
    if not addresses or not addresses[0]:
        raise GreenroomError("the application names no broker; give broker= or -b")
    return str(addresses[0]).strip()


def _banner(ready: NodeReady, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({**msgspec.structs.asdict(ready), "pid": os.getpid()}).decode())
    else:
        click.echo(f"greenroom worker {ready.name}, pid {os.getpid()}")
        click.echo(f"  broker      {ready.broker}")
        click.echo(f"  runs        {ready.concurrency} at once, {ready.pool}")
        click.echo(f"  mailboxes   {', '.join(ready.mailboxes) or 'the default one of the application'}")
        tasks = [name for name in ready.tasks if not name.startswith("celery.")]
        click.echo("  tasks       " + ("\n              ".join(tasks) if tasks else "none of its own"))
        click.echo("  stop        Ctrl-C (twice: at once)")
    sys.stdout.flush()
