"""A client for the verbs that ask a broker something: one question, one answer, in bounded time."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ...transport.verbs import Op
from ...transport.wire.client import Client

#: How this process is named at the broker.
ORIGIN = f"cli{os.getpid()}"


@contextmanager
def asking(broker: str, timeout: float) -> Generator[Client]:
    """A client of this broker, closed at the end."""
    client = Client([part.strip() for part in broker.split(";")], origin=ORIGIN, connect_timeout=timeout)
    try:
        yield client
    finally:
        client.close()


def ask(broker: str, op: Op, params: Any, timeout: float) -> Any:
    """Ask one thing; return its answer. Raises BrokerUnavailable when it does not come in time."""
    with asking(broker, timeout) as client:
        return client.request(op, params, timeout)
