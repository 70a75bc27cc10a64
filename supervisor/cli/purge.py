"""`greenroom purge`: drop what waits in a mailbox."""

from __future__ import annotations

import click

from ...transport import requests
from ...transport.verbs import Op
from .asking import ask
from .options import broker_option, json_option, timeout_option
from .output import confirm, print_json


@click.command()
@click.argument("mailbox")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--state", is_flag=True, help="Of an actor's mailbox: take its durable state away, too.")
@broker_option
@timeout_option
@json_option()
def purge(mailbox: str, force: bool, state: bool, broker: str, timeout: float, as_json: bool) -> None:
    """Drop every message of MAILBOX that is not out with a worker. This cannot be undone."""
    if not force:
        known: requests.MailboxList = ask(broker, Op.MAILBOXES, requests.Mailboxes([mailbox]), timeout)
        waiting = sum(info.ready + info.scheduled for info in known.mailboxes)
        also = ", and the state of its actor" if state else ""
        confirm(f"Drop {waiting:,} messages of mailbox {mailbox!r}{also}?")
    answer: requests.Count = ask(broker, Op.PURGE, requests.PurgeMailbox(mailbox, state), timeout)
    if as_json:
        print_json({"mailbox": mailbox, "purged": answer.count})
    else:
        click.echo(f"{answer.count:,} messages of {mailbox!r} dropped.")
