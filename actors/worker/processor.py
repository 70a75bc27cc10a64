"""How long a thread was ready to run and had no processor: what the machine owes it, and no body is to blame for.

Linux counts it for each thread. Elsewhere, or where the kernel does not tell, it is 0 for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

#: The kernel's line: nanoseconds on a processor, nanoseconds of waiting for one, time slices.
_LINE_BYTES_MAX = 128


def waiting_of_this_thread() -> Callable[[], int]:
    """Return what tells, to any thread, for how many microseconds the present one has waited for a processor so far."""
    try:
        file = os.open(Path(f"/proc/self/task/{threading.get_native_id()}/schedstat"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return lambda: 0

    def waited() -> int:
        try:
            return int(os.pread(file, _LINE_BYTES_MAX, 0).split()[1]) // 1_000
        except (OSError, IndexError, ValueError):
            # The thread is over, or this kernel counts nothing.
            return 0

    return waited
