"""A delivery in a runner's thread: what nothing should come to, and what comes of it all the same."""

from __future__ import annotations

import logging

from greenroom.actors.worker.limits import ThreadTarget
from greenroom.actors.worker.threads import run_in_thread

from .test_execute import Bench, error_of, result_of


def test_a_message_of_a_kind_that_is_not_known_fails_in_words() -> None:
    bench = Bench()
    held = bench.held("whatever")
    held.delivery.envelope.kind = 99
    failure = result_of(bench.executor.run(held)).failure
    assert failure is not None
    assert "kind 99" in failure.text


class Refusing(logging.Handler):
    """A handler that lets its error out, as those of the standard library never do."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log is closed")


def test_g7_a_log_that_raises_ends_no_process_that_runs_others() -> None:
    bench = Bench()

    @bench.app.task(name="fails")
    def fails() -> None:
        raise KeyError("missing")

    handler = Refusing()
    logging.getLogger("greenroom").addHandler(handler)
    try:
        error = error_of(run_in_thread(bench.executor, bench.held(fails), ThreadTarget()))
    finally:
        logging.getLogger("greenroom").removeHandler(handler)
    assert isinstance(error, RuntimeError)
