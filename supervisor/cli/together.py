"""A broker and a worker node, started together for `greenroom dev` and `greenroom run`."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

from ..cluster.broker import BrokerConfig
from ..cluster.config import NodeConfig
from ..cluster.launch import BROKER, BROKER_STOP, NODE, Launched
from .options import worker_shape

READY_SECONDS = 30.0
STOP_SECONDS = 30.0


class EventLogTo(NamedTuple):
    """The file in which both write what happens, and its limit; empty: none."""

    path: str
    bytes_max: int

    @classmethod
    def of(cls, path: str, bytes_max: int) -> EventLogTo:
        """As the options say, wherever a process then stands."""
        return cls(os.path.abspath(path) if path else "", bytes_max)


@contextmanager
def broker_process(config: BrokerConfig) -> Generator[Launched]:
    """Run a broker for the time of the block. Raises LaunchFailed."""
    broker = Launched(BROKER, what="the broker")
    try:
        broker.begin(config)
        yield broker
    finally:
        broker.stop(STOP_SECONDS, BROKER_STOP)


def start_node(
    app: str,
    address: str,
    *,
    concurrency: int | None,
    pool: str | None,
    mailboxes: list[str],
    loglevel: str,
    log: EventLogTo,
) -> Launched:
    """Start a worker node; the caller waits until it is ready, and stops it. None: as the application says."""
    config = NodeConfig(
        app=app,
        broker=address,
        **worker_shape(pool, concurrency),
        mailboxes=mailboxes,
        loglevel=loglevel.upper(),
        path=[os.getcwd()],
        signing_key=os.environ.get("GREENROOM_SIGNING_KEY", "").encode(),
        event_log=log.path,
        event_log_bytes=log.bytes_max,
    )
    node = Launched(NODE, what=f"the worker of {app}")
    node.begin(config)
    return node
