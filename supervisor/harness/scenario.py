"""`@scenario`: an exact script over a calm cluster, for bugs that were found once and shall not come back.

Owns how such a test is run: its first parameter is the cluster, nothing is drawn, and a failure has the same report
as one that Hypothesis found.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ...actors.app import App
from .course import Course
from .drawing import Plan
from .example import run_example
from .inv import covered
from .sim import simulated


def scenario(
    app: App, *, workers: int = 1, children: int = 1, clients: int = 1, covers: Sequence[str] = (), **more: Any
) -> Callable[[Callable[..., object]], Callable[..., None]]:
    """Make a test of a script: a function of a cluster and of pytest's fixtures. `more` are options of `Sim`.

    It is judged by the cluster's own promises as well; `covers` are those that must have had occasion to be broken.

        @scenario(app)
        def test_ack_lost_after_result(sim):
            sent = sim.send(charge, 1)
            sim.at("ACK", task=sent).drop()
            sim.settle()
            assert sent.starts == 1

    Raises TypeError for a function without a parameter for the cluster, ValueError for a name that no invariant has.
    """
    course = Course(covered(covers, more.get("invariants")))
    plan = Plan(workers, children, clients)

    def decorate(test: Callable[..., object]) -> Callable[..., None]:
        signature = inspect.signature(test)
        if not signature.parameters:
            raise TypeError(
                f"{test.__qualname__} needs a first parameter for the cluster: def {test.__name__}(sim, ...)"
            )
        name, *_ = signature.parameters

        @wraps(test)
        def run(**arguments: Any) -> None:
            course.begin()
            run_example(lambda: simulated(app, plan, **more), lambda sim: test(**{name: sim}, **arguments), course)
            course.require()

        others = [parameter for parameter in signature.parameters.values() if parameter.name != name]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return decorate
