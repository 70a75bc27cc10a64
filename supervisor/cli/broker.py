"""`greenroom broker`."""

from __future__ import annotations

import os
import sys

import click

from ...transport.broker.settings import BrokerSettings
from ...transport.errors import GreenroomError
from ...transport.verbs import Durability
from ..cluster.broker import DEFAULT_ADDRESS, DEFAULT_DATA, EXIT_NOT_STARTED, BrokerConfig, run_broker
from ..cluster.logs import set_up_logging
from .options import event_log_options, json_option, loglevel_option
from .output import fail, print_fields, print_json

SECOND = 1_000_000


@click.command()
@click.option(
    "--bind",
    multiple=True,
    default=[DEFAULT_ADDRESS],
    show_default=True,
    help="Address to listen on: tcp://HOST:PORT (port 0: a free one) or ipc://PATH. May be given several times.",
)
@click.option("--data", default=DEFAULT_DATA, show_default=True, help="Folder of the mailboxes.", type=click.Path())
@click.option("--store", default="", help="Another store, as a URL: sqlite:///PATH or memory://.")
@click.option("--name", default="", help="The broker's name. Default: broker@HOST.")
@click.option(
    "--max-messages",
    type=click.IntRange(min=1),
    default=10_000_000,
    show_default=True,
    help="Messages a mailbox may hold.",
)
@click.option(
    "--on-full",
    type=click.Choice(["reject", "block"]),
    default="reject",
    show_default=True,
    help="At that limit: refuse the call, or let it wait until its timeout.",
)
@click.option(
    "--durability",
    type=click.Choice(["memory", "process", "disk"]),
    default="disk",
    show_default=True,
    help="What an accepted message survives: nothing, a crash of the broker, a loss of power.",
)
@click.option(
    "--result-expires",
    type=click.FloatRange(min=0),
    default=86_400.0,
    show_default=True,
    help="Seconds to keep results; 0: for ever.",
)
@event_log_options
@loglevel_option()
@json_option("Print the banner as one line of JSON.")
def broker(
    bind: tuple[str, ...],
    data: str,
    store: str,
    name: str,
    max_messages: int,
    on_full: str,
    durability: str,
    result_expires: float,
    event_log: str,
    event_log_bytes: int,
    loglevel: str,
    as_json: bool,
) -> None:
    """Run a broker: it owns the mailboxes, keeps them on disk and hands messages to workers.

    TERM or Ctrl-C stops it in order; whatever was confirmed is on disk at any moment.
    """
    set_up_logging(loglevel.upper())
    settings = BrokerSettings(
        mailbox_max_messages=max_messages,
        mailbox_on_full=on_full,
        durability=Durability[durability.upper()],
        result_ttl=int(result_expires * SECOND),
    )
    config = BrokerConfig(
        bind=bind,
        data=data,
        store=store,
        name=name,
        settings=settings,
        event_log=event_log,
        event_log_bytes=event_log_bytes,
    )

    def ready(address: str) -> None:
        if as_json:
            print_json({"address": address, "pid": os.getpid(), "data": os.path.abspath(data)}, one_line=True)
            return
        click.echo(f"greenroom broker, pid {os.getpid()}")
        print_fields(
            [
                ("listens on", address),
                ("keeps", _keeps(store, data, durability)),
                ("mailboxes", f"up to {max_messages:,} messages each, then {on_full}"),
                ("stop", "Ctrl-C"),
            ]
        )

    try:
        code = run_broker(config, on_ready=ready)
    except (GreenroomError, OSError) as error:
        fail(f"the broker could not start: {error}", EXIT_NOT_STARTED)
    sys.exit(code)


def _keeps(store: str, data: str, durability: str) -> str:
    if store.startswith("memory:"):
        return "nothing: its messages are in memory, and gone when it ends"
    survives = {"memory": "nothing", "process": "a crash of the broker", "disk": "a loss of power"}[durability]
    return f"{store or os.path.abspath(data)}, each message safe against {survives}"
