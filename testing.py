"""Greenroom's test harness, as users import it: a simulated cluster around their tasks, and what may go wrong in it.

This is only a face; what each name is and does stands in `supervisor.harness`. It needs the extra `testing`.
"""

from __future__ import annotations

from .supervisor.harness import faults, inv
from .supervisor.harness.clockwork import Endless
from .supervisor.harness.effects import Effect, Effects, Verdict, record, seen_sometimes, sometimes, yield_point
from .supervisor.harness.escapes import EscapedSimulation
from .supervisor.harness.exhaust import TooMany, Tried, exhaust
from .supervisor.harness.faults import Anchor, Fault, What
from .supervisor.harness.invariants import Vacuous, Violated
from .supervisor.harness.machine import Cluster, ClusterMachine, machine_settings
from .supervisor.harness.processes import NotInTime, RealCluster, RealSent
from .supervisor.harness.scenario import scenario
from .supervisor.harness.sent import Sent
from .supervisor.harness.sim import Sim, simulated
from .supervisor.harness.simulate import simulate
from .supervisor.harness.trace import Event, Kind, Trace
from .supervisor.harness.world import NeverAtRest

__all__ = [
    "Anchor",
    "Cluster",
    "ClusterMachine",
    "Effect",
    "Effects",
    "Endless",
    "EscapedSimulation",
    "Event",
    "Fault",
    "Kind",
    "NeverAtRest",
    "NotInTime",
    "RealCluster",
    "RealSent",
    "Sent",
    "Sim",
    "TooMany",
    "Trace",
    "Tried",
    "Vacuous",
    "Verdict",
    "Violated",
    "What",
    "exhaust",
    "faults",
    "inv",
    "machine_settings",
    "record",
    "scenario",
    "seen_sometimes",
    "simulate",
    "simulated",
    "sometimes",
    "yield_point",
]

if __name__ == "__main__":
    import sys

    from .supervisor.harness.selftest.table import main

    sys.exit(main())
