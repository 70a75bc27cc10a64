"""A node's witness: what becomes of its children, as events of the log.

Owns the words in which forks and deaths are told. A death is written before it is reported to the broker, with what the
page says was running, and by whom the child was ended if that was one of us.
"""

from __future__ import annotations

import logging

from ...transport.clock import system_now
from ...transport.event_log import EventLog, Kind, lane_of
from ...transport.page import DamagedPage, PageContents
from ...transport.verbs import ChildKind
from ...transport.wire.witness import how_it_ended
from ..pool.events import Bury, Fork
from .config import NodeConfig

_log = logging.getLogger("greenroom.node")


class NodeWitness:
    """Writes down one node. Raises OSError when its file cannot be opened."""

    def __init__(self, config: NodeConfig, session: str) -> None:
        self._session = session
        self._lane = lane_of(session)
        self._log = EventLog(
            config.event_log, self._lane, system_now, bytes_max=config.event_log_bytes, on_closed=_closed
        )

    def forked(self, fork: Fork) -> None:
        """A child is about to be made."""
        self._log.note(Kind.FORK, self._lane, child=fork.number, of=ChildKind(fork.kind).name)
        self._log.flush()

    def ready(self) -> None:
        """All ordinary children are ready."""
        self._log.note(Kind.READY, self._lane)
        self._log.flush()

    def died(self, end: Bury, evidence: PageContents | DamagedPage) -> None:
        """A child has ended. One that left in order and ran nothing is no news."""
        ring = evidence.ring if isinstance(evidence, PageContents) else []
        positions = [entry.position for entry in ring if not entry.finished]
        if end.exit_code == 0 and not positions:
            return
        asked = end.orderly or end.timed_out or end.terminated
        by = {"by": "its parent"} if asked else {}
        how = how_it_ended(end.exit_code, end.signal)
        lane = lane_of(f"{self._session}/{end.number}")
        self._log.note(Kind.DEATH, lane, how=how, positions=positions, oom=end.oom, **by)
        self._log.flush()

    def close(self) -> None:
        """The node ends."""
        self._log.close("the node stops")


def _closed(reason: str) -> None:
    _log.warning("event_log_closed: %s; the worker goes on without", reason)
