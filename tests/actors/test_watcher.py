"""The watcher: which bodies are long, and which had only no processor."""

from __future__ import annotations

import threading
import time

from greenroom.actors.worker.processor import waiting_of_this_thread
from greenroom.actors.worker.watcher import BodyAge
from greenroom.actors.worker.window import LONG_BODY

BEGAN = 1_000_000


def test_d5_a_body_is_long_once_it_has_run_for_long() -> None:
    age = BodyAge()
    assert not age.is_long(BEGAN, BEGAN + 1_000, 0)
    assert not age.is_long(BEGAN, BEGAN + LONG_BODY - 1, 0)
    assert age.is_long(BEGAN, BEGAN + LONG_BODY, 0)
    assert age.is_long(BEGAN, BEGAN + 2 * LONG_BODY, 0)


def test_d5_a_body_that_had_no_processor_is_not_long() -> None:
    age = BodyAge()
    assert not age.is_long(BEGAN, BEGAN + 1_000, 70_000)
    assert not age.is_long(BEGAN, BEGAN + 3 * LONG_BODY, 70_000 + 3 * LONG_BODY - 1_000)
    # It goes on, and has one.
    assert not age.is_long(BEGAN, BEGAN + 4 * LONG_BODY - 1_001, 70_000 + 3 * LONG_BODY - 1_000)
    assert age.is_long(BEGAN, BEGAN + 4 * LONG_BODY, 70_000 + 3 * LONG_BODY - 1_000)


def test_d5_what_was_before_the_first_look_counts_only_where_it_was_short() -> None:
    age = BodyAge()
    assert not age.is_long(BEGAN, BEGAN + 3 * LONG_BODY, 0)
    assert not age.is_long(BEGAN, BEGAN + 4 * LONG_BODY - 1, 0)
    assert age.is_long(BEGAN, BEGAN + 4 * LONG_BODY, 0)


def test_d5_the_next_body_begins_anew() -> None:
    age = BodyAge()
    assert not age.is_long(BEGAN, BEGAN + 1_000, 0)
    assert age.is_long(BEGAN, BEGAN + LONG_BODY, 0)
    assert not age.is_long(BEGAN + LONG_BODY, BEGAN + LONG_BODY + 1_000, 0)


def test_the_wait_for_a_processor_is_told_to_other_threads_and_only_grows() -> None:
    waited = waiting_of_this_thread()
    before = waited()
    assert before >= 0
    told: list[int] = []
    other = threading.Thread(target=lambda: told.append(waited()))
    other.start()
    other.join(10)
    assert told[0] >= before
    assert waited() >= told[0]


def test_a_thread_that_sleeps_waits_for_no_processor() -> None:
    """Else a body that waits for a disk or a peer would never be long."""
    waited = waiting_of_this_thread()
    before, began = waited(), time.monotonic()
    threading.Event().wait(0.05)
    slept = (time.monotonic() - began) * 1e6
    assert waited() - before < slept / 2
