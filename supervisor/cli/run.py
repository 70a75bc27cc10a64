"""`greenroom run`: a command with a broker and a worker around it, and nothing left of them when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from ..cluster.broker import BrokerConfig
from ..cluster.command import run_command
from ..cluster.launch import address_in
from .options import (
    app_option,
    concurrency_option,
    event_log_options,
    json_option,
    loglevel_option,
    mailboxes_option,
    pool_option,
)
from .output import print_json
from .together import READY_SECONDS, STOP_SECONDS, EventLogTo, broker_process, start_node

#: As after a signal: 128 and its number.
EXIT_INTERRUPTED = 128 + signal.SIGINT


@click.command()
@app_option("The application of the worker. Default: no worker.")
@concurrency_option("2")
@pool_option
@mailboxes_option
@click.option("--data", default="", metavar="FOLDER", help="Keep the mailboxes here. Default: a temporary folder.")
@event_log_options
@loglevel_option("WARNING")
@json_option("Tell on stderr, in lines of JSON, when the cluster is ready and how the command ended.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    app: str,
    concurrency: int,
    pool: str | None,
    mailboxes: list[str],
    data: str,
    event_log: str,
    event_log_bytes: int,
    loglevel: str,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with a broker, and a worker of -A, around it.

    COMMAND is a program with its arguments, best after two dashes: greenroom run -A tasks -- python script.py. A file
    that ends in .py is run by this Python. It finds the broker by the variable GREENROOM_BROKER. The exit code is the
    command's, or 128 and the number of the signal that ended it.
    """
    # TERM is met as Ctrl-C is until the command runs, which then gets it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="greenroom-"))
    log = EventLogTo.of(event_log, event_log_bytes)
    try:
        with ExitStack() as after:
            after.callback(shutil.rmtree, folder, ignore_errors=True)
            config = BrokerConfig(
                bind=(address_in(folder),),
                data=data or str(folder / "data"),
                loglevel=loglevel.upper(),
                temporary=str(folder),
                event_log=log.path,
                event_log_bytes=log.bytes_max,
            )
            broker = after.enter_context(broker_process(config))
            address = broker.wait_until_ready(READY_SECONDS).address
            if app:
                node = start_node(
                    app, address, concurrency=concurrency, pool=pool, mailboxes=mailboxes, loglevel=loglevel, log=log
                )
                after.callback(node.stop, STOP_SECONDS)
                node.wait_until_ready(READY_SECONDS)
            if as_json:
                print_json({"address": address, "pid": os.getpid()}, one_line=True, err=True)
            began = time.monotonic()
            code = run_command(list(command), {"GREENROOM_BROKER": address})
            if as_json:
                seconds = round(time.monotonic() - began, 3)
                print_json({"exit_code": code, "seconds": seconds}, one_line=True, err=True)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)
