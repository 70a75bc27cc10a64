"""`greenroom worker`: one worker node in this process."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ...actors.connecting import addresses_of
from ...actors.worker.wishes import wish_of
from ...transport.errors import GreenroomError
from ..cluster.config import DEFAULT_NAME, NodeConfig
from ..cluster.logs import set_up_logging
from ..cluster.node import NodeReady, run_node
from .options import (
    Names,
    app_option,
    broker_option,
    concurrency_option,
    event_log_options,
    json_option,
    loglevel_option,
    mailboxes_option,
    pool_option,
    worker_shape,
)
from .output import fail, own_tasks, print_fields, print_json

if TYPE_CHECKING:
    from ...actors.app import App

SECOND = 1_000_000
EXIT_MISCONFIGURED = 2
#: Signals whose handlers cannot be set.
_FIXED_SIGNALS = {signal.SIGKILL, signal.SIGSTOP}


@click.command()
@app_option("The application, as a module or an attribute of one.")
@broker_option
@concurrency_option(None)
@pool_option
@mailboxes_option
@click.option(
    "-n",
    "--hostname",
    default=DEFAULT_NAME,
    show_default=True,
    metavar="NAME@HOST",
    help="The node's name; %h, %n, %d and %i are filled in.",
)
@click.option("-I", "--include", type=Names(), default="", help="Further modules to import, with commas.")
@event_log_options
@loglevel_option()
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Replace a child after so many tasks; 0: never.",
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(min=0),
    default=0,
    metavar="KIB",
    help="Replace a child above so many KiB; 0: never.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Hard limit of a task; 0: none.",
)
@click.option(
    "--soft-time-limit",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Soft limit of a task; 0: none.",
)
@click.option(
    "--workdir", type=click.Path(exists=True, file_okay=False), default=None, help="Change to this folder first."
)
@json_option("Print the banner as one line of JSON.")
def worker(**options: Any) -> None:
    """Run a worker node for an application's tasks and actors.

    TERM or Ctrl-C stops it warm: what runs is finished, the rest is handed back. A second Ctrl-C, or QUIT, stops it
    cold.
    """
    if not options["app"]:
        raise click.UsageError("A worker needs an application: -A module or -A module:attribute.")
    sys.exit(run_worker(options, b"", b""))


def run_worker(options: dict[str, Any], app_blob: bytes, signing_key: bytes) -> int:
    """Run a node by the options of `greenroom worker`; return its exit code.

    What `pool` and `concurrency` leave open (None) is the application's to say; its spawner asks it, and cannot ask
    one that is sent by value.
    """
    event_log = os.path.abspath(options["event_log"]) if options["event_log"] else ""
    if options["workdir"]:
        os.chdir(options["workdir"])
    set_up_logging(options["loglevel"].upper())
    as_json: bool = options["as_json"]
    key = signing_key or os.environ.get("GREENROOM_SIGNING_KEY", "").encode()
    config = NodeConfig(
        app=options["app"],
        app_blob=app_blob,
        broker=options["broker"],
        name=options["hostname"],
        **worker_shape(options["pool"], options["concurrency"]),
        mailboxes=options["mailboxes"],
        loglevel=options["loglevel"].upper(),
        max_tasks=options["max_tasks_per_child"],
        max_memory_kib=options["max_memory_per_child"],
        time_limit=int(options["time_limit"] * SECOND),
        soft_time_limit=int(options["soft_time_limit"] * SECOND),
        modules=options["include"],
        path=[os.getcwd()],
        signing_key=key,
        event_log=event_log,
        event_log_bytes=options["event_log_bytes"],
    )
    try:
        return run_node(config, on_ready=lambda ready: _banner(ready, as_json=as_json))
    except (GreenroomError, OSError) as error:
        fail(f"the worker could not start: {error}", EXIT_MISCONFIGURED)


def run_for_app(app: App, arguments: list[str]) -> int:
    """`app.worker_main(argv)`: the command line's worker for an application that stands in this process.

    It is sent by value where it cannot be imported, as a script's `__main__` cannot. The process's signals are its
    own again afterwards.
    """
    before = {number: signal.getsignal(number) for number in signal.valid_signals() - _FIXED_SIGNALS}
    try:
        context = worker.make_context("worker", list(arguments), obj=";".join(addresses_of(app.conf.broker_url)))
        if app.signing_key is None:
            # For this process alone: the application goes to children of its own.
            app.signing_key = secrets.token_bytes(32)
        options = {**context.params, "app": ""}
        wish = wish_of(app, [name for name in ("pool", "concurrency") if options[name] is None])
        if wish.wrong:
            raise click.UsageError(wish.wrong)
        options["pool"] = options["pool"] or wish.pool
        options["concurrency"] = wish.concurrency if options["concurrency"] is None else options["concurrency"]
        return run_worker(options, app.ship(), app.signing_key)
    except click.exceptions.Exit as done:
        # --help
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _banner(ready: NodeReady, *, as_json: bool) -> None:
    if as_json:
        print_json({**msgspec.structs.asdict(ready), "pid": os.getpid()}, one_line=True)
        return
    click.echo(f"greenroom worker {ready.name}, pid {os.getpid()}")
    print_fields(
        [
            ("broker", ready.broker),
            ("runs", f"{ready.concurrency} at once, {ready.pool}"),
            ("mailboxes", ", ".join(ready.mailboxes)),
            ("tasks", own_tasks(ready.tasks)),
            ("stop", "Ctrl-C (twice: at once)"),
        ]
    )
