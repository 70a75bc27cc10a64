"""A child process: from its configuration to its exit code.

Owns the order of a child's life: signals, the application, the page, the line, the pool, and the end in order. The
parent learns of it through the pipe: `Ready` once the broker has taken the child in, `Unusable` if that never came
about, `Leaving` before an end in order. Whatever else ends this process, the parent reads its page.

Signals: SIGTERM stays at its default, so that a user who sends it kills the child like any other (`signal 15`); the
parent stops its children through the pipe. SIGINT is ignored: Ctrl-C is for the parent. SIGUSR1 is a soft limit.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ...transport.clock import boot_now, system_now, wall_now
from ...transport.event_log import EventLog, lane_of
from ...transport.page_marks import Page
from ...transport.wire.line import SocketLine
from ...transport.wire.wakeup import Wakeup
from .. import signals
from ..imports import import_task_modules
from ..tasks.call import microseconds
from .assembly import Assembly, session_of
from .asyncio_pool import AsyncioPool
from .control import ChildConfig, Leaving, Unusable
from .leaving import leave_now
from .load import load_app, why_not
from .pipe import Pipe
from .prefork import Prefork
from .threads import Threads
from .witness import BodyWitness

if TYPE_CHECKING:
    from ..app import App
    from ..settings.conf import Settings

#: Exit codes of a child that ends by itself and was not asked to.
EXIT_UNUSABLE = 3
EXIT_ABANDONED = 4


def run_child(config: ChildConfig, pipe_descriptor: int) -> int:
    """Run a child until there is nothing left to do; return the process's exit code.

    Must be called in the main thread of a process of its own. Raises SystemExit when a body does: then the process
    must end with that code, and nothing more may run in it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe = Pipe(pipe_descriptor)
    # The node learns of what goes wrong here, and shows it to whoever started it.
    try:
        app = _prepare(config)
    except Exception as error:
        return _unusable(pipe, *why_not(error, config.app))
    try:
        child = _Child(with_settings(config, app.conf), pipe, app)
    except Exception as error:
        return _unusable(pipe, f"{type(error).__name__}: {error}", traceback.format_exc())
    return child.run()


def _unusable(pipe: Pipe, reason: str, text: str = "") -> int:
    pipe.send(Unusable(reason, text))
    os.set_blocking(pipe.fileno(), True)
    pipe.flush()
    return EXIT_UNUSABLE


def _prepare(config: ChildConfig) -> App:
    """Return the application, ready to run tasks. Raises whatever is wrong with it."""
    app = load_app(config.app, config.app_blob)
    app.set_current()
    if config.settings:
        app.conf.update(config.settings)
    # What a body sends goes to the broker that the body came from.
    app.conf.broker_url = config.broker
    if config.signing_key:
        app.signing_key = config.signing_key
    # What %(processName)s says in a log, also in the application's own: as the node names its children.
    _name_records(f"child-{config.number}")
    app.log.setup(loglevel=config.loglevel, hostname=config.node)
    if config.modules:
        app.conf.include = [*(app.conf.include or ()), *config.modules]
    import_task_modules(app)
    app.finalize()
    return app


def _name_records(name: str) -> None:
    """Let every log record of this process say so; logging itself knows only multiprocessing's names."""
    make = logging.getLogRecordFactory()

    def named(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.processName = name
        return record

    logging.setLogRecordFactory(named)


def with_settings(config: ChildConfig, conf: Settings) -> ChildConfig:
    """Return the configuration, with the application's settings where the worker was started without a limit.

    They count here and not in the parent, which never imports the application.
    """
    return msgspec.structs.replace(
        config,
        max_tasks=config.max_tasks or conf.worker_max_tasks_per_child or 0,
        max_memory_kib=config.max_memory_kib or conf.worker_max_memory_per_child or 0,
        time_limit=config.time_limit or microseconds(conf.task_time_limit or 0),
        soft_time_limit=config.soft_time_limit or microseconds(conf.task_soft_time_limit or 0),
    )


class _Child:
    """One child in a process of its own."""

    def __init__(self, config: ChildConfig, pipe: Pipe, app: App) -> None:
        self._config = config
        self._pipe = pipe
        self._app = app
        page = Page.create(
            config.page,
            session=session_of(config),
            node=config.node,
            incarnation=config.incarnation,
            runners=config.slots,
            heard=boot_now(),
        )
        self._wakeup = Wakeup()
        self._parts = Assembly(
            config,
            app,
            page,
            pipe,
            lambda attachment: SocketLine(attachment, system_now, (pipe.fileno(), self._wakeup.fileno())),
            system_now,
            host=socket.gethostname(),
            pid=os.getpid(),
            wall=wall_now,
        )
        self._parts.station.end_now = self._end_now
        if config.event_log:
            lane = lane_of(session_of(config))
            # Whoever may not write a log runs bodies all the same, and the node has said it.
            with contextlib.suppress(OSError):
                log = EventLog(config.event_log, lane, system_now, bytes_max=config.event_log_bytes)
                self._parts.station.witness = BodyWitness(log, lane)

    def run(self) -> int:
        """Run the pool; return the exit code."""
        signals.worker_process_init.send(sender=None)
        # What was imported is not looked through again, and stays shared with the other children.
        gc.collect()
        gc.freeze()
        self._pool()()
        station = self._parts.station
        reason = station.over or ""
        if station.abandoned:
            return self._abandoned(reason)
        self._parts.hosting.stop(reason)
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        with contextlib.suppress(Exception):
            # What a body sent in the background; its caller was promised no more than a try.
            self._app.close()
        station.leave(reason)
        self._pipe.send(Leaving(reason))
        return 0

    def _pool(self) -> Callable[[], None]:
        config, parts = self._config, self._parts
        station, executor, deadlines = parts.station, parts.executor, parts.deadlines
        if config.pool == "asyncio":
            return AsyncioPool(station, self._wakeup, executor, deadlines, boot_now, parts.hosting).run
        if config.pool == "threads" or config.slots > 1:
            return Threads(station, self._wakeup, executor, deadlines, boot_now).run
        return Prefork(station, executor, deadlines, boot_now).run

    def _end_now(self, reason: str) -> None:
        """A cold stop while bodies run, in whatever thread heard of it: nobody waits for them."""
        self._parts.station.leave(reason)
        self._pipe.send(Leaving(reason))
        leave_now(SystemExit(0))

    def _abandoned(self, reason: str) -> int:
        """The parent is gone, or the broker will not have this session."""
        if not self._parts.is_ready and not self._pipe.closed:
            return _unusable(self._pipe, reason)
        if not self._pipe.closed:
            self._pipe.send(Leaving(reason))
        return EXIT_ABANDONED
