"""`greenroom dead`: the messages that were set aside, why, and what to do with them."""

from __future__ import annotations

import time
from typing import Any

import click

from ...transport import requests
from ...transport.payload import Body, decode
from ...transport.verbs import Op
from .asking import ask
from .output import broker_option, fail, json_option, print_json, print_table, seconds_ago, timeout_option

#: Words before the colon of --filter.
FILTERS = ("task", "mailbox", "id")


@click.group()
def dead() -> None:
    """List, show, redrive or purge dead letters.

    A message becomes a dead letter when its deliveries ended badly as often as max_deliveries allows.
    """


def _filter(ids: tuple[str, ...], everything: bool, filters: tuple[str, ...], verb: str) -> requests.DeadFilter:
    """Which letters are meant. Raises a usage error when nothing, or too much, was said."""
    chosen = requests.DeadFilter(ids=list(ids), limit=requests.LIST_MAX)
    for text in filters:
        word, colon, value = text.partition(":")
        if not colon or word not in FILTERS or not value:
            raise click.UsageError(f"--filter takes task:NAME, mailbox:NAME or id:ID, not {text!r}")
        if word == "task":
            chosen.task = value
        elif word == "mailbox":
            chosen.mailbox = value
        else:
            chosen.ids.append(value)
    if everything == bool(ids or filters):
        raise click.UsageError(f"Say which letters to {verb}: IDs, --filter or --all (one of them).")
    return chosen


@dead.command("ls")
@click.option("--task", default="", help="Of this task only.")
@click.option("--mailbox", default="", help="Of this mailbox only.")
@click.option("--limit", type=click.IntRange(1, requests.LIST_MAX), default=100, show_default=True)
@broker_option
@timeout_option
@json_option
def list_letters(task: str, mailbox: str, limit: int, broker: str, timeout: float, as_json: bool) -> None:
    """List dead letters, oldest first."""
    page: requests.DeadPage = ask(
        broker, Op.DEAD_LIST, requests.DeadFilter(task=task, mailbox=mailbox, limit=limit), timeout
    )
    if as_json:
        print_json([_listed(letter) for letter in page.letters])
        return
    now = time.time()
    rows = [
        [
            letter.id,
            letter.task,
            letter.mailbox,
            letter.deliveries,
            seconds_ago(letter.last_failure, now),
            letter.reason,
        ]
        for letter in page.letters
    ]
    print_table(["id", "task", "mailbox", "deliveries", "age", "reason"], rows, empty="No dead letters.")
    if page.more:
        click.echo(f"There are {page.total:,} in all; --limit shows more.")


def _listed(letter: requests.DeadInfo) -> dict[str, Any]:
    return {
        "id": letter.id,
        "task": letter.task,
        "mailbox": letter.mailbox,
        "reason": letter.reason,
        "deliveries": letter.deliveries,
        "first_failure": letter.first_failure,
        "last_failure": letter.last_failure,
        "root_id": letter.root_id,
        "attempts": letter.attempts,
    }


@dead.command("show")
@click.argument("id")
@broker_option
@timeout_option
@json_option
def show(id: str, broker: str, timeout: float, as_json: bool) -> None:
    """Show one dead letter with its story."""
    page: requests.DeadPage = ask(broker, Op.DEAD_SHOW, requests.DeadFilter(ids=[id]), timeout)
    if not page.letters:
        fail(f"there is no dead letter {id!r}; `greenroom dead ls` lists them")
    letter = page.letters[0]
    if as_json:
        print_json(
            {
                **_listed(letter),
                "redriven": letter.redriven,
                "counters": letter.counters,
                "arguments": _arguments(letter),
            }
        )
        return
    click.echo(f"{letter.task}[{letter.id}] in mailbox {letter.mailbox!r}")
    click.echo(f"  {letter.reason}")
    click.echo(f"  arguments  {_arguments(letter)}")
    counted = ", ".join(f"{name} {count}" for name, count in letter.counters.items() if count)
    click.echo(f"  counted    {counted or '-'}")
    now = time.time()
    rows = [
        [
            number,
            attempt.cause,
            seconds_ago(attempt.ended_at, now),
            attempt.node,
            attempt.pid,
            f"signal {attempt.signal}" if attempt.signal else f"exit {attempt.exit_code}",
            "yes" if attempt.oom else "no",
            f"{attempt.max_rss // 1024} MiB" if attempt.max_rss else "-",
        ]
        for number, attempt in enumerate(letter.attempts, 1)
    ]
    print_table(
        ["attempt", "ended by", "age", "node", "pid", "status", "oom", "max rss"], rows, empty="No attempts kept."
    )
    click.echo(f"Send it again: greenroom dead redrive {letter.id}")


def _arguments(letter: requests.DeadInfo) -> str:
    """The arguments in words; never loads what could run code."""
    content, _, encoding = letter.content.partition("+")
    if content not in ("msgpack", "json"):
        return f"({len(letter.body)} bytes of {letter.content}, not opened)"
    try:
        args, kwargs = decode(Body(content, encoding, letter.body))  # type: ignore[misc]
    except Exception as error:  # shown to the person who asked, in place of the arguments
        return f"({len(letter.body)} bytes that cannot be read: {error})"
    parts = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
    text = ", ".join(parts)
    return text if len(text) <= 1000 else f"{text[:1000]}..."


@dead.command("redrive")
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--filter", "filters", multiple=True, help="task:NAME, mailbox:NAME or id:ID; all given must hold.")
@broker_option
@timeout_option
@json_option
def redrive(
    ids: tuple[str, ...], everything: bool, filters: tuple[str, ...], broker: str, timeout: float, as_json: bool
) -> None:
    """Send dead letters back to their mailboxes, with fresh counters."""
    chosen = _filter(ids, everything, filters, "redrive")
    answer: requests.Count = ask(broker, Op.DEAD_REDRIVE, chosen, timeout)
    _told(answer.count, "redriven", ids, as_json)


@dead.command("purge")
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--filter", "filters", multiple=True, help="task:NAME, mailbox:NAME or id:ID; all given must hold.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@broker_option
@timeout_option
@json_option
def purge_letters(
    ids: tuple[str, ...],
    everything: bool,
    filters: tuple[str, ...],
    force: bool,
    broker: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Forget dead letters for good."""
    chosen = _filter(ids, everything, filters, "purge")
    if not force:
        click.confirm("Forget these dead letters for good?", abort=True, err=True)
    answer: requests.Count = ask(broker, Op.DEAD_PURGE, chosen, timeout)
    _told(answer.count, "purged", ids, as_json)


def _told(count: int, deed: str, ids: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json({deed: count})
    else:
        click.echo(f"{count:,} dead letter{'' if count == 1 else 's'} {deed}.")
    if ids and count < len(set(ids)):
        fail(f"{len(set(ids)) - count} of the {len(set(ids))} ids named are not among the dead letters")
