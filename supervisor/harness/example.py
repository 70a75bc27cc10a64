"""One example: a test on one simulated cluster, what it tells when it fails, and whether it goes the same way twice.

A failure is raised as it is, so that Hypothesis tells different ones apart; the report is a note on it. Reports are
made for the last run of a failure only, the one that is shown.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version

from hypothesis.control import current_build_context, currently_in_test_context
from hypothesis.core import encode_failure
from hypothesis.errors import HypothesisException

from .course import Course
from .invariants import Violated
from .options import options
from .report import Report, first_divergence, report, write_page
from .sim import Sim
from .trace import Event, Kind

Make = Callable[[], AbstractContextManager[Sim]]


class NotDeterministic(AssertionError):
    """Raised when an example goes another way at its second time."""


def run_example(make: Make, test: Callable[[Sim], object], course: Course, name: str = "") -> None:
    """Run a test on a cluster; with `--gr-check-determinism` on two that must go alike. `name`: what its test calls
    this example, and knows it by (`--gr-replay`), where it is not Hypothesis's.

    Raises what the test raises, or the promise of the cluster that was broken under it; with a report as its note. And
    NotDeterministic.
    """
    before = _run(make, test, course, name)
    if options().check_determinism:
        again = _run(make, test, course, name)
        parted = first_divergence(before, again)
        if parted is not None:
            place, one, other = parted
            raise NotDeterministic(
                f"the same example went two ways: event {place} was {_words(one)} at first, and then {_words(other)}"
            )


def _run(make: Make, test: Callable[[Sim], object], course: Course, name: str) -> list[Event]:
    with make() as sim:
        try:
            test(sim)
            sim.check()
        except HypothesisException:
            raise  # the engine's own: an example that is not one
        except Exception as error:
            telling = sim.most_telling(error)
            tell(sim, telling, course, name)
            if telling is error:
                raise
            raise telling from error
        course.passed(sim)
        return sim.trace.events


def tell(sim: Sim, error: Exception, course: Course, name: str = "") -> None:
    """An example has failed with this: note the report on it, if this is the run that is shown."""
    course.failed(sim)
    if is_last():
        told = report_of(sim, error, replay_of(name), course.words())
        error.add_note(told.text())
        folder = options().timeline
        if folder is not None:
            error.add_note(f"timeline: {write_page(told, sim.trace.events, folder)}")


def report_of(sim: Sim, error: BaseException, replay: str = "", found: str = "") -> Report:
    """Return what there is to tell of a failure. `found`: by which search."""
    sentence = str(error).partition("\n")[0] or "the test's own assertion does not hold"
    plan = sim.plan.words(sim.injector.done)
    known = ", ".join(part for part in (f"greenroom {version('greenroom')}", found) if part)
    if not isinstance(error, Violated):
        return report(type(error).__name__, sentence, sim.trace, deviations=plan, replay=replay, found=known)
    about = {id: None for event in sim.trace.events if event.kind is Kind.PUBLISH for id in event.facts["ids"]}
    return report(
        f"{error.invariant} violated",
        error.detail,
        sim.trace,
        about=[id for id in about if id == error.about or id in error.detail],
        deviations=plan,
        replay=replay,
        broken_at=error.event,
        promise=error.sentence,
        found=known,
    )


def is_last() -> bool:
    """Tell whether this run of a failing example is the one that is shown."""
    return not currently_in_test_context() or current_build_context().is_final


def replay_of(name: str = "") -> str:
    """Return the command that runs this example again; empty outside of Hypothesis, unless it has a name."""
    if currently_in_test_context():
        name = encode_failure(current_build_context().data.choices).decode()
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    return f"pytest '{test}' --gr-replay={shlex.quote(name)}" if name else ""


def _words(event: Event | None) -> str:
    return "nothing" if event is None else f"'{event.words()}' on {event.lane} at {event.at} us"
