"""`greenroom dev`: a broker and a worker in one terminal; the worker starts anew when a source file changes.

The main thread owns both processes and takes one event after another: files have changed, a process has ended. Ctrl-C
and TERM raise KeyboardInterrupt in it, wherever it is; what was started is stopped in order then, and another Ctrl-C
makes that quicker (`Launched.stop`).
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import click

from ..cluster.broker import DEFAULT_DATA, BrokerConfig
from ..cluster.launch import Launched, LaunchFailed
from ..cluster.ready import Word
from .options import (
    DEFAULT_BROKER,
    app_option,
    concurrency_option,
    event_log_options,
    json_option,
    loglevel_option,
    mailboxes_option,
    pool_option,
)
from .output import own_tasks, print_fields, print_json, say
from .together import READY_SECONDS, EventLogTo, broker_process, start_node

#: Files that an editor saves together are one change.
SETTLE_MILLISECONDS = 300
#: How long running tasks may take before a reload and at the end; then they are stopped. Somebody waits for it.
STOP_SECONDS = 5.0


class Changed:
    """Source files have changed: their paths, from here."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __str__(self) -> str:
        more = len(self.paths) - 1
        return self.paths[0] + (f" and {more} more" if more else "")


class Ended:
    """A process has ended."""

    def __init__(self, process: Launched, code: int) -> None:
        self.process = process
        self.code = code


Event = Changed | Ended


