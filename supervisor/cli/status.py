"""`greenroom status` and `greenroom mailboxes`: how the broker is, and what waits where."""

from __future__ import annotations

import click

from ...transport import requests
from ...transport.verbs import Op
from .asking import ORIGIN, ask
from .options import broker_option, json_option, timeout_option
from .output import duration, print_json, print_table

#: Names of mailboxes that are shown of one session: a worker may serve hundreds.
MAILBOXES_SHOWN = 3


@click.command()
@broker_option
@timeout_option
@json_option()
def status(broker: str, timeout: float, as_json: bool) -> None:
    """Show the broker and who is attached to it.

    Slots: how many tasks it runs at once. Held: messages that are out with it, of which so many are running.
    """
    answer: requests.Status = ask(broker, Op.STATUS, requests.StatusRequest(), timeout)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer.broker} at {broker}, up {duration(answer.uptime_seconds)}, epoch {answer.epoch}")
    click.echo(
        f"  accepted {answer.accepted:,}  settled {answer.settled:,}  redelivered {answer.redelivered:,}  "
        f"refused {answer.refused:,}  dead letters {answer.dead:,}"
    )
    if answer.store_full:
        click.secho("  The disk is full: new messages are refused until there is room.", fg="red", bold=True)
    click.echo()
    # Whoever asks is attached as well, and means nothing to the reader.
    sessions = [session for session in answer.sessions if session.node != ORIGIN]
    print_table(
        ["attached", "pid", "slots", "held", "running", "mailboxes"],
        [_row(session) for session in _by_node(sessions)],
        empty="Nobody else is attached.",
    )
    for session in sessions:
        if session.trouble:
            click.secho(f"  {session.node}: {session.trouble}", fg="red", bold=True)


def _by_node(sessions: list[requests.SessionInfo]) -> list[requests.SessionInfo]:
    """Nodes with their children below them, then the others."""

    def place(session: requests.SessionInfo) -> tuple[bool, str, str, bool, int]:
        parent, _, number = session.session.rpartition("/")
        is_child = session.role == "child"
        of_node = is_child or session.role == "node"
        return (
            not of_node,
            session.node,
            parent if is_child else session.session,
            is_child,
            int(number) if is_child and number.isdigit() else 0,
        )

    return sorted(sessions, key=place)


def _row(session: requests.SessionInfo) -> list[object]:
    lost = "" if session.linked else " (lost)"
    mailboxes = ", ".join(session.mailboxes[:MAILBOXES_SHOWN])
    if len(session.mailboxes) > MAILBOXES_SHOWN:
        mailboxes += f" and {len(session.mailboxes) - MAILBOXES_SHOWN} more"
    if session.role == "child":
        kind = "child" if session.kind == "pool" else f"{session.kind} child"
        return [f"  {kind}{lost}", session.pid, session.slots, session.held, session.started, mailboxes]
    name = session.node or session.session
    where = "" if name.endswith(f"@{session.host}") or not session.host else f" on {session.host}"
    what = "" if session.role == "node" else f", a {session.role}"
    return [f"{name}{where}{what}{lost}", session.pid, None, None, None, mailboxes]


@click.command()
@click.argument("names", nargs=-1)
@broker_option
@timeout_option
@json_option()
def mailboxes(names: tuple[str, ...], broker: str, timeout: float, as_json: bool) -> None:
    """List mailboxes with their counts: all of them, or NAMES.

    Of the messages that wait, some are ready, some scheduled for later; of those that are out with a worker, some are
    only acquired, some started. Depth counts them all.
    """
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
            duration(info.oldest_age_seconds) if info.oldest_age_seconds else "-",
            info.consumers,
            info.dead,
        ]
        for info in answer.mailboxes
    ]
    print_table(
        ["mailbox", "ready", "scheduled", "acquired", "started", "depth", "oldest", "consumers", "dead"],
        rows,
        empty=f"Nothing was ever sent to {', '.join(names)}." if names else "No mailbox has been used yet.",
    )
