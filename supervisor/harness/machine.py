"""`ClusterMachine`: a Hypothesis state machine whose system under test is a cluster, with faults among its rules.

Owns the life of the cluster beside the rules of a test: it is up before the first rule, its order of turns is drawn
like the arguments of rules, time passes by a rule, things go wrong by rules, and in the end everything must come to
rest (`teardown`). It is judged by its own promises (`inv`) beside those of the test. The rules of faults stand in the
class like the user's own, and a subclass takes one away by setting its name to None.

    class Shop(ClusterMachine):
        cluster = Cluster(app, workers=3)

        @rule(order=st.integers())
        def order(self, order): self.send(charge, order)

        @invariant()
        def no_double_charge(self): assert len(charged) == len(set(charged))

    TestShop = Shop.TestCase
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from hypothesis import HealthCheck, Phase, reproduce_failure, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ...actors.app import App
from ...actors.tasks.task import Task
from ...transport.broker.settings import BrokerSettings
from .course import Course
from .disks import StoreName
from .drawing import Plan, faults_of, schedules
from .example import tell
from .faults import Fault, default
from .inv import covered
from .options import options
from .sent import Sent
from .sim import ClientOf, Sim, Whom

R = TypeVar("R")

#: How many sequences of rules are tried.
EXAMPLES: Final = 100


class Cluster(msgspec.Struct, frozen=True):
    """What the cluster of a machine is made of."""

    app: App
    workers: int = 1
    children: int = 1
    clients: int = 1
    store: StoreName = "memory"
    pool: str = "prefork"
    slots: int = 1
    broker: BrokerSettings | None = None
    #: The promises that it is judged by; None: all.
    invariants: Sequence[str] | None = None
    #: Those that must have had occasion to be broken in some example of `TestCase`.
    covers: Sequence[str] = ()

    def start(self) -> Sim:
        """Return it, up and running; who has it calls `close`."""
        plan = Plan(nodes=self.workers, children=self.children, clients=self.clients)
        return Sim(
            self.app,
            plan,
            store=self.store,
            pool=self.pool,
            slots=self.slots,
            settings=self.broker,
            invariants=self.invariants,
        )

    @staticmethod
    def worker() -> st.SearchStrategy[Whom]:
        """Draw a worker of the machine whose rule this is for."""
        return _place(lambda machine: machine.cluster.workers).flatmap(
            lambda number: st.runner().map(lambda machine: machine.sim.worker(number))
        )

    @staticmethod
    def client() -> st.SearchStrategy[ClientOf]:
        """Draw a client of the machine whose rule this is for."""
        return _place(lambda machine: machine.cluster.clients).flatmap(
            lambda number: st.runner().map(lambda machine: machine.sim.client(number))
        )


def _place(count: Callable[[Any], int]) -> st.SearchStrategy[int]:
    return st.runner().flatmap(lambda machine: st.integers(0, count(machine) - 1))


def machine_settings(examples: int = EXAMPLES, **more: Any) -> settings:
    """Return settings of Hypothesis's for machines of clusters: without the phase that explains by tracing each line
    that runs, which are a cluster's and a hundred times as many as a test's own."""
    phases = [phase for phase in Phase if phase is not Phase.explain]
    chosen: dict[str, Any] = {
        "max_examples": options().examples_of(examples),
        "deadline": None,
        "phases": phases,
        # A broken promise is raised wherever it is seen, which is one failure in many places.
        "report_multiple_bugs": False,
        "suppress_health_check": list(HealthCheck),
    }
    return settings(**chosen | more)


class ClusterMachine(RuleBasedStateMachine):
    """Subclass it, give it a `cluster`, and write rules."""

    cluster: ClassVar[Cluster]
    _course: ClassVar[Course]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cluster: Cluster | None = getattr(cls, "cluster", None)
        cls._course = Course(covered(cluster.covers, cluster.invariants) if cluster is not None else ())

    def __init__(self) -> None:
        super().__init__()
        self.sim = self.cluster.start()
        self._failed = False
        #: What is being handled around this example, and is none of its.
        self._around = sys.exc_info()[1]

    @classmethod
    def _to_test_case(cls) -> Any:  # type: ignore[override]
        """The base class's `TestCase`, without what costs much and tells little of a cluster."""
        case: Any = super()._to_test_case()
        case.settings = machine_settings()
        asked = options()
        if asked.replay:
            reproduce_failure(version("hypothesis"), asked.replay.encode())(cls)
        if asked.seed is not None:
            seed(asked.seed)(cls)
        once = case.runTest

        def run(test: Any) -> None:
            cls._course.run(lambda: once(test), lambda number: seed(number)(cls))

        run.__dict__ = once.__dict__
        case.runTest = run
        case.is_simulated = True
        return case

    # --- for the rules of a test ---------------------------------------------------------------------------------

    @property
    def client(self) -> ClientOf:
        """The first client."""
        return self.sim.client(0)

    def send(self, task: Task[..., R], *args: Any, **kwargs: Any) -> Sent[R]:
        """Send a call as the first client, without waiting."""
        return self.sim.send(task, *args, **kwargs)

    def at_rest(self) -> None:
        """Called when the faults are over and everything has come to rest: what must hold in the end stands here."""

    # --- rules that every cluster has ----------------------------------------------------------------------------

    @initialize(turns_and_jitter=schedules())
    def take_turns(self, turns_and_jitter: tuple[list[tuple[int, int]], int]) -> None:
        """Draw in which order the cluster's parts have their turns."""
        self.sim.schedule.follow(*turns_and_jitter)

    @rule(seconds=st.sampled_from((0.001, 0.01, 0.1, 1.0)))
    def let_time_pass(self, seconds: float) -> None:
        """Let the cluster work for a while."""
        self.sim.run_for(seconds)

    @rule(fault=st.deferred(lambda: faults_of(default())))
    def something_goes_wrong(self, fault: Fault) -> None:
        """Let a fault wait for its moment."""
        self.sim.injector.arm(fault)

    # --- its end -------------------------------------------------------------------------------------------------

    def check_invariants(self, settings: Any, output: Any, runtimes: Any) -> None:
        """Check what must always hold, of any cluster and as the test says, and tell of this one if it does not."""
        try:
            self.sim.check()
            super().check_invariants(settings, output, runtimes)
        except Exception as error:
            self._tell(error)
            raise

    def teardown(self) -> None:
        """Stop the faults, wait for rest, check what must hold then, and let go of the cluster."""
        raised = sys.exc_info()[1]
        is_ours = raised is not self._around and isinstance(raised, Exception)
        try:
            if isinstance(raised, Exception) and is_ours and not isinstance(raised, HypothesisException):
                if not self._failed:
                    self._tell(raised)
            elif not self._failed:
                self.sim.settle()
                self.at_rest()
                self.sim.check()
                self._course.passed(self.sim)
        except Exception as error:
            self._tell(error)
            raise
        finally:
            self.sim.close()

    def _tell(self, error: Exception) -> None:
        self._failed = True
        telling = self.sim.most_telling(error)
        tell(self.sim, telling, self._course)
        if telling is not error:
            raise telling from error
