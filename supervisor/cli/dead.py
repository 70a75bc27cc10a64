"""`greenroom dead`: the messages that were set aside, why, and what to do with them."""

from __future__ import annotations

import time
from typing import Any

import click

from ...transport import requests
from ...transport.payload import Body, decode
from ...transport.verbs import Op
from .asking import ask, asking
from .options import F, broker_option, json_option, timeout_option
from .output import confirm, fail, filled, print_fields, print_json, print_table, seconds_ago
from .table import printable

#: Words before the colon of --filter.
FILTERS = ("task", "mailbox", "id")
#: What an attempt's cause means.
CAUSES = {
    "solo": "died, nothing else running",
    "joint": "died, others running too",
    "node_lost": "its node was lost",
    "timeout": "hard time limit",
    "failure": "failed",
    "requeued": "requeued",
    "unsigned": "not loaded: no good signature",
}


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


def _letters_option(function: F) -> F:
    """Which letters are meant."""
    function = click.option(
        "--filter", "filters", multiple=True, help="task:NAME, mailbox:NAME or id:ID; all given must hold."
    )(function)
    function = click.option("--all", "everything", is_flag=True, help="All dead letters.")(function)
    return click.argument("ids", nargs=-1)(function)


@dead.command("ls")
@click.option("--task", default="", help="Of this task only.")
@click.option("--mailbox", default="", help="Of this mailbox only.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at the most.")
@broker_option
@timeout_option
@json_option()
def list_letters(task: str, mailbox: str, limit: int, broker: str, timeout: float, as_json: bool) -> None:
    """List dead letters, oldest first."""
    letters = _read(broker, requests.DeadFilter(task=task, mailbox=mailbox), limit + 1, timeout)
    shown = letters[:limit]
    if as_json:
        print_json([_listed(letter) for letter in shown])
        return
    now = time.time()
    print_table(
        ["id", "age", "task"],
        [[letter.id, seconds_ago(letter.last_failure, now), letter.task] for letter in shown],
        notes=[f"in mailbox {letter.mailbox}, {_reason(letter)}" for letter in shown],
        empty="No dead letters.",
    )
    if len(letters) > limit:
        click.echo(f"These are the oldest {limit}; --limit shows more.")


def _read(broker: str, wanted: requests.DeadFilter, most: int, timeout: float) -> list[requests.DeadInfo]:
    """Read page after page, up to so many."""
    letters: list[requests.DeadInfo] = []
    with asking(broker, timeout) as client:
        while len(letters) < most:
            wanted.limit = min(most - len(letters), requests.LIST_MAX)
            page: requests.DeadPage = client.request(Op.DEAD_LIST, wanted, timeout)
            letters += page.letters
            if not page.more or not page.letters:
                break
            wanted.after = page.letters[-1].position
    return letters


def _reason(letter: requests.DeadInfo) -> str:
    """The reason, without the name that stands beside it."""
    return letter.reason.removeprefix(f"{letter.task}[{letter.id}] ")


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
@json_option()
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
    click.echo(f"{printable(letter.task)}[{printable(letter.id)}]")
    counted = ", ".join(f"{name} {count}" for name, count in letter.counters.items() if count)
    print_fields(
        [
            ("mailbox", printable(letter.mailbox)),
            ("reason", printable(_reason(letter))),
            ("arguments", printable(_arguments(letter)) or "none"),
            ("counted", counted or "nothing"),
            ("redriven", {0: "never", 1: "once"}.get(letter.redriven, f"{letter.redriven} times")),
        ]
    )
    click.echo()
    now = time.time()
    print_table(
        ["attempt", "age", "node", "pid", "status", "max rss", "how it ended"],
        [
            [
                number,
                seconds_ago(attempt.ended_at, now),
                attempt.node or "-",
                attempt.pid or None,
                _status(attempt),
                f"{attempt.max_rss // 1024} MiB" if attempt.max_rss else "-",
                CAUSES.get(attempt.cause, attempt.cause) + (", out of memory" if attempt.oom else ""),
            ]
            for number, attempt in enumerate(letter.attempts, 1)
        ],
        empty="No attempt is known.",
    )
    for number, attempt in enumerate(letter.attempts, 1):
        if attempt.traceback:
            click.echo(f"\nattempt {number}:\n{attempt.traceback.rstrip()}")
    click.echo()
    click.echo(filled(f"Send it again: greenroom dead redrive {letter.id}"))


def _status(attempt: requests.Attempt) -> str:
    if attempt.signal:
        return f"signal {attempt.signal}"
    return "-" if attempt.exit_code is None else f"exit {attempt.exit_code}"


def _arguments(letter: requests.DeadInfo) -> str:
    """The arguments in words; never loads what could run code."""
    content, _, encoding = letter.content.partition("+")
    if content not in ("msgpack", "json"):
        return f"({len(letter.body)} bytes of {letter.content}, not opened)"
    try:
        given: Any = decode(Body(content, encoding, letter.body))
        args, kwargs = given
        parts = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
    except Exception as error:  # shown to the person who asked, in place of the arguments
        return f"({len(letter.body)} bytes that cannot be read: {error})"
    text = ", ".join(parts)
    return text if len(text) <= 1000 else f"{text[:1000]}..."


@dead.command("redrive")
@_letters_option
@broker_option
@timeout_option
@json_option()
def redrive(
    ids: tuple[str, ...], everything: bool, filters: tuple[str, ...], broker: str, timeout: float, as_json: bool
) -> None:
    """Send dead letters back to their mailboxes, with fresh counters: those of IDS, of --filter, or --all."""
    chosen = _filter(ids, everything, filters, "redrive")
    answer: requests.Count = ask(broker, Op.DEAD_REDRIVE, chosen, timeout)
    _told(answer.count, "redriven", ids, as_json)


@dead.command("purge")
@_letters_option
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@broker_option
@timeout_option
@json_option()
def purge_letters(
    ids: tuple[str, ...],
    everything: bool,
    filters: tuple[str, ...],
    force: bool,
    broker: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Forget dead letters for good: those of IDS, of --filter, or --all."""
    chosen = _filter(ids, everything, filters, "purge")
    if not force:
        confirm("Forget these dead letters for good?")
    answer: requests.Count = ask(broker, Op.DEAD_PURGE, chosen, timeout)
    _told(answer.count, "purged", ids, as_json)


def _told(count: int, deed: str, ids: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json({deed: count})
    else:
        click.echo(f"{count:,} dead letter{'' if count == 1 else 's'} {deed}.")
    if ids and count < len(set(ids)):
        fail(f"{len(set(ids)) - count} of the {len(set(ids))} ids named are not among the dead letters")
