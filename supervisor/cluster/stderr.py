"""Logging to a stderr that perhaps nobody reads.

A parent that waits in a write to a full pipe notices no death and stamps no page: its children would stop because of
a log line. So a line is written when there is room for it, and dropped and counted when there is none.
"""

from __future__ import annotations

import logging
import os
import select

#: A pipe is ready for output when it has room for this many bytes (PIPE_BUF), and takes them without waiting.
_PIECE_BYTES = 4096


class StderrHandler(logging.Handler):
    """Writes records to a descriptor, by default stderr's, and never waits for whoever reads it."""

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        #: Lines that found no room since the last one that did.
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it."""
        try:
            text = self.format(record)
            if self.dropped:
                text = f"({self.dropped} lines before this found no reader)\n{text}"
            self.dropped = 0 if self._write(f"{text}\n".encode(errors="backslashreplace")) else self.dropped + 1
        except Exception:
            # As in every handler of the standard library: a record that cannot be written must not end the program.
            self.handleError(record)

    def _write(self, data: bytes) -> bool:
        """Write it; False if there was no room for the whole of it."""
        while data:
            if not self._poll.poll(0):
                return False
            data = data[os.write(self._descriptor, data[:_PIECE_BYTES]) :]
        return True
