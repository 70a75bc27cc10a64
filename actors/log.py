"""Logging as tasks and workers use it.

Owns `get_task_logger`, whose lines bear the task's name and id, the formatters, and `app.log`, which sets up a worker's
logging unless a receiver of the `setup_logging` signal has done it. A program that only sends is never touched.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TextIO, cast

from . import signals
from .current import current_frame

if TYPE_CHECKING:
    from .app import App

#: The parent of every task's logger.
TASK_LOGGER_NAME: Final = "greenroom.task"
REDIRECTED_LOGGER_NAME: Final = "greenroom.redirected"
#: What stands for the task's name and id outside of tasks.
NO_TASK: Final = "???"

_COLORS: Final = {"DEBUG": "\x1b[34m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[35m"}
_RESET: Final = "\x1b[0m"


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for the tasks of a module: the module's own, under the task logger.

    Raises RuntimeError for the task logger's own name.
    """
    if name in (TASK_LOGGER_NAME, "greenroom"):
        raise RuntimeError(f"Logger name {name!r} is reserved; use the module's, as in get_task_logger(__name__)")
    found = logging.getLogger(name)
    parent = logging.getLogger(TASK_LOGGER_NAME)
    if found.parent is None or found.parent is logging.getLogger():
        found.parent = parent
    return found


class ColorFormatter(logging.Formatter):
    """A formatter that colours what is more than information, if asked to."""

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, use_color: bool = True) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = super().format(record)
        color = _COLORS.get(record.levelname) if self.use_color else None
        return f"{color}{line}{_RESET}" if color else line


class TaskFormatter(ColorFormatter):
    """A formatter that knows `%(task_name)s` and `%(task_id)s`: those of the task that logs, else `???`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        frame = current_frame()
        name = frame.task.name if frame is not None else NO_TASK
        id = (frame.request.id or NO_TASK) if frame is not None else NO_TASK
        record.__dict__.setdefault("task_name", name)
        record.__dict__.setdefault("task_id", id)
        return super().format(record)


class Logging:
    """The logging of one app's worker: `app.log`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.already_setup = False

    def setup(
        self,
        loglevel: int | str = logging.WARNING,
        logfile: str | None = None,
        redirect_stdouts: bool | None = None,
        redirect_level: int | str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Set up the process's logging, once; tell whether it was done here, and not by a receiver of setup_logging.

        Loggers of tasks get the task format. With `redirect_stdouts` (by default worker_redirect_stdouts) what is
        printed is logged, at `redirect_level`.
        """
        if self.already_setup:
            return False
        self.already_setup = True
        conf = self._app.conf
        level = level_number(loglevel)
        options = {"loglevel": level, "logfile": logfile, "format": conf.worker_log_format, "colorize": colorize}
        if signals.setup_logging.send(sender=None, **options):
            return False
        colored = self.supports_color(colorize, logfile)
        root = logging.getLogger()
        if conf.worker_hijack_root_logger:
            for handler in list(root.handlers):
                root.removeHandler(handler)
        root.addHandler(_handler(logfile, ColorFormatter(conf.worker_log_format, conf.worker_log_datefmt, colored)))
        root.setLevel(level)
        signals.after_setup_logger.send(sender=None, logger=root, **options)
        self.setup_task_loggers(level, logfile, colorize=colorize)
        redirect = conf.worker_redirect_stdouts if redirect_stdouts is None else redirect_stdouts
        if redirect:
            self.redirect_stdouts(redirect_level or conf.worker_redirect_stdouts_level)
        return True

    def setup_task_loggers(
        self, loglevel: int | str = logging.WARNING, logfile: str | None = None, colorize: bool | None = None
    ) -> logging.Logger:
        """Give the loggers of tasks their format; return their parent."""
        conf = self._app.conf
        level = level_number(loglevel)
        logger = logging.getLogger(TASK_LOGGER_NAME)
        colored = self.supports_color(colorize, logfile)
        logger.handlers = [
            _handler(logfile, TaskFormatter(conf.worker_task_log_format, conf.worker_task_log_datefmt, colored))
        ]
        logger.setLevel(level)
        logger.propagate = False
        signals.after_setup_task_logger.send(
            sender=None,
            logger=logger,
            loglevel=level,
            logfile=logfile,
            format=conf.worker_task_log_format,
            colorize=colorize,
        )
        return logger

    def redirect_stdouts(self, loglevel: int | str | None = None, name: str = REDIRECTED_LOGGER_NAME) -> None:
        """Log what is printed from now on."""
        level = level_number(loglevel or logging.WARNING)
        logger = get_task_logger(name)
        sys.stdout = cast("TextIO", LoggingProxy(logger, level))
        sys.stderr = cast("TextIO", LoggingProxy(logger, level))

    def supports_color(self, colorize: bool | None = None, logfile: str | None = None) -> bool:
        """Tell whether lines are coloured: as asked, else on a terminal."""
        wanted = self._app.conf.worker_log_color if colorize is None else colorize
        if wanted is None:
            return logfile is None and terminal_has_colors(2)
        return bool(wanted)

    def get_default_logger(self, name: str = "greenroom") -> logging.Logger:
        """Return a logger of ours."""
        return logging.getLogger(name)


class LoggingProxy:
    """A file whose lines are logged. What a handler prints while it logs is dropped, or it would never end."""

    mode = "w"
    name: str | None = None
    closed = False

    def __init__(self, logger: logging.Logger, loglevel: int | str = logging.WARNING) -> None:
        self.logger = logger
        self.loglevel = level_number(loglevel)
        self._inside = threading.local()

    def write(self, data: str | bytes) -> int:
        """Log a text, unless it is empty or this thread is logging already; return its length."""
        text = data.decode(errors="replace") if isinstance(data, bytes) else data
        if getattr(self._inside, "logging", False) or self.closed or not text.strip():
            return len(data)
        self._inside.logging = True
        try:
            self.logger.log(self.loglevel, "%s", text.strip())
        finally:
            self._inside.logging = False
        return len(data)

    def writelines(self, lines: Iterable[str]) -> None:
        """Log each of these lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: each line is written at once."""

    def close(self) -> None:
        """Log nothing any more."""
        self.closed = True

    def isatty(self) -> bool:
        """Tell that this is no terminal."""
        return False

    def fileno(self) -> int:
        """Return the number of the process's own error output."""
        stream: TextIO | None = sys.__stderr__
        return 2 if stream is None else stream.fileno()


def terminal_has_colors(descriptor: int) -> bool:
    """Tell whether a descriptor is a terminal whose user wants colours: not with NO_COLOR, nor on a dumb one."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def level_number(level: int | str | None) -> int:
    """Return a log level by its number. Raises ValueError for a name that is none."""
    if level is None:
        return logging.WARNING
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"there is no log level {level!r}; expected DEBUG, INFO, WARNING, ERROR, CRITICAL or FATAL")
    return number


def _handler(logfile: str | None, formatter: logging.Formatter) -> logging.Handler:
    handler: logging.Handler
    # The process's own error output: sys.stderr may be a proxy that logs.
    handler = logging.FileHandler(logfile, encoding="utf-8") if logfile else logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(formatter)
    return handler
