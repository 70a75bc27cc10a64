"""What each kind of fault does to a simulated world.

Owns the table of all kinds: whom each strikes (`Aim`) and what happens to him, and those that are about processes,
clocks and what people do. Those of links and hosts are in `strikes_links`, those of the broker's disk in
`strikes_disk`.

What ends by itself after a while does so also when the test has settled meanwhile; what would begin again does not.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable
from typing import Final

from . import strikes_disk as disk
from . import strikes_links as links
from .blow import Blow
from .child_process import ChildProcess
from .clockwork import Process
from .faults import What
from .node_process import NodeProcess
from .stranger import Stranger, noise, other_version

#: How far a clock jumps, for each second of the fault.
CLOCK_JUMP: Final = 60
#: How much a clock that drifts gains or loses, in a million: a bad one loses a thousandth of this.
DRIFT: Final = 50_000


class Aim(enum.Enum):
    """Whom a fault strikes."""

    CHILD = enum.auto()
    NODE = enum.auto()
    CLIENT = enum.auto()
    BROKER = enum.auto()
    LINK = enum.auto()
    HOST = enum.auto()
    MESSAGE = enum.auto()
    NOBODY = enum.auto()


# --- processes ----------------------------------------------------------------------------------------------------


def _child(blow: Blow) -> ChildProcess:
    child = blow.process
    assert isinstance(child, ChildProcess)
    return child


def _node(blow: Blow) -> NodeProcess:
    node = blow.process
    assert isinstance(node, NodeProcess)
    return node


def _kill_child(blow: Blow) -> None:
    _child(blow).kill(signal.SIGKILL)


def _exit_child(blow: Blow) -> None:
    _child(blow).exit(0)


def _kill_node(blow: Blow) -> None:
    blow.later(blow.world.add_node)
    _node(blow).kill()


def _drain_node(blow: Blow) -> None:
    _node(blow).stop()
    blow.later(blow.world.add_node)


def _kill_client(blow: Blow) -> None:
    for client in blow.world.clients:
        if client.process.lane == blow.whom and client.process.alive:
            client.kill()


def _pause(blow: Blow) -> None:
    _pause_all(blow, [blow.process])


def _pause_host(blow: Blow) -> None:
    node = _node(blow)
    _pause_all(blow, [node, *node.children.values()])


def _pause_all(blow: Blow, processes: list[Process]) -> None:
    world = blow.world
    for process in processes:
        world.pause(process)

    def go_on() -> None:
        for process in processes:
            world.resume(process)

    blow.later(go_on)


# --- clocks -------------------------------------------------------------------------------------------------------


def _step_everybody(sign: int) -> Callable[[Blow], None]:
    return lambda blow: blow.world.step_wall(sign * blow.away * CLOCK_JUMP)


def _step_host(sign: int) -> Callable[[Blow], None]:
    return lambda blow: blow.clock.step(sign * blow.away * CLOCK_JUMP)


def _stop_clock(blow: Blow) -> None:
    blow.clock.stop()
    blow.later(blow.clock.go_right)


def _drift(blow: Blow) -> None:
    blow.clock.drift(DRIFT if blow.fault.which % 2 else -DRIFT)
    blow.later(blow.clock.go_right)


# --- strangers and operators ---------------------------------------------------------------------------------------


def _stranger(blow: Blow) -> None:
    world = blow.world
    sessions = [child.session for child in world.children]
    # Somebody who is there and has work, if there is any.
    child = sessions[blow.fault.which % len(sessions)] if sessions else "session-1/1"
    Stranger(world, noise(world.realm.stream("stranger"), child))


def _other_version(blow: Blow) -> None:
    Stranger(blow.world, other_version(1 if blow.fault.which % 2 else -1))


def _revoke(blow: Blow) -> None:
    blow.world.operator.revoke(blow.whom, terminate=bool(blow.fault.which % 2))


def _purge(blow: Blow) -> None:
    mailboxes = blow.world.mailboxes
    if mailboxes:
        blow.world.operator.purge(mailboxes[blow.fault.which % len(mailboxes)])


STRIKES: Final[dict[What, tuple[Aim, Callable[[Blow], object]]]] = {
    What.KILL_CHILD: (Aim.CHILD, _kill_child),
    What.CHILD_EXITS: (Aim.CHILD, _exit_child),
    What.KILL_NODE: (Aim.NODE, _kill_node),
    What.KILL_BROKER: (Aim.BROKER, disk.kill_broker),
    What.KILL_CLIENT: (Aim.CLIENT, _kill_client),
    What.PAUSE_CHILD: (Aim.CHILD, _pause),
    What.PAUSE_NODE: (Aim.NODE, _pause),
    What.PAUSE_CLIENT: (Aim.CLIENT, _pause),
    What.PAUSE_BROKER: (Aim.BROKER, _pause),
    What.PAUSE_HOST: (Aim.NODE, _pause_host),
    What.DROP: (Aim.LINK, links.drop),
    What.CUT: (Aim.LINK, links.cut),
    What.FREEZE: (Aim.LINK, links.freeze),
    What.STALL: (Aim.LINK, links.stall),
    What.HOLD_UP: (Aim.LINK, links.hold_up),
    What.SLOW_LINK: (Aim.LINK, links.slow),
    What.STALE_LINK: (Aim.LINK, links.leave_behind),
    What.PARTITION: (Aim.HOST, links.part(links.Way.BOTH)),
    What.UNHEARD_HOST: (Aim.HOST, links.part(links.Way.TO_BROKER)),
    What.DEAF_HOST: (Aim.HOST, links.part(links.Way.TO_PEER)),
    What.PARTIAL_PARTITION: (Aim.HOST, links.part_some),
    What.FLAPPING: (Aim.HOST, links.flap),
    What.CORRUPT_BYTE: (Aim.LINK, links.corrupt),
    What.TRUNCATED_FRAME: (Aim.LINK, links.truncate),
    What.STRANGER: (Aim.NOBODY, _stranger),
    What.OTHER_VERSION: (Aim.NOBODY, _other_version),
    What.POWER_LOSS: (Aim.BROKER, disk.power_loss),
    What.DISK_FULL: (Aim.BROKER, disk.fill),
    What.SYNC_FAILS: (Aim.BROKER, disk.fail_sync),
    What.SLOW_SYNC: (Aim.BROKER, disk.slow),
    What.DIE_IN_COMMIT: (Aim.BROKER, disk.die_in_commit),
    What.SYNC_LIES: (Aim.BROKER, disk.lie),
    What.READ_FAILS: (Aim.BROKER, disk.fail_read),
    What.BIT_FLIP: (Aim.BROKER, disk.flip),
    What.TRUNCATED_TAIL: (Aim.BROKER, disk.truncate),
    What.FOLDER_GONE: (Aim.BROKER, disk.remove),
    What.WALL_FORWARD: (Aim.BROKER, _step_everybody(1)),
    What.WALL_BACK: (Aim.BROKER, _step_everybody(-1)),
    What.CLOCK_FORWARD: (Aim.HOST, _step_host(1)),
    What.CLOCK_BACK: (Aim.HOST, _step_host(-1)),
    What.CLOCK_STOPS: (Aim.HOST, _stop_clock),
    What.CLOCK_DRIFTS: (Aim.HOST, _drift),
    What.DRAIN_NODE: (Aim.NODE, _drain_node),
    What.REVOKE: (Aim.MESSAGE, _revoke),
    What.PURGE: (Aim.NOBODY, _purge),
    What.REDRIVE: (Aim.NOBODY, lambda blow: blow.world.operator.redrive()),
    What.PURGE_DEAD: (Aim.NOBODY, lambda blow: blow.world.operator.purge_dead()),
}
