"""The options that several verbs share, and the types of what is given to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ...actors.worker.control import POOLS
from ...transport.event_log import BYTES_MAX_DEFAULT

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_BROKER = "tcp://127.0.0.1:5670"
BROKER_VARIABLE = "GREENROOM_BROKER"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


if TYPE_CHECKING:
    NamesType = click.ParamType[list[str]]
    NumberType = click.ParamType[int]
else:
    # Generic only since click 8.2.
    NamesType = NumberType = click.ParamType


class Names(NamesType):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Cut at the commas."""
        if isinstance(value, list):
            return cast("list[str]", value)
        return [name.strip() for name in str(value).split(",") if name.strip()]


class Concurrency(NumberType):
    """A number of processes, or "auto", which is 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if value == "auto":
            return 0
        if isinstance(value, int):
            return value
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)
        if number < 1:
            self.fail(f"{number} is less than 1", param, ctx)
        return number


def json_option(text: str = "Print JSON.") -> Callable[[F], F]:
    """Every verb has --json."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def broker_option(function: F) -> F:
    """Where the broker is. An application that runs the command line (`app.start`) has said it."""

    def default() -> str:
        context = click.get_current_context(silent=True)
        of_app = context.find_root().obj if context is not None else None
        return of_app or os.environ.get(BROKER_VARIABLE) or DEFAULT_BROKER

    return click.option(
        "-b",
        "--broker",
        default=default,
        show_default=f"${BROKER_VARIABLE}, else {DEFAULT_BROKER}",
        metavar="ADDRESS",
        help="The broker's address.",
    )(function)


def timeout_option(function: F) -> F:
    """How long to wait for the broker."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0.05),
        default=4.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer.",
    )(function)


def app_option(text: str, *, default: str | None = "") -> Callable[[F], F]:
    """Whose tasks; with no default it must be given."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    return click.option("-A", "--app", required=default is None, metavar="MODULE[:APP]", help=text, **given)


def concurrency_option(default: str | None) -> Callable[[F], F]:
    """How much runs at once. With no default it is None where it is not given: the application may say."""
    return click.option(
        "-c",
        "--concurrency",
        type=Concurrency(),
        default=default,
        show_default="worker_concurrency, else auto" if default is None else True,
        help="Processes (or threads, or coroutines); auto: one a processor.",
    )


def pool_option(function: F) -> F:
    """How tasks run; None where it is not given: the application may say."""
    return click.option(
        "-P",
        "--pool",
        type=click.Choice(POOLS),
        default=None,
        show_default="worker_pool, else prefork",
        help="How tasks run.",
    )(function)


def worker_shape(pool: str | None, concurrency: int | None) -> dict[str, Any]:
    """Return the fields of a `NodeConfig` for these two options."""
    open_to_app = [name for name, value in (("pool", pool), ("concurrency", concurrency)) if value is None]
    return {"pool": pool or "prefork", "concurrency": concurrency or 0, "open_to_app": open_to_app}


def mailboxes_option(function: F) -> F:
    """Which mailboxes a worker serves."""
    return click.option(
        "-Q",
        "--queues",
        "--mailboxes",
        "mailboxes",
        type=Names(),
        default="",
        help="Mailboxes to serve, with commas. Default: the application's.",
    )(function)


def event_log_options(function: F) -> F:
    """Where what happens is written down."""
    function = click.option(
        "--event-log-bytes",
        type=click.IntRange(min=1),
        default=BYTES_MAX_DEFAULT,
        show_default=True,
        metavar="N",
        help="Close that log at so many bytes.",
    )(function)
    return click.option(
        "--event-log",
        default="",
        metavar="FILE",
        help="Write down what happens, for `greenroom check-log`. Brokers and workers may share one file.",
    )(function)


def loglevel_option(default: str = "INFO") -> Callable[[F], F]:
    """How much is logged."""
    return click.option(
        "-l",
        "--loglevel",
        type=click.Choice(LEVELS, case_sensitive=False),
        default=default,
        show_default=True,
        help="What is logged to stderr: this and worse.",
    )
