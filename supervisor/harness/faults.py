"""What goes wrong in a simulated world, and when: faults anchored to what happens in it.

Owns the kinds of fault (`What`) and the anchor that says at which event one happens (`Anchor`). `injector` waits for
these events, `strikes` does it. A fault is tied to an event rather than to a time ("at the second DELIVER"), so that
it still means the same when the workload around it shrinks.

Whom it strikes follows from the event: its own child, node, client or host where the event is one's, the addressee
where the broker speaks to somebody, else `which` counts among those that there are. An event is heard before it has
consequences: a child that is killed at its SETTLE has said nothing; with `DROP` the link breaks under the very message
that the event tells of.

`default()` names what a durable cluster promises to survive. Faults outside of these promises (`OUTSIDE`) are there
for who wants to see a test fail. `NOT_THERE_YET` names what the specification of faults knows and this world does
not have.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from .trace import Kind

#: How long what is stopped, slow or gone stays so, unless the fault says otherwise.
AWAY_SECONDS: Final = 2.0


class What(enum.StrEnum):
    """The kinds of fault."""

    #: SIGKILL, or the OOM killer, to a child.
    KILL_CHILD = "kill -9 child"
    #: A child calls os._exit(0).
    CHILD_EXITS = "child exits with 0"
    #: SIGKILL to a whole worker node; another one comes after a while.
    KILL_NODE = "kill -9 node"
    #: SIGKILL to the broker; it is started again after a while.
    KILL_BROKER = "kill -9 broker"
    #: SIGKILL to a client.
    KILL_CLIENT = "kill -9 client"
    #: SIGSTOP, and later SIGCONT. A node that is stopped for long is taken for dead, and goes on afterwards.
    PAUSE_CHILD = "pause child"
    PAUSE_NODE = "pause node"
    PAUSE_CLIENT = "pause client"
    PAUSE_BROKER = "pause broker"
    #: A whole worker's host stands still. After long it is taken for dead, and wakes up as a zombie.
    PAUSE_HOST = "pause host"
    #: A link breaks, and what was underway on it is lost.
    DROP = "drop"
    #: A link breaks, and what was underway arrives.
    CUT = "cut link"
    #: Nothing arrives on a link any more, and nobody knows until the heartbeats tell (half-open).
    FREEZE = "freeze link"
    #: Its peer reads nothing from a link, while the heartbeats go on: a stalled subscriber, a slow consumer.
    STALL = "stall link"
    #: A link is held up for a while, and then everything arrives.
    HOLD_UP = "hold up link"
    #: A link is slow for a while.
    SLOW_LINK = "slow link"
    #: The peer takes its link for lost and opens another one; what it had sent on the old one arrives later.
    STALE_LINK = "stale link"
    #: A host and the broker cannot reach each other, on no link, old or new; or only what the host says is lost, or
    #: only what it is told; or it happens to every second link of it; or it comes and goes.
    PARTITION = "partition"
    UNHEARD_HOST = "unheard host"
    DEAF_HOST = "deaf host"
    PARTIAL_PARTITION = "partial partition"
    FLAPPING = "flapping partition"
    #: The next message of a link has a wrong byte, or misses its end.
    CORRUPT_BYTE = "corrupt byte"
    TRUNCATED_FRAME = "truncated frame"
    #: Somebody who is no part of the cluster sends the broker noise, and words that he may not say.
    STRANGER = "stranger"
    #: A peer of the next, or the last, version of the protocol says Hello.
    OTHER_VERSION = "peer of another version"
    #: The broker's host loses its power.
    POWER_LOSS = "power loss"
    #: The broker's disk is full for a while.
    DISK_FULL = "disk full"
    #: A sync of the broker's disk fails; the broker stops and is started again.
    SYNC_FAILS = "fsync error"
    #: Commits take long for a while.
    SLOW_SYNC = "slow fsync"
    #: The broker's process ends within a commit (only under the real store).
    DIE_IN_COMMIT = "kill -9 broker in a commit"
    #: A sync answers and does nothing, and later the power is lost (only under the real store).
    SYNC_LIES = "fsync lie"
    #: A read of the broker's disk fails; the broker stops and is started again.
    READ_FAILS = "EIO on read"
    #: While the broker is down a bit of its store turns over, or the end of its log is gone. It tells so and does not
    #: start, until somebody puts a good copy back (only under the real store).
    BIT_FLIP = "bit flip"
    TRUNCATED_TAIL = "truncated tail"
    #: The folder of the store is removed, and the broker is killed later: it begins with nothing, and everybody else
    #: is started anew (only under the real store).
    FOLDER_GONE = "store folder gone"
    #: The wall clock of everybody jumps forward, or back.
    WALL_FORWARD = "wall clock forward"
    WALL_BACK = "wall clock back"
    #: The wall clock of one host jumps forward, or back, or stands still for a while; both of its clocks drift.
    CLOCK_FORWARD = "clock of a host forward"
    CLOCK_BACK = "clock of a host back"
    CLOCK_STOPS = "clock of a host stops"
    CLOCK_DRIFTS = "clock of a host drifts"
    #: What an operator does: a worker leaves in order and another one comes; a message is revoked; what waits in a
    #: mailbox is purged; all dead letters are redriven, or purged.
    DRAIN_NODE = "drain node"
    REVOKE = "revoke"
    PURGE = "purge mailbox"
    REDRIVE = "redrive"
    PURGE_DEAD = "purge dead letters"


#: What is not promised to be survived: a disk that does not keep what it has said that it keeps.
OUTSIDE: Final = (What.SYNC_LIES, What.BIT_FLIP, What.TRUNCATED_TAIL, What.FOLDER_GONE)
#: What somebody may ask for, and what makes ends other than a task's own.
ENDS: Final = (What.REVOKE, What.PURGE, What.REDRIVE, What.PURGE_DEAD)
#: What `default()` leaves out although nothing that was accepted is lost by it: a client that is killed may have sent
#: or not, and a full disk refuses calls, so that a test must ask what was `accepted` before it asks for results.
NOT_BY_DEFAULT: Final = (What.KILL_CLIENT, What.DISK_FULL, *ENDS, *OUTSIDE)
#: What the store in memory cannot do.
OF_REAL_STORE: Final = (What.DIE_IN_COMMIT, *OUTSIDE)

#: Kinds of fault that the specification names and that need a part which there is not.
NOT_THERE_YET: Final[dict[str, str]] = {
    "failover, epoch race": "brokers have no standby yet",
    "PostgreSQL": "there is no such store yet",
}
#: What the specification names and cannot happen by itself, or is somebody else's to make.
CANNOT_BE: Final[dict[str, str]] = {
    "duplicate": "a link carries each message once; doubles come from sending again after DROP and CUT",
    "reorder": "a link carries messages in order; other links overtake it when it is slow",
    "monotonic clock jumps": "boot time goes on while a machine sleeps, so it jumps only with a host that stood still",
    "burst, huge payload, 10,000 mailboxes, poison, hang, leak": "what a test sends: see `workloads`",
}


class Anchor(msgspec.Struct, frozen=True):
    """An event: the `nth` of this kind, of this task and lane if they are named.

    `task` is the id of a message or the name of a task.
    """

    kind: Kind
    nth: int = 1
    task: str = ""
    lane: str = ""

    def words(self) -> str:
        """Say when it is."""
        whose = "".join(f" of {name}" for name in (self.task, self.lane) if name)
        return f"{self.kind}{whose} no. {self.nth}" if self.nth != 1 else f"{self.kind}{whose}"


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong, at an anchor. `which` counts among those that it may strike; `seconds` is how long
    it lasts, for those that last."""

    what: What
    at: Anchor
    which: int = 0
    seconds: float = AWAY_SECONDS

    def words(self) -> str:
        """Say what happens and when."""
        return f"{self.what} at {self.at.words()}"


def default() -> tuple[What, ...]:
    """Return every kind that a durable cluster promises to survive and in which each call is accepted in the end."""
    return tuple(what for what in What if what not in NOT_BY_DEFAULT)


def every() -> tuple[What, ...]:
    """Return every kind within what is promised; calls may be refused, or be lost with their client."""
    return tuple(what for what in What if what not in OUTSIDE)


def none() -> tuple[What, ...]:
    """Return no kind: a calm world, in which only the order of things varies."""
    return ()


def deaths() -> tuple[What, ...]:
    """Return those that end a process."""
    return What.KILL_CHILD, What.CHILD_EXITS, What.KILL_NODE, What.KILL_BROKER, What.POWER_LOSS
