"""`greenroom call` and `greenroom result`: send a task by its name, and see what became of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ...actors.app import App
from ...actors.errors import TimeoutError as ResultTimeout
from ...actors.results.result import AsyncResult
from ...actors.results.states import PENDING
from .options import broker_option, json_option, timeout_option
from .output import fail, print_json

if TYPE_CHECKING:
    JsonType = click.ParamType[Any]
else:
    # Generic only since click 8.2.
    JsonType = click.ParamType


class Json(JsonType):
    """A JSON value of one type."""

    def __init__(self, kind: type, what: str) -> None:
        self.name = what
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        if isinstance(value, self._kind):
            return value
        try:
            read = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is no JSON: {error}", param, ctx)
        if not isinstance(read, self._kind):
            self.fail(f"{value!r} is no {self.name}", param, ctx)
        return read


@click.command()
@click.argument("name")
@click.option(
    "-a", "--args", type=Json(list, "JSON array"), default="[]", help="Positional arguments, as a JSON array."
)
@click.option(
    "-k", "--kwargs", type=Json(dict, "JSON object"), default="{}", help="Keyword arguments, as a JSON object."
)
@click.option("-Q", "--queue", "--mailbox", "mailbox", default="", help="The mailbox. Default: celery.")
@click.option("--countdown", type=click.FloatRange(min=0), default=None, help="Seconds until it may run.")
@click.option("--expires", type=click.FloatRange(min=0), default=None, help="Seconds after which it must not start.")
@click.option("--priority", type=click.IntRange(0, 255), default=None, help="Bigger is sooner.")
@click.option("--task-id", default=None, help="An id of your own, recognised for 24 hours.")
@click.option("-w", "--wait", type=click.FloatRange(min=0), default=None, help="Wait so many seconds for the result.")
@broker_option
@timeout_option
@json_option()
def call(
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    mailbox: str,
    countdown: float | None,
    expires: float | None,
    priority: int | None,
    task_id: str | None,
    wait: float | None,
    broker: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Send the task NAME and print its id; with --wait, its result."""
    app = _app(broker, timeout)
    options: dict[str, Any] = {
        "queue": mailbox or None,
        "countdown": countdown,
        "expires": expires,
        "priority": priority,
        "task_id": task_id,
    }
    try:
        sent = app.send_task(name, args, kwargs, **{key: value for key, value in options.items() if value is not None})
        if wait is None:
            if as_json:
                print_json({"id": sent.id})
            else:
                click.echo(sent.id)
            return
        _show(sent, wait, traceback=False, as_json=as_json)
    finally:
        app.close()


@click.command()
@click.argument("id")
@click.option("-w", "--wait", type=click.FloatRange(min=0), default=0.0, help="Wait so many seconds for it.")
@click.option("--traceback", is_flag=True, help="Show the traceback of a failure.")
@broker_option
@timeout_option
@json_option()
def result(id: str, wait: float, traceback: bool, broker: str, timeout: float, as_json: bool) -> None:
    """Show the state and result of the task ID."""
    app = _app(broker, timeout)
    try:
        _show(app.AsyncResult(id), wait, traceback=traceback, as_json=as_json)
    finally:
        app.close()


def _app(broker: str, timeout: float) -> App:
    return App("cli", broker=broker, set_as_current=False, broker_connection_timeout=timeout)


def _show(sent: AsyncResult[Any], wait: float, *, traceback: bool, as_json: bool) -> None:
    """Print what is known of a result, waiting for it first where that was asked for; exit with 1 if it failed."""
    late = False
    if wait:
        try:
            sent.get(timeout=wait, propagate=False)
        except ResultTimeout:
            late = True
    state, value = str(sent.state), sent.result
    failed = isinstance(value, BaseException)
    if as_json:
        print_json(
            {
                "id": sent.id,
                "state": state,
                "result": None if failed else value,
                "error": f"{type(value).__name__}: {value}" if failed else None,
                "traceback": sent.traceback,
            }
        )
    elif late:
        fail(f"{sent.id} is {state} after {wait:g} s; look again with `greenroom result {sent.id}`")
    elif traceback and sent.traceback:
        click.echo(sent.traceback)
    elif failed:
        click.echo(f"{state}: {type(value).__name__}: {value}")
    elif state == PENDING and value is None:
        click.echo(f"{state}: it waits or runs, or nothing is known of this id (any more)")
    else:
        click.echo(f"{state}: {value!r}")
    if failed or late:
        raise SystemExit(1)
