"""A descriptor that any thread or signal handler can make readable, to end a poll.

Many calls of `wake` before one `clear` make it readable once.
"""

from __future__ import annotations

import contextlib
import os
import select


class Wakeup:
    """One end of a poll's wake-up call. `fileno()` is readable between `wake` and `clear`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return what to poll for input."""
        return self._reader

    def wake(self) -> None:
        """End the poll, now or as soon as it begins. For any thread and for signal handlers; never blocks."""
        # A full pipe is readable already; a closed one has nobody to wake.
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._writer, b"\0")

    def wait(self, timeout_milliseconds: int) -> None:
        """Wait until somebody wakes it, so long at most."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.poll(timeout_milliseconds)

    def clear(self) -> None:
        """Take back what woke the poll. Whoever wakes must have made its reason visible before."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._reader, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reader)
        os.close(self._writer)
