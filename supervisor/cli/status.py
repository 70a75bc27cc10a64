"""`greenroom status` and `greenroom mailboxes`: how the broker is, and what waits where."""

from __future__ import annotations

import click

from ...transport import requests
from ...transport.verbs import Op
from .asking import ask
from .output import broker_option, json_option, print_json, print_table, timeout_option


@click.command()
@broker_option
@timeout_option
@json_option
def status(broker: str, timeout: float, as_json: bool) -> None:
    """Show the broker and who is attached to it."""
    answer: requests.Status = ask(broker, Op.STATUS, requests.StatusRequest(), timeout)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer.broker} at {broker}, up {answer.uptime_seconds:.0f} s, epoch {answer.epoch}")
    click.echo(
        f"  accepted {answer.accepted:,}  settled {answer.settled:,}  redelivered {answer.redelivered:,}  "
        f"refused {answer.refused:,}  dead letters {answer.dead:,}"
    )
    if answer.store_full:
        click.secho("  The disk is full: new messages are refused until there is room.", fg="red", bold=True)
    rows = [
        [
            session.node or session.session,
            session.role if session.role != "child" else f"child ({session.kind})",
            session.host,
            session.pid,
            ", ".join(session.mailboxes),
            session.slots,
            session.held,
            session.started,
            "yes" if session.linked else "no",
        ]
        for session in answer.sessions
    ]
    print_table(
        ["node", "role", "host", "pid", "mailboxes", "slots", "held", "running", "linked"],
        rows,
        empty="Nobody is attached.",
    )


@click.command()
@click.argument("names", nargs=-1)
@broker_option
@timeout_option
@json_option
def mailboxes(names: tuple[str, ...], broker: str, timeout: float, as_json: bool) -> None:
    """List mailboxes with their counts: all of them, or NAMES."""
    answer: requests.MailboxList = ask(broker, Op.MAILBOXES, requests.Mailboxes(list(names)), timeout)
    if as_json:
        print_json(answer.mailboxes)
        return
    rows = [
        [
            info.name,
            info.ready,
            info.scheduled,
            info.acquired,
            info.started,
            info.depth,
            f"{info.oldest_age_seconds:.1f} s" if info.oldest_age_seconds else "-",
            info.consumers,
            info.dead,
        ]
        for info in answer.mailboxes
    ]
    print_table(
        ["mailbox", "ready", "scheduled", "acquired", "started", "depth", "oldest", "consumers", "dead"],
        rows,
        empty="No mailbox has been used yet.",
    )
