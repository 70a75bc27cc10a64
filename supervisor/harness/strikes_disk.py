"""Faults of the broker's life and of its disk.

Somebody looks after the disk: a broker that has stopped because of it is started again on a disk that is in order. Of
a store that was damaged a good copy is put back, the one of when it was damaged; what was accepted since then is
promised by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .blow import Blow
from .client import SECOND
from .disks import WorldDisk

#: What a slow disk adds to a commit.
SLOW_COMMIT: Final = 300_000
#: In how many steps what survives a loss of power is drawn.
_SHARES: Final = 4


def kill_broker(blow: Blow) -> None:
    """SIGKILL; it is started again after a while."""
    blow.later(blow.world.restart_broker)
    blow.world.kill_broker()


def power_loss(blow: Blow) -> None:
    """Its host loses its power, and comes back after a while. Which: how much of what nobody has synced survives."""
    blow.later(blow.world.restart_broker)
    blow.world.kill_broker(power=True, kept=blow.fault.which % _SHARES / _SHARES)


def fill(blow: Blow) -> None:
    """Let there be no room for a while."""
    blow.world.disk.fill()
    blow.later(blow.world.disk.heal)


def fail_sync(blow: Blow) -> None:
    """Let the next sync fail."""
    blow.world.disk.fail()


def fail_read(blow: Blow) -> None:
    """Let the next read fail."""
    blow.world.disk.fail_read()


def slow(blow: Blow) -> None:
    """Let commits take long for a while."""
    broker = blow.world.broker
    usual = broker.commit_time
    broker.commit_time = usual + SLOW_COMMIT

    def be_quick() -> None:
        broker.commit_time = usual

    blow.later(be_quick)


def die_in_commit(blow: Blow) -> None:
    """Let the process end in place of its next change of the disk."""
    blow.world.disk.stop(0)


def lie(blow: Blow) -> None:
    """Let the next sync do nothing, and the power be lost soon after."""
    world = blow.world
    if world.disk.lie():
        world.observed.disk_lied = True
        world.clockwork.after(SECOND // 1_000, lambda: power_loss(blow))


def flip(blow: Blow) -> None:
    """Kill the broker; before it starts again a bit of its store has turned over."""
    stream = blow.world.realm.stream("bit flip")
    _damage(blow, lambda disk: disk.flip(stream))


def truncate(blow: Blow) -> None:
    """Kill the broker; before it starts again the end of its log is gone."""
    _damage(blow, lambda disk: disk.truncate())


def _damage(blow: Blow, damage: Callable[[WorldDisk], object]) -> None:
    world = blow.world
    blow.later(world.restart_broker)

    def do() -> None:
        if not world.broker.alive:
            world.disk.keep_copy()
            damage(world.disk)

    # The one who is killed here may have the turn.
    world.clockwork.after(0, do)
    world.kill_broker()


def remove(blow: Blow) -> None:
    """Take the folder away; after a while the broker is killed, and starts with nothing. Its epoch is lower than the
    one that everybody knows, and so workers and clients, who refuse it, are started anew as well."""
    world = blow.world
    if not world.disk.remove():
        return
    world.observed.disk_lied = True

    def start_anew() -> None:
        world.restart_broker()
        for node in [node for node in world.nodes if node.alive]:
            world.add_node()
            node.kill()
        for client in world.clients:
            client.kill()

    def kill() -> None:
        world.clockwork.after(SECOND, start_anew)
        world.kill_broker()

    blow.later(kill)
