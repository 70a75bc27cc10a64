"""Who sends, and how messages are numbered: ids and the origin, right after a fork too."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

import uuid_utils

uuid7: Final[Callable[[], object]] = uuid_utils.uuid7
_make_id = uuid7
_origin = ""


def new_id() -> str:
    """Return an id that nobody else has or will have; ids of one process sort by time."""
    return str(_make_id())


def make_ids_with(make: Callable[[], object]) -> None:
    """Say how ids are made from now on: a simulated world numbers its own, so that each of its runs has the same."""
    global _make_id
    _make_id = make


def origin() -> str:
    """Return how this process names itself to those that get its messages, as in `gen4242@host`."""
    global _origin
    if not _origin:
        _origin = f"gen{os.getpid()}@{socket.gethostname()}"
    return _origin


def _forked() -> None:
    # A child has the parent's random state, and would make the parent's next ids.
    global _origin
    _origin = ""
    uuid_utils.reseed_rng()


os.register_at_fork(after_in_child=_forked)
