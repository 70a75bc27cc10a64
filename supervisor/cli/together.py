"""A broker and a worker node, started together for `greenroom dev` and `greenroom run`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..cluster.broker import BrokerConfig
from ..cluster.config import NodeConfig
from ..cluster.launch import Launched

BROKER = "greenroom.supervisor.cluster.broker"
NODE = "greenroom.supervisor.cluster.node"
READY_SECONDS = 30.0
STOP_SECONDS = 30.0


@contextmanager
def broker_process(bind: str, data: str, loglevel: str) -> Iterator[str]:
    """Run a broker for the time of the block; its address."""
    broker = Launched(BROKER, BrokerConfig(bind=(bind,), data=data, loglevel=loglevel.upper()), what="the broker")
    try:
        yield broker.wait_until_ready(READY_SECONDS)
    finally:
        broker.stop(STOP_SECONDS)


def start_node(app: str, address: str, *, workers: int, pool: str, mailboxes: list[str], loglevel: str) -> Launched:
    """Start a worker node; the caller waits until it is ready, and stops it."""
    config = NodeConfig(
        app=app,
        broker=address,
        pool=pool,
        concurrency=workers,
        mailboxes=mailboxes,
        loglevel=loglevel.upper(),
        path=[os.getcwd()],
        signing_key=os.environ.get("GREENROOM_SIGNING_KEY", "").encode(),
    )
    return Launched(NODE, config, what=f"the worker of {app}")


def stop_node(node: Launched, *, cold: bool = False) -> None:
    """Stop a node: warm, or cold when there is no time."""
    node.stop(STOP_SECONDS, how=signal.SIGQUIT if cold else signal.SIGTERM)
