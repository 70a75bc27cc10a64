"""Greenroom's test harness, as users import it: a simulated cluster around their tasks, and what may go wrong in it.

This is only a face; what each name is and does stands in `supervisor.harness`. It needs the extra `testing`.
"""

from __future__ import annotations

from .supervisor.harness import faults
from .supervisor.harness.clockwork import Endless
from .supervisor.harness.faults import Anchor, Fault, What
from .supervisor.harness.sent import Sent
from .supervisor.harness.sim import Sim, simulated
from .supervisor.harness.simulate import simulate
from .supervisor.harness.trace import Event, Kind, Trace
from .supervisor.harness.world import NeverAtRest

__all__ = [
    "Anchor",
    "Endless",
    "Event",
    "Fault",
    "Kind",
    "NeverAtRest",
    "Sent",
    "Sim",
    "Trace",
    "What",
    "faults",
    "simulate",
    "simulated",
]