@click.command()
@app_option("The application, as a module or an attribute of one.", default=None)
@click.option("--bind", default=DEFAULT_BROKER, show_default=True, metavar="ADDRESS", help="Where the broker listens.")
@click.option("--data", default=DEFAULT_DATA, show_default=True, metavar="FOLDER", help="Folder of the mailboxes.")
@concurrency_option("2")
@pool_option
@mailboxes_option
@click.option(
    "--reload/--no-reload", default=True, show_default=True, help="Start the worker anew when a Python file changes."
)
@click.option("--watch", "folders", multiple=True, default=["."], show_default=True, help="Folders to watch.")
@event_log_options
@loglevel_option()
@json_option("Tell what happens in lines of JSON.")
def dev(
    app: str,
    bind: str,
    data: str,
    concurrency: int,
    pool: str | None,
    mailboxes: list[str],
    reload: bool,
    folders: tuple[str, ...],
    event_log: str,
    event_log_bytes: int,
    loglevel: str,
    as_json: bool,
) -> None:
    """Run a broker and a worker together, for development: not for production.

    A Python file that changes makes the worker start anew; while the application cannot be imported, dev waits for
    the next change. Ctrl-C stops both.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tell = _tell_json if as_json else _tell
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    code = 0
    try:
        with ExitStack() as after:
            log = EventLogTo.of(event_log, event_log_bytes)
            config = BrokerConfig(
                bind=(bind,),
                data=data,
                loglevel=loglevel.upper(),
                event_log=log.path,
                event_log_bytes=log.bytes_max,
            )
            broker = after.enter_context(broker_process(config))
            address = broker.wait_until_ready(READY_SECONDS).address
            _watch_end(broker, events)
            start = partial(
                start_node,
                app,
                address,
                concurrency=concurrency,
                pool=pool,
                mailboxes=mailboxes,
                loglevel=loglevel,
                log=log,
            )
            worker = after.enter_context(_Worker(start, events, waits=reload))
            word = worker.start()
            watched = _watch_files(folders, events) if reload else "no, as --no-reload asks"
            if not as_json:
                _banner(address, os.path.abspath(data), app, word, watched)
            if as_json or word is None:
                tell("ready" if word else "broken", _story(word), app=app, address=address)
            code = _follow(events, broker, worker, tell)
    except KeyboardInterrupt:
        # That is how it is meant to end.
        pass
    tell("stopped", "stopped")
    sys.exit(code)


def _follow(events: queue.SimpleQueue[Event], broker: Launched, worker: _Worker, tell: Callable[..., None]) -> int:
    """Take events until the broker has ended; return the exit code."""
    while True:
        match events.get():
            case Changed() as changed:
                tell("changed", f"{changed} changed, the worker starts anew", paths=changed.paths)
                began = time.monotonic()
                worker.stop()
                word = worker.start()
                seconds = time.monotonic() - began
                tell("ready" if word else "broken", f"{_story(word)}{f', after {seconds:.1f} s' if word else ''}")
            case Ended(process=process, code=code) if process is broker:
                tell("ended", f"the broker ended with exit code {code}", code=code)
                return 1
            case Ended(process=process, code=code):
                if worker.has_lost(process):
                    tell("ended", f"the worker ended with exit code {code}; waiting for a change", code=code)
                    if not worker.waits:
                        return 1


class _Worker:
    """The worker node of the moment, or none while the application is broken. Leaving the context stops it."""

    def __init__(self, start: Callable[[], Launched], events: queue.SimpleQueue[Event], *, waits: bool) -> None:
        self.waits = waits
        self._start = start
        self._events = events
        self._node: Launched | None = None

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Word | None:
        """Start it and wait until it is ready; None if it cannot, which it has told in its log.

        Raises LaunchFailed if nobody waits for the mending.
        """
        self._node = self._start()
        try:
            word = self._node.wait_until_ready(READY_SECONDS)
        except LaunchFailed:
            if not self.waits:
                raise
            self._node = None
            return None
        _watch_end(self._node, self._events)
        return word

    def stop(self) -> None:
        """Stop it, if there is one."""
        node, self._node = self._node, None
        if node is not None:
            node.stop(STOP_SECONDS)

    def has_lost(self, process: Launched) -> bool:
        """Note the end of a process; return whether it was the present one, and nobody had asked for it."""
        if process is not self._node:
            return False
        self.stop()
        return True


def _watch_end(process: Launched, events: queue.SimpleQueue[Event]) -> None:
    def wait() -> None:
        events.put(Ended(process, process.process.wait()))

    threading.Thread(target=wait, name="greenroom-dev-end", daemon=True).start()


def _watch_files(folders: tuple[str, ...], events: queue.SimpleQueue[Event]) -> str:
    """Watch Python files in a thread; return in words what is watched."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        return "no, since watchfiles is not installed: pip install 'greenroom[dev]'"
    for folder in folders:
        if not os.path.isdir(folder):
            raise click.BadParameter(f"there is no folder {folder!r}", param_hint="--watch")

    def wait() -> None:
        for changes in watch(
            *folders, watch_filter=PythonFilter(), debounce=SETTLE_MILLISECONDS, raise_interrupt=False
        ):
            events.put(Changed(sorted({os.path.relpath(path) for _, path in changes})))

    threading.Thread(target=wait, name="greenroom-dev-files", daemon=True).start()
    return f"when a Python file in {', '.join(folders)} changes"


def _banner(address: str, data: str, app: str, word: Word | None, watched: str) -> None:
    click.echo(f"greenroom dev, pid {os.getpid()}: for development, not for production")
    fields: list[tuple[str, str | list[str]]] = [("broker", address), ("keeps", data), ("app", app)]
    if word is not None:
        fields += [
            ("worker", word.name),
            ("mailboxes", ", ".join(word.mailboxes)),
            ("tasks", own_tasks(word.tasks)),
        ]
    print_fields([*fields, ("reload", watched), ("stop", "Ctrl-C")])


def _story(word: Word | None) -> str:
    if word is None:
        return "the worker cannot start; waiting for a change"
    count = len(own_tasks(word.tasks))
    return f"the worker is ready, with {count} task{'' if count == 1 else 's'}"


def _tell(event: str, text: str, **facts: object) -> None:
    say(f"{text}", color={"broken": "red", "ended": "red", "changed": "cyan", "ready": "green"}.get(event))


def _tell_json(event: str, text: str, **facts: object) -> None:
    print_json({"event": event, "text": text, "pid": os.getpid(), **facts}, one_line=True)
