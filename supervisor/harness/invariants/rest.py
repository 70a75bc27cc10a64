"""Promises about the world when it has come to rest: nothing waits, nothing runs, nothing is left over."""

from __future__ import annotations

from typing import Final

from ....transport.sim.audit import audit, audit_store
from ....transport.verbs import Report, ToBroker
from ..client import SECOND
from ..disks import InMemory
from ..observer import Observer
from ..world import World
from .base import Invariant

#: How long a report may be underway: a link is given up after 6 s, and tried again after 5 s at the most.
REPORT_WITHIN: Final = 15 * SECOND


class Quiesce(Invariant):
    """QUIESCE."""

    name = "QUIESCE"
    sentence = (
        "When faults stop and a worker that knows the task is there, every confirmed task settles within the bound, "
        "and nothing is left: no lease, no timer, no body, no message in two places."
    )
    by_events = False

    def at_rest(self, world: World) -> None:
        """The broker's tables agree with each other and with the store, and no child has anything."""
        self.premises += 1
        core = world.broker.core
        if core is None or not world.broker.is_up:
            self.violated("the broker is not up")
        try:
            audit(core.broker)
            if isinstance(world.disk, InMemory) and not core.waits:
                audit_store(core.broker, world.disk.disk)
        except AssertionError as error:
            self.violated(str(error))
        for child in world.children:
            running = [entry.position for entry in child.look() if not entry.finished]
            if running:
                self.violated(f"{child.lane} still runs {running}, and everything is settled")


class Reported(Invariant, Observer):
    """D14."""

    name = "D14"
    sentence = "Every child that has ended is reported to the broker by its parent, for as long as that one lives."
    by_events = False

    def __init__(self) -> None:
        super().__init__()
        self._reported: dict[str, None] = {}

    def heard(self, session: str, verb: ToBroker) -> None:
        """Take down who was reported."""
        if isinstance(verb, Report):
            self._reported[verb.session] = None

    def at_rest(self, world: World) -> None:
        """Those that ended a while ago have been."""
        now = world.clockwork.now.boot
        for node in world.nodes:
            if not node.alive or node.over is not None:
                continue
            for child in node.all_children:
                if child.ended_at and now - child.ended_at > REPORT_WITHIN:
                    self.premises += 1
                    if child.session not in self._reported:
                        ago = (now - child.ended_at) // SECOND
                        self.violated(f"{child.lane} ended {ago} s ago, and nobody said so")


class OnePlace(Invariant):
    """PLACE: the tables of a broker, at each commit; costs more than the others."""

    name = "PLACE"
    sentence = (
        "At every moment each message is in one place, every count counts it, and nobody waits who could be served."
    )
    by_events = False

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    def look(self) -> None:
        """Judge the broker's tables now, between two passes."""
        core = None if self.world is None else self.world.broker.core
        if core is None or core.stopped is not None or core.broker.recovering:
            return
        self.premises += 1
        try:
            audit(core.broker)
        except AssertionError as error:
            self.violated(str(error))
