"""Running somebody's command with more in its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command until it ends; return its exit code, 128 + n after signal n.

    A first word that ends in .py is run by this Python. Ctrl-C reaches the command by the terminal; it is waited for.
    """
    words = [sys.executable, *command] if command[0].endswith(".py") else list(command)
    try:
        process = subprocess.Popen(words, env={**os.environ, **environment})
    except OSError as error:
        sys.stderr.write(f"greenroom: {words[0]} cannot be run: {error.strerror}\n")
        return 127
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code
