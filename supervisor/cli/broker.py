"""`greenroom broker`."""

from __future__ import annotations

import os
import sys

import click

from ...transport.broker.settings import BrokerSettings
from ...transport.errors import GreenroomError
from ...transport.verbs import Durability
from ..cluster.broker import DEFAULT_ADDRESS, DEFAULT_DATA, BrokerConfig, run_broker
from .logs import set_up_logging

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
@click.option("-l", "--loglevel", default="INFO", show_default=True, help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
@click.option("--json", "as_json", is_flag=True, help="Print the banner as one line of JSON.")
def broker(
    bind: tuple[str, ...],
    data: str,
    store: str,
    name: str,
    max_messages: int,
    on_full: str,
    durability: str,
    result_expires: float,
    loglevel: str,
    as_json: bool,
) -> None:
    """Run a broker: it owns the mailboxes, keeps them on disk and hands messages to workers.

    TERM or Ctrl-C stops it in order; whatever was confirmed is on disk at any moment.
    """
    set_up_logging(loglevel)
    settings = BrokerSettings(
        mailbox_max_messages=max_messages,
        mailbox_on_full=on_full,
        durability=Durability[durability.upper()],
        result_ttl=int(result_expires * SECOND),
    )
    config = BrokerConfig(bind=bind, data=data, store=store, name=name, settings=settings)

    def ready(address: str) -> None:
        if as_json:
            import json

            click.echo(json.dumps({"address": address, "pid": os.getpid(), "data": os.path.abspath(data)}))
        else:
            where = store or os.path.abspath(data)
            click.echo(f"greenroom broker, pid {os.getpid()}")
            click.echo(f"  listens on  {address}")
            click.echo(f"  keeps       {where}, each message safe against {_survives(durability)}")
            click.echo(f"  mailboxes   up to {max_messages:,} messages each, then {on_full}")
            click.echo("  stop        Ctrl-C")
        sys.stdout.flush()

    try:
        code = run_broker(config, on_ready=ready)
    except (GreenroomError, OSError) as error:
        click.echo(f"greenroom: the broker could not start: {error}", err=True)
        code = 2
    sys.exit(code)


def _survives(durability: str) -> str:
    return {"memory": "nothing", "process": "a crash of the broker", "disk": "a loss of power"}[durability]
