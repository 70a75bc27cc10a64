"""Running somebody's command with more in its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from ..pool.kernel import die_with_parent

EXIT_NOT_FOUND = 127
#: Signals that are for the command.
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command until it ends; return its exit code, 128 + n after signal n, 127 if it cannot be run.

    A first word that ends in .py is run by this Python. Ctrl-C reaches the command by the terminal, and TERM and HUP
    are passed on to it; it is waited for. It is told to end (TERM) when this process is killed. Must be called in the
    main thread.
    """
    words = [sys.executable, *command] if command[0].endswith(".py") else list(command)
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def passed_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    before = {number: signal.signal(number, passed_on) for number in PASSED_ON}
    # Not ignored, which the command would inherit.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        try:
            process = subprocess.Popen(words, env={**os.environ, **environment}, preexec_fn=_begin)
        except OSError as error:
            sys.stderr.write(f"greenroom: {words[0]} cannot be run: {error.strerror}\n")
            return EXIT_NOT_FOUND
        for number in early:
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _begin() -> None:
    """In the new process, before it executes the command."""
    die_with_parent(signal.SIGTERM)
