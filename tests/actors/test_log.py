"""Logging as tasks and workers use it."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.log import TASK_LOGGER_NAME, LoggingProxy, TaskFormatter, get_task_logger, level_number
from greenroom.actors.settings.defaults import TASK_LOG_FORMAT


@pytest.fixture
def untouched() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    root, task = logging.getLogger(), logging.getLogger(TASK_LOGGER_NAME)
    before = (list(root.handlers), root.level, list(task.handlers), task.level, task.propagate)
    streams = sys.stdout, sys.stderr
    yield
    sys.stdout, sys.stderr = streams
    root.handlers, root.level, task.handlers, task.level, task.propagate = before


def test_a_task_logger_is_the_modules_own_under_the_task_logger() -> None:
    logger = get_task_logger("proj.tasks")
    assert logger.name == "proj.tasks"
    assert logger.parent is logging.getLogger(TASK_LOGGER_NAME)
    assert get_task_logger("proj.tasks") is logger
    with pytest.raises(RuntimeError, match="reserved"):
        get_task_logger(TASK_LOGGER_NAME)


def test_s21_a_line_of_a_task_bears_its_name_and_id(app: App, untouched: None) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TaskFormatter(TASK_LOG_FORMAT, use_color=False))
    logger = get_task_logger("proj.lines")
    logging.getLogger(TASK_LOGGER_NAME).handlers = [handler]
    logging.getLogger(TASK_LOGGER_NAME).setLevel("INFO")

    @app.task(name="tasks.add")
    def add() -> None:
        logger.info("adding")

    add.apply(task_id="id-1")
    logger.info("outside")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("] tasks.add[id-1]: adding")
    assert "INFO/MainProcess" in first
    assert second.endswith("] ???[???]: outside")


def test_lines_are_coloured_only_if_asked() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 1, "text", (), None)
    assert TaskFormatter("%(message)s", use_color=False).format(record) == "text"
    assert TaskFormatter("%(message)s", use_color=True).format(record) == "\x1b[31mtext\x1b[0m"


def test_a_worker_sets_up_logging_once_into_a_file(app: App, tmp_path: Path, untouched: None) -> None:
    file = tmp_path / "log"
    app.conf.worker_log_format = "root: %(message)s"
    app.conf.worker_task_log_format = "%(task_name)s: %(message)s"
    told: list[str] = []
    signals.after_setup_logger.connect(lambda **_k: told.append("root"), weak=False, dispatch_uid="t")
    signals.after_setup_task_logger.connect(lambda **_k: told.append("task"), weak=False, dispatch_uid="t")
    try:
        assert app.log.setup("INFO", str(file), redirect_stdouts=True)
        assert not app.log.setup("DEBUG", str(file))
    finally:
        signals.after_setup_logger.disconnect(dispatch_uid="t")
        signals.after_setup_task_logger.disconnect(dispatch_uid="t")
    assert told == ["root", "task"]
    logging.getLogger("any").info("plain")
    get_task_logger("proj.file").info("of a task")
    sys.stdout.write("printed")
    assert file.read_text().splitlines() == ["root: plain", "???: of a task", "???: printed"]


def test_a_receiver_of_setup_logging_keeps_ours_away(app: App, untouched: None) -> None:
    handlers = list(logging.getLogger().handlers)
    got: list[dict[str, Any]] = []
    signals.setup_logging.connect(lambda **kwargs: got.append(kwargs), weak=False, dispatch_uid="t")
    try:
        assert not app.log.setup("INFO")
    finally:
        signals.setup_logging.disconnect(dispatch_uid="t")
    assert logging.getLogger().handlers == handlers
    assert got[0]["loglevel"] == logging.INFO


def test_what_is_printed_is_logged_line_by_line_and_never_twice() -> None:
    logged: list[tuple[int, str]] = []

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append((record.levelno, record.getMessage()))
            proxy.write("from inside the handler")

    logger = logging.getLogger("proxied")
    logger.propagate = False
    logger.addHandler(Printing())
    proxy = LoggingProxy(logger, "WARNING")
    assert proxy.write("one\n") == 4
    proxy.writelines(["two\n", "  \n"])
    proxy.write(b"three")
    proxy.close()
    proxy.write("four")
    assert logged == [(logging.WARNING, "one"), (logging.WARNING, "two"), (logging.WARNING, "three")]
    assert not proxy.isatty()


def test_levels_are_names_or_numbers() -> None:
    assert (level_number("info"), level_number(5), level_number(None)) == (20, 5, 30)
    with pytest.raises(ValueError, match="no log level 'LOUD'"):
        level_number("LOUD")
