"""Log lines to a pipe that perhaps nobody reads."""

from __future__ import annotations

import logging
import os

from greenroom.supervisor.cluster.stderr import StderrHandler


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "x.py", 1, text, None, None)


def test_a_line_is_written_when_somebody_reads() -> None:
    reader, writer = os.pipe()
    StderrHandler(writer).emit(record("hello"))
    assert os.read(reader, 100) == b"hello\n"
    os.close(reader)
    os.close(writer)


def test_lines_that_nobody_reads_are_dropped_and_counted_and_hold_nobody_up() -> None:
    reader, writer = os.pipe()
    handler = StderrHandler(writer)
    while not handler.dropped:
        handler.emit(record("x" * 4000))
    handler.emit(record("y"))
    assert handler.dropped == 2
    while len(os.read(reader, 65536)) == 65536:
        pass
    handler.emit(record("again"))
    assert os.read(reader, 65536).endswith(b"(2 lines before this found no reader)\nagain\n")
    assert handler.dropped == 0
    os.close(reader)
    os.close(writer)


def test_a_descriptor_that_is_closed_ends_nothing() -> None:
    reader, writer = os.pipe()
    handler = StderrHandler(writer)
    os.close(reader)
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        handler.emit(record("nobody"))
    finally:
        logging.raiseExceptions = before
        os.close(writer)
