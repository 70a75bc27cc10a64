"""What an application's settings say of the worker that is to run it: worker_pool and worker_concurrency.

A worker's own command line goes before them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from .control import CHILDREN_MAX, POOLS, Wish

if TYPE_CHECKING:
    from ..app import App

#: Celery's name for the same.
_SAME: Final = {"processes": "prefork"}


def wish_of(app: App, open_to_app: Collection[str]) -> Wish:
    """Return what the application says of its worker. `open_to_app`: of "pool" and "concurrency", what it may say."""
    pool, concurrency = "", 0
    if "pool" in open_to_app:
        said: object = app.conf.worker_pool or ""
        pool = _SAME.get(str(said), str(said))
        if pool and pool not in POOLS:
            return Wish(
                wrong=f"the application's setting worker_pool is {said!r}; there are the pools {', '.join(POOLS)}. "
                "Change it, or start the worker with -P"
            )
    if "concurrency" in open_to_app:
        said = app.conf.worker_concurrency
        # Celery takes 0 and None for one a processor, and texts for numbers.
        text = "0" if said in (None, "auto") else str(said)
        if isinstance(said, bool) or not text.isdecimal() or int(text) > CHILDREN_MAX:
            return Wish(
                wrong=f"the application's setting worker_concurrency is {said!r}; expected a number from 1 to "
                f"{CHILDREN_MAX}, or None for one a processor. Change it, or start the worker with -c"
            )
        concurrency = int(text)
    return Wish(pool, concurrency)
