"""`@simulate`: a test whose example is a whole cluster, and Hypothesis looks for the one that breaks it.

Owns how a test function becomes a property: its first parameter is the cluster; parameters whose default is a
Hypothesis strategy are drawn; the others are pytest's fixtures. The cluster's plan is drawn in the same example, so
that workload, faults and schedule shrink together.

The cluster is judged by its own promises as well (`inv`), whatever the test asks. What fails is raised as it is, with
a report as its note: the plan, the trace's hash and how to have it again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.metadata import version
from typing import Any, Final, TypeGuard

from hypothesis import HealthCheck, Phase, given, reproduce_failure, seed, settings
from hypothesis import strategies as st

from ...actors.app import App
from ...transport.broker.settings import BrokerSettings
from .course import Course
from .disks import StoreName
from .drawing import Plan, Range, plans
from .example import run_example
from .faults import What, default
from .inv import covered
from .options import options
from .sim import simulated

EXAMPLES: Final = 500
_PLAN: Final = "simulated_plan"


def simulate(
    app: App,
    *,
    clients: int = 1,
    workers: Range = (1, 3),
    children: Range = (1, 2),
    faults: Sequence[What] | None = None,
    examples: int = EXAMPLES,
    store: StoreName = "memory",
    pool: str = "prefork",
    slots: int = 1,
    broker: BrokerSettings | None = None,
    invariants: Sequence[str] | None = None,
    covers: Sequence[str] = (),
    plan: st.SearchStrategy[Plan] | None = None,
    **hypothesis: Any,
) -> Callable[[Callable[..., object]], Callable[..., None]]:
    """Make a test of a function of a simulated cluster.

    `workers` and `children` (worker nodes, children of each) are numbers or ranges. `faults` are the kinds that may
    happen (None: `faults.default()`). `examples` is how many clusters are tried. `broker` are the broker's settings,
    `hypothesis` further settings of Hypothesis's.

    `invariants` are the promises of a cluster's that each is judged by (names of `inv`; None: all). `covers` are those
    of them that must have had occasion to be broken in some example: the whole run raises Vacuous otherwise. `plan`
    draws clusters and faults in the place of `clients`, `workers`, `children` and `faults`.

        @simulate(app, clients=2, workers=(1, 3))
        def test_orders(sim, orders=st.lists(st.integers(), max_size=10)):
            sent = [sim.client(0).send(charge, order) for order in orders]
            sim.settle()
            assert all(one.state == "SUCCESS" for one in sent)

    Raises TypeError for a function without a parameter for the cluster, ValueError for a name that no invariant has.
    """
    course = Course(covered(covers, invariants))
    drawn_plan = (
        plan
        if plan is not None
        else plans(
            clients=clients,
            workers=workers,
            children=children,
            faults=default() if faults is None else faults,
            store=store,
        )
    )

    def decorate(test: Callable[..., object]) -> Callable[..., None]:
        sim_name, strategies, signature = _read(test)

        @wraps(test)
        def example(**arguments: Any) -> None:
            drawn: Plan = arguments.pop(_PLAN)
            if course.is_over:
                return
            run_example(
                lambda: simulated(
                    app, drawn, store=store, pool=pool, slots=slots, settings=broker, invariants=invariants
                ),
                lambda sim: test(**{sim_name: sim}, **arguments),
                course,
            )

        example.__signature__ = signature  # type: ignore[attr-defined]
        tried = given(**{_PLAN: drawn_plan}, **strategies)(example)
        return _whole(_as_asked(settings(**_settings(examples, hypothesis))(tried)), course)

    return decorate


def _whole(tried: Callable[..., None], course: Course) -> Callable[..., None]:
    """Return a test of Hypothesis's as one whose end is noticed."""

    def run(*given: Any, **fixtures: Any) -> None:
        course.run(lambda: tried(*given, **fixtures), lambda number: seed(number)(tried))

    run.__name__, run.__qualname__, run.__doc__ = tried.__name__, tried.__qualname__, tried.__doc__
    run.__module__ = tried.__module__
    # One set of attributes: what others put on the test, as `@example` does, Hypothesis finds where it looks.
    run.__dict__ = tried.__dict__
    run.__signature__ = inspect.signature(tried)  # type: ignore[attr-defined]
    run.is_simulated = True  # type: ignore[attr-defined]
    return run


def _settings(examples: int, more: dict[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "max_examples": options().examples_of(examples),
        "deadline": None,
        "print_blob": False,
        # A broken promise is raised wherever it is seen, which is one failure in many places.
        "report_multiple_bugs": False,
        "phases": [phase for phase in Phase if phase is not Phase.explain],
        "suppress_health_check": [
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.function_scoped_fixture,
            HealthCheck.large_base_example,
        ],
    }
    return chosen | more


def _as_asked(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test of Hypothesis's begin, or go, where the command line says."""
    asked = options()
    if asked.replay:
        test = reproduce_failure(version("hypothesis"), asked.replay.encode())(test)
    return test if asked.seed is None else seed(asked.seed)(test)


def _is_strategy(value: object) -> TypeGuard[st.SearchStrategy[Any]]:
    return isinstance(value, st.SearchStrategy)


def _read(test: Callable[..., object]) -> tuple[str, dict[str, st.SearchStrategy[Any]], inspect.Signature]:
    """Return the cluster's name in a test, its strategies, and the signature that Hypothesis and pytest shall see."""
    signature = inspect.signature(test)
    parameters = list(signature.parameters.values())
    if not parameters or isinstance(parameters[0].default, st.SearchStrategy):
        raise TypeError(f"{test.__qualname__} needs a first parameter for the cluster: def {test.__name__}(sim, ...)")
    sim, *others = parameters
    strategies = {p.name: p.default for p in others if _is_strategy(p.default)}
    seen = [p.replace(default=p.empty) if p.name in strategies else p for p in others]
    plan = inspect.Parameter(_PLAN, inspect.Parameter.KEYWORD_ONLY)
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in seen]
    return sim.name, strategies, inspect.Signature([*keyword_only, plan])
