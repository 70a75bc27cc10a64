"""One fault that strikes: whom, in which world, for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .client import SECOND
from .clocks import HostClock
from .clockwork import Process
from .faults import Fault
from .world import World


class Blow(NamedTuple):
    """What is known where a fault happens. `whom`: a lane, a host, or the id of a message."""

    world: World
    fault: Fault
    whom: str

    @property
    def away(self) -> int:
        """How long it lasts, in microseconds."""
        return round(self.fault.seconds * SECOND)

    @property
    def process(self) -> Process:
        """Who lives on this lane."""
        process = self.world.process(self.whom)
        assert process is not None
        return process

    @property
    def clock(self) -> HostClock:
        """The clock of this host."""
        return self.world.clockwork.clock_of(self.whom)

    def later(self, action: Callable[[], object]) -> None:
        """Do this when it is over."""
        self.world.clockwork.after(self.away, action)
