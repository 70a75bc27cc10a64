"""One example: a test on one simulated cluster, what it tells when it fails, and whether it goes the same way twice.

A failure is raised as it is, so that Hypothesis tells different ones apart; the report is a note on it. Reports are
made for the last run of a failure only, the one that is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from hypothesis.control import current_build_context, currently_in_test_context
from hypothesis.core import encode_failure
from hypothesis.errors import HypothesisException

from .options import options
from .report import Report, first_divergence, report, write_page
from .sim import Sim
from .trace import Event

Make = Callable[[], AbstractContextManager[Sim]]


class NotDeterministic(AssertionError):
    """Raised when an example goes another way at its second time."""


def run_example(make: Make, test: Callable[[Sim], object]) -> None:
    """Run a test on a cluster; with `--gr-check-determinism` on two that must go alike.

    Raises what the test raises, with a report as its note, and NotDeterministic.
    """
    before = _run(make, test)
    if options().check_determinism:
        again = _run(make, test)
        parted = first_divergence(before, again)
        if parted is not None:
            place, one, other = parted
            raise NotDeterministic(
                f"the same example went two ways: event {place} was {_words(one)} at first, and then {_words(other)}"
            )


def _run(make: Make, test: Callable[[Sim], object]) -> list[Event]:
    with make() as sim:
        try:
            test(sim)
        except HypothesisException:
            raise  # the engine's own: an example that is not one
        except Exception as error:
            if is_last():
                told = report_of(sim, error, replay_of())
                error.add_note(told.text())
                folder = options().timeline
                if folder is not None:
                    error.add_note(f"timeline: {write_page(told, sim.trace.events, folder)}")
            raise
        return sim.trace.events


def report_of(sim: Sim, error: BaseException, replay: str = "") -> Report:
    """Return what there is to tell of a failure."""
    sentence = str(error).partition("\n")[0] or "the test's own assertion does not hold"
    plan = sim.plan.words(sim.injector.done)
    return report(type(error).__name__, sentence, sim.trace, deviations=plan, replay=replay)


def is_last() -> bool:
    """Tell whether this run of a failing example is the one that is shown."""
    return not currently_in_test_context() or current_build_context().is_final


def replay_of() -> str:
    """Return the command that runs this example again; empty outside of Hypothesis."""
    if not currently_in_test_context():
        return ""
    blob = encode_failure(current_build_context().data.choices)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    return f"pytest '{test}' --gr-replay={blob.decode()}"


def _words(event: Event | None) -> str:
    return "nothing" if event is None else f"'{event.words()}' on {event.lane} at {event.at} us"
