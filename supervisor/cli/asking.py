"""A client for the verbs that ask a broker something: one question, one answer, in bounded time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...transport.verbs import Op
from ...transport.wire.client import Client


@contextmanager
def asking(broker: str, timeout: float) -> Iterator[Client]:
    """A client of this broker, closed at the end. Raises BrokerUnavailable when it does not answer in time."""
    client = Client(broker, origin=f"cli{os.getpid()}", connect_timeout=timeout)
    try:
        yield client
    finally:
        client.close()


def ask(broker: str, op: Op, params: Any, timeout: float) -> Any:
    """Ask one thing; return its answer."""
    with asking(broker, timeout) as client:
        return client.request(op, params, timeout)
