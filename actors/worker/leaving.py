"""Ending this process at once, with the exit code that a body asked for.

A body that calls sys.exit is a lost worker, as in Celery: its process ends, whatever else runs in it, and its page
shows that it had started and not finished. What was printed and logged still gets out.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

logger = logging.getLogger("greenroom.worker")

#: A thread of the child's own has failed: it is not to go on without it.
EXIT_BROKEN = 70


def exit_code_of(error: SystemExit) -> int:
    """Return the exit code that Python itself would make of this; what is no number is printed, and is 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def leave_now(error: SystemExit) -> NoReturn:
    """End the process, from any thread."""
    code = exit_code_of(error)
    try:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def guarded(run: Callable[[], object]) -> Callable[[], None]:
    """Return what a thread of ours runs: if it fails, or a user's code in it calls sys.exit, the child ends."""

    def guard() -> None:
        try:
            run()
        except SystemExit as error:
            leave_now(error)
        except BaseException:
            # The parent learns of it by the exit code and the page, people by the log.
            logger.critical("a thread of this child has failed; the child ends", exc_info=True)
            leave_now(SystemExit(EXIT_BROKEN))

    return guard
