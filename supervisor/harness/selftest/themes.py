"""What belongs together in a trial: kinds of fault, and the tasks, pools and disks with which they meet.

Owns the themes. Forty kinds of fault and all tasks in one draw seldom bring together what breaks one promise: a child
must die while outcomes wait in it, a host must be unheard while settles are under way. Each theme draws from little,
and so meets what is rare elsewhere; what comes of kinds that are strangers to each other is drawn beside them
(`scenario.works`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ....transport.verbs import Durability
from ..broker_process import COMMIT_TIME
from ..drawing import NTHS
from ..faults import What
from ..trace import Kind

#: What a commit takes on a slow disk: bodies that are shorter do not wait for it.
SLOW_COMMIT: Final = 10_000
_SHORT: Final = (2.0, 0.5, 8.0)
#: Longer than anybody who is gone is waited for.
_LONG: Final = (30.0, 16.0, 20.0, 8.0)
#: How many calls are made at once.
COUNTS: Final = (1, 2, 3, 6, 12)
#: So many that some wait in a child while others run.
_BURSTS: Final = (12, 6, 20)
DURABILITIES: Final = (Durability.DISK, Durability.DISK, Durability.PROCESS)
_POOLS: Final = ("prefork", "threads")
_DISKS: Final = (COMMIT_TIME, SLOW_COMMIT)

SAFE: Final = ("early", "late", "fail", "retry", "give back")
DEADLY: Final = ("poison", "slow poison", "hang", "poison early", "slow late")
#: Short, so that they are handed out ahead of time.
QUICK: Final = ("quick late", "quick early", "moody late", "moody early")
#: What is asked of durable actors.
ACTORS: Final = ("account", "slow account", "account that is slow again")
LONG: Final = ("long late", "long early", "slow early", "slow late")


class Theme(NamedTuple):
    """What is drawn in one kind of trial. `seconds` is how long its faults last when there is one alone, `moments` the
    events at which that one happens; none: any at which faults of its kind do. `nths` is at which of them."""

    faults: tuple[What, ...]
    tasks: tuple[str, ...]
    seconds: tuple[float, ...] = _SHORT
    moments: tuple[Kind, ...] = ()
    nths: tuple[int, ...] = NTHS
    counts: tuple[int, ...] = COUNTS
    pools: tuple[str, ...] = _POOLS
    workers: tuple[int, int] = (1, 2)
    commit_times: tuple[int, ...] = _DISKS
    durabilities: tuple[Durability, ...] = DURABILITIES


THEMES: Final = (
    # What was handed out ahead of time, and has to be given back when a body turns out to be slow.
    Theme((), ("moody late", "moody early", "quick late"), pools=("prefork",)),
    # Children die while short bodies come and go: some are over, and nobody has heard of them.
    Theme((What.KILL_CHILD, What.CHILD_EXITS), ("quick early", "quick late", "moody early")),
    # A process falls, and others run in it.
    Theme((What.KILL_CHILD, What.CHILD_EXITS), ("slow poison", "slow late", "slow early"), pools=("threads",)),
    # The broker is restarted while messages take their processes along.
    Theme((What.KILL_BROKER, What.POWER_LOSS, What.KILL_CHILD), ("poison", "slow poison", "hang", "slow late")),
    # The broker is restarted while others talk to it.
    Theme((What.KILL_BROKER, What.POWER_LOSS, What.SYNC_FAILS), ("early", "late", "quick early", "retry")),
    # What was not to survive it is lost with the power while much is handed out, and others come where it was.
    Theme(
        (What.POWER_LOSS,),
        ("quick late",),
        (0.5, 2.0),
        moments=(Kind.SETTLE, Kind.STARTED),
        nths=(5, 8, 12, 20),
        counts=_BURSTS,
        durabilities=(Durability.PROCESS,),
    ),
    # The disk has no room, or no time.
    Theme((What.DISK_FULL, What.SLOW_SYNC), ("early", "late", "retry", "quick late")),
    # Hosts are cut off for longer than they are waited for, and their bodies go on.
    Theme((What.PARTITION, What.PAUSE_HOST, What.UNHEARD_HOST), LONG, _LONG),
    # What is said on the way back arrives, what is said on the way there does not.
    Theme((What.UNHEARD_HOST, What.DEAF_HOST, What.PARTIAL_PARTITION), QUICK, _LONG, commit_times=(SLOW_COMMIT,)),
    # The same while words wait for their answers, and for so long that there is a new link in the old session.
    Theme(
        (What.UNHEARD_HOST,),
        ("quick early",),
        (8.0, 10.0),
        moments=(Kind.SETTLE, Kind.RAN),
        counts=_BURSTS,
        commit_times=(SLOW_COMMIT,),
    ),
    # Who stood still does not know that he has lost what he has: what he was handed out ahead of time, which comes to
    # him once a few of its kind are known to be short.
    Theme(
        (What.PAUSE_CHILD, What.PAUSE_HOST),
        ("quick late",),
        _LONG,
        moments=(Kind.STARTED, Kind.RAN),
        nths=(5, 8, 12, 20),
        counts=_BURSTS,
        pools=("prefork",),
    ),
    # Links break and are made anew.
    Theme((What.DROP, What.CUT, What.FREEZE, What.STALE_LINK, What.HOLD_UP), (*SAFE, "quick early")),
    # Frames that are none, and words of strangers.
    Theme((What.CORRUPT_BYTE, What.TRUNCATED_FRAME, What.STRANGER, What.OTHER_VERSION), ("early", "late", "slow late")),
    # The same from one who sends.
    Theme((What.CORRUPT_BYTE, What.TRUNCATED_FRAME), SAFE, moments=(Kind.PUBLISH, Kind.CONFIRM)),
    # Durable actors lose those who host them, and those who have lost one come back.
    Theme((What.KILL_CHILD, What.KILL_NODE, What.KILL_BROKER, What.POWER_LOSS), ACTORS, _SHORT),
    Theme((What.PARTITION, What.CUT, What.KILL_CHILD), ACTORS, _LONG, moments=(Kind.RAN, Kind.STARTED), workers=(2, 2)),
    # Who has lost one tells what he has made of it while the next one is at it.
    Theme(
        (What.PARTITION,), ("account that is slow again",), _LONG, moments=(Kind.RAN,), nths=(1, 2, 3), workers=(2, 2)
    ),
    # Somebody looks after the cluster while it works.
    Theme(
        (What.REVOKE, What.PURGE, What.REDRIVE, What.PURGE_DEAD, What.DRAIN_NODE),
        ("poison", "moody late", "long early"),
    ),
)
