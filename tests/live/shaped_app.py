"""An application that says in its settings what its worker is like."""

from __future__ import annotations

import os
import threading
import time

from greenroom import App

app = App(
    "shaped_app",
    worker_pool=os.environ.get("SHAPED_POOL", "threads"),
    worker_concurrency=3,
    result_expires=0.5,
    mailbox_max_messages=3,
)
if "SHAPED_THREAD" in os.environ:
    # It cannot be forked after its import.
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


@app.task(name="whoami")
def whoami() -> int:
    return os.getpid()
