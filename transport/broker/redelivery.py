"""Blame: what follows when a delivery ends badly (spec D24-D26, P3-P6).

Pure functions over a message's policy and past. The table:

| how the delivery ended              | early ack      | late ack                                         |
| ----------------------------------- | -------------- | ------------------------------------------------ |
| buffered only                       | back, no blame | back, no blame                                   |
| started, orderly stop (cold), or     | lost           | back, no blame                                   |
| killed for another body's sake      |                |                                                  |
| finished, its outcome never arrived | lost           | back, no blame                                   |
| started, its process died           | lost           | lost; with REJECT_ON_WORKER_LOST blamed, tried   |
|                                     |                | again in quarantine; with RETRY_... retried      |
| hard time limit                     | failed         | failed; with REDELIVER_ON_TIMEOUT blamed, again  |
| started, its whole node was lost    | lost           | node loss counted, again                         |
| leased, no evidence at all          | lost           | node loss counted, again                         |

"lost" is FAILURE WorkerLostError, "failed" FAILURE TimeLimitExceeded. What is tried again is tried within a bound:
with n = max_deliveries, a message that was started n times and each time took its process along is dead. Two
exceptions: a joint death is never the last, one trial alone follows; node losses alone make it dead at max(n, 10),
but from the n-th on it runs in quarantine only. Hard time limits are counted apart, against the same number.
"""

from __future__ import annotations

import enum
import zlib

from ..message import MAX_DELIVERIES_DEFAULT, Flag
from .past import Past

SECOND = 1_000_000
#: Node losses alone make a dead letter at this number, or at the message's own bound if that is higher.
NODE_LOSSES_MAX = 10
DELAY_MAX = 60 * SECOND
#: Up to this share of a delay is added, so that what died together does not come back together.
JITTER = 0.2


class Ending(enum.IntEnum):
    """How a delivery ended, as far as evidence tells."""

    BUFFERED = 0
    ORDERLY = 1
    FINISHED = 2
    DIED = 3
    TIMED_OUT = 4
    NODE_LOST = 5
    UNKNOWN = 6
    TERMINATED = 7


class Verdict(enum.IntEnum):
    """What follows."""

    #: To the head of its mailbox at once, without blame.
    BACK = 0
    #: FAILURE WorkerLostError.
    LOST = 1
    #: FAILURE TimeLimitExceeded.
    FAILED = 2
    #: After the delay of D26, in the mailbox.
    AGAIN = 3
    #: After the delay of D26, in a quarantine child.
    QUARANTINE = 4
    #: Dead letter, FAILURE PoisonMessage.
    DEAD = 5
    #: Celery's retry_on_worker_lost.
    RETRY = 6
    #: REVOKED.
    REVOKED = 7


def judge(ending: Ending, flags: int, past: Past, joint: bool, deliveries_max: int) -> Verdict:
    """Count this ending in `past` where it counts, and say what follows.

    `joint`: other bodies of the same process had started too. `deliveries_max`: 0 is the default, -1 no bound.
    """
    if ending is Ending.BUFFERED:
        return Verdict.BACK
    if ending is Ending.TERMINATED:
        return Verdict.REVOKED
    late = bool(flags & Flag.ACKS_LATE)
    if ending is Ending.TIMED_OUT:
        if not (late and flags & Flag.REDELIVER_ON_TIMEOUT):
            return Verdict.FAILED
        past.timeouts += 1
        return _bounded(past, deliveries_max)
    if not late:
        return Verdict.LOST
    if ending in (Ending.ORDERLY, Ending.FINISHED):
        return Verdict.BACK
    if ending in (Ending.NODE_LOST, Ending.UNKNOWN):
        past.node_losses += 1
        return _bounded(past, deliveries_max)
    if flags & Flag.REJECT_ON_WORKER_LOST:
        if joint:
            past.joint += 1
        else:
            past.solo += 1
        return _bounded(past, deliveries_max, joint=joint)
    if flags & Flag.RETRY_ON_WORKER_LOST:
        return Verdict.RETRY
    return Verdict.LOST


def _bounded(past: Past, deliveries_max: int, *, joint: bool = False) -> Verdict:
    """Within the bound: again, where; at the bound: dead (D24). `joint`: it has just died together with others."""
    bound = deliveries_max or MAX_DELIVERIES_DEFAULT
    deaths = past.solo + past.joint
    if bound < 0:
        return Verdict.QUARANTINE if deaths or past.timeouts else Verdict.AGAIN
    if past.timeouts >= bound:
        return Verdict.DEAD
    if deaths == 0:
        if past.node_losses >= max(bound, NODE_LOSSES_MAX):
            return Verdict.DEAD
    elif deaths + past.node_losses >= bound and not joint:
        return Verdict.DEAD
    return Verdict.QUARANTINE if deaths or past.timeouts or past.node_losses >= bound else Verdict.AGAIN


def delay_before(past: Past, id: str) -> int:
    """Microseconds to wait before the next delivery: none the first time, then 1, 2, 4 ... 60 s and jitter (D26)."""
    return growing_delay(past.bad_ends - 1, id)


def requeue_delay(past: Past, id: str, first: int) -> int:
    """Microseconds before a message that its own body gave back comes again: `first`, doubling to 60 s."""
    return _jittered(min(DELAY_MAX, first << min(max(0, past.requeues - 1), 20)), past.requeues, id)


def growing_delay(steps: int, id: str) -> int:
    """0 for no step, then 1, 2, 4 ... 60 s, with a jitter that the id and the step decide (a core draws nothing)."""
    if steps <= 0:
        return 0
    return _jittered(min(DELAY_MAX, SECOND << min(steps - 1, 20)), steps, id)


def _jittered(delay: int, salt: int, id: str) -> int:
    share = zlib.crc32(f"{id}/{salt}".encode()) / 0xFFFFFFFF
    return delay + int(delay * JITTER * share)
