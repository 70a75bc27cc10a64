"""`greenroom run`: a command with a broker and a worker around it, and nothing left of them when it ends."""

from __future__ import annotations

import shutil
import sys
import tempfile

import click

from ..cluster.command import run_command
from ..cluster.config import POOLS
from .together import READY_SECONDS, broker_process, start_node, stop_node


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "-A", "--app", default="", help="The application of the worker: module or module:attribute. Default: no worker."
)
@click.option("-c", "--concurrency", "workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("-P", "--pool", type=click.Choice(POOLS), default="prefork", show_default=True)
@click.option("--data", default="", help="Keep the mailboxes in this folder. Default: a temporary one.")
@click.option("-l", "--loglevel", default="WARNING", show_default=True)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(app: str, workers: int, pool: str, data: str, loglevel: str, command: tuple[str, ...]) -> None:
    """Run COMMAND with a broker, and a worker of -A, around it.

    COMMAND is a program with its arguments; a file that ends in .py is run by this Python. It finds the broker by
    the variable GREENROOM_BROKER. The exit code is the command's.
    """
    folder = tempfile.mkdtemp(prefix="greenroom-")
    try:
        with broker_process(f"ipc://{folder}/broker", data or f"{folder}/data", loglevel) as address:
            node = None
            if app:
                node = start_node(app, address, workers=workers, pool=pool, mailboxes=[], loglevel=loglevel)
                node.wait_until_ready(READY_SECONDS)
            try:
                code = run_command(list(command), {"GREENROOM_BROKER": address})
            finally:
                if node is not None:
                    stop_node(node)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)
