"""The limits of one pool of child processes, each with its default and its reason.

Owns the struct alone; what is done at a limit is decided in `machine`. Durations are integer microseconds.
"""

from __future__ import annotations

import msgspec

from ...actors.worker.control import CHILDREN_MAX
from ...transport.clock import MICROSECONDS
from ...transport.verbs import ChildKind
from ..spec import Backoff


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many children a pool keeps, how long they may take, and how often they may fail to start."""

    #: Ordinary children (`ChildKind.POOL`).
    concurrency: int = 1
    #: Most children for suspects, and for actors, that a broker can ask for (D25). 0: as many as concurrency.
    quarantine_max: int = 0
    actors_max: int = 0
    #: Actors of one child whose handlers run, or wait for each other's answers, at the same time: with one alone, an
    #: actor that asks its neighbour would wait for itself.
    actor_slots: int = 16
    #: From the fork to `Ready`, while the node's broker can be reached (Celery's worker_proc_alive_timeout).
    start_timeout: int = 60 * MICROSECONDS
    #: More deaths before `Ready` than this within the period, and the pool gives up (spec S1).
    start_failures_max: int = 5
    start_failures_period: int = 60 * MICROSECONDS
    #: Delay of the next fork after such a death (spec S8).
    start_backoff: Backoff = Backoff(0.1, 2.0)
    #: The same after a SIGKILL from outside, which says nothing about the application and is not counted.
    killed_delay: int = MICROSECONDS // 10
    #: A child that crashes within this time of `Ready` and has run nothing counts as one that did not start.
    young: int = MICROSECONDS
    #: Deaths at work, of children of one kind, within the period: as many have a successor at once (or twice as many
    #: as there should be of that kind, if that is more); then successors wait (`pace`). Crashes are the process's own
    #: doing; kills may come from outside, such as once every half second by somebody who tries what happens.
    crashes_max: int = 30
    kills_max: int = 90
    deaths_period: int = 20 * MICROSECONDS
    #: How long successors wait then. After a kill less than the second within which work is to go on.
    crash_backoff: Backoff = Backoff(0.1, 5.0)
    kill_backoff: Backoff = Backoff(0.1, 0.8)
    #: A child that had finished so many bodies was healthy, however short its life.
    healthy_bodies: int = 10
    #: More deaths of the spawner than this within `start_failures_period`, and the pool gives up.
    spawner_deaths_max: int = 5
    #: How long a child that holds nothing (not ready yet, or done) may take to end once it should.
    idle_grace: int = 5 * MICROSECONDS
    #: A cold stop: from the word to the child until SIGTERM, and from there until SIGKILL.
    cold_grace: int = MICROSECONDS
    kill_grace: int = 2 * MICROSECONDS
    #: A cold stop begins as a warm one for this long (Celery's worker_soft_shutdown_timeout).
    soft_stop: int = 0
    #: A child with a body past its hard limit and others within theirs is asked to leave, and looked at so often
    #: whether the others have ended; then it is killed.
    look_again: int = MICROSECONDS
    #: From the signal of a revoke with terminate until SIGKILL.
    terminate_grace: int = 5 * MICROSECONDS

    def most(self, kind: ChildKind) -> int:
        """Return the most children of a kind that a broker may ask for."""
        asked = {ChildKind.QUARANTINE: self.quarantine_max, ChildKind.ACTORS: self.actors_max}.get(kind, 0)
        return min(asked or max(1, self.concurrency), CHILDREN_MAX)
