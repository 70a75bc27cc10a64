"""The systems, in the table's order: one adapter each."""

from __future__ import annotations

from contract import System
from systems.celery import CeleryOnRabbitmq, CeleryOnRedis
from systems.dramatiq import Dramatiq
from systems.greenroom import Greenroom
from systems.huey import Huey

#: Greenroom stands first: the others are compared with it.
SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Greenroom("disk"),
        Greenroom("process"),
        CeleryOnRedis(),
        CeleryOnRabbitmq(),
        Dramatiq(),
        Huey(),
    )
}
#: What is measured unless `--systems` says otherwise.
USUAL = tuple(name for name in SYSTEMS if name != "greenroom-process")
