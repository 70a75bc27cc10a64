"""`greenroom dev`: a broker and a worker in one terminal; the worker starts anew when a source file changes."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import Any

import click

from ..cluster.broker import DEFAULT_DATA
from ..cluster.config import POOLS
from ..cluster.launch import Launched, LaunchFailed
from .logs import set_up_logging
from .output import DEFAULT_BROKER
from .together import READY_SECONDS, broker_process, start_node, stop_node


@click.command()
@click.option("-A", "--app", required=True, help="The application: module or module:attribute.")
@click.option("--bind", default=DEFAULT_BROKER, show_default=True, help="Where the broker listens.")
@click.option("--data", default=DEFAULT_DATA, show_default=True, help="Folder of the mailboxes.")
@click.option("-c", "--concurrency", "workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("-P", "--pool", type=click.Choice(POOLS), default="prefork", show_default=True)
@click.option("-Q", "--queues", "--mailboxes", "mailboxes", default="", help="Mailboxes to serve, with commas.")
@click.option(
    "--reload/--no-reload", default=True, show_default=True, help="Start the worker anew when a file changes."
)
@click.option("--watch", "folders", multiple=True, default=["."], show_default=True, help="Folders to watch.")
@click.option("-l", "--loglevel", default="INFO", show_default=True)
def dev(
    app: str,
    bind: str,
    data: str,
    workers: int,
    pool: str,
    mailboxes: str,
    reload: bool,
    folders: tuple[str, ...],
    loglevel: str,
) -> None:
    """Run a broker and a worker together, for development: not for production."""
    set_up_logging(loglevel)
    stopping = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    names = [name.strip() for name in mailboxes.split(",") if name.strip()]
    with broker_process(bind, data, loglevel) as address:
        click.echo(f"greenroom dev: broker at {address}, {workers} workers of {app}; Ctrl-C stops both")

        def start() -> Launched:
            return start_node(app, address, workers=workers, pool=pool, mailboxes=names, loglevel=loglevel)

        node: Launched | None = _started(start, reload)
        try:
            for changed in _changes(folders, stopping) if reload else _until(stopping):
                click.echo(f"greenroom dev: {changed} changed, the worker starts anew")
                if node is not None:
                    stop_node(node)
                node = _started(start, reload)
        finally:
            if node is not None:
                stop_node(node, cold=False)
    sys.exit(0)


def _started(start: Any, reload: bool) -> Launched | None:
    """Start the node and wait until it is ready; with reload, a broken application waits for its mending."""
    node: Launched = start()
    try:
        node.wait_until_ready(READY_SECONDS)
    except LaunchFailed as error:
        if not reload:
            raise
        click.secho(f"greenroom dev: {error}; waiting for a change", fg="red", err=True)
        return None
    return node


def _until(stopping: threading.Event) -> Any:
    while not stopping.wait(1.0):
        pass
    return ()


def _changes(folders: tuple[str, ...], stopping: threading.Event) -> Any:
    """The name of a changed Python file each time some change."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        click.echo(
            "greenroom dev: no reload, since watchfiles is not installed: pip install 'greenroom[dev]'", err=True
        )
        yield from _until(stopping)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for changes in watch(*folders, watch_filter=PythonFilter(), stop_event=stopping, raise_interrupt=False):
            yield sorted(path for _, path in changes)[0]
