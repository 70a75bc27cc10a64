"""The application's link in a simulated world: calls go over the link of whoever makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...transport.peer.contract import Client, Promise
from ...transport.verbs import Known, Op
from .child_process import ChildProcess
from .client import SimClient
from .world import World


class RoutedClient:
    """The application's link in a simulated world: of whoever makes the call."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _client(self) -> SimClient:
        fiber = self._world.clockwork.current
        if fiber is not None and isinstance(fiber.process, ChildProcess):
            return fiber.process.own_client()
        return self._world.clients[0]

    def publish(
        self, mailbox: str, envelopes: Sequence[Any], *, deadline_seconds: float | None = None
    ) -> Promise[object]:
        """As `Client.publish`."""
        return self._client().publish(mailbox, envelopes, deadline_seconds=deadline_seconds)

    def publish_nowait(self, mailbox: str, envelopes: Sequence[Any]) -> Promise[object]:
        """As `Client.publish_nowait`."""
        return self._client().publish_nowait(mailbox, envelopes)

    def give_up(self, promise: Any) -> None:
        """As `Client.give_up`."""
        self._client().give_up(promise)

    def flush(self, timeout: float | None = None) -> None:
        """As `Client.flush`."""
        self._client().flush(timeout)

    def result_future(self, id: str) -> Promise[Known]:
        """As `Client.result_future`."""
        return self._client().result_future(id)

    def result_futures(self, ids: Sequence[str]) -> Sequence[Promise[Known]]:
        """As `Client.result_futures`."""
        return self._client().result_futures(ids)

    def known(self, ids: Sequence[str]) -> list[Known]:
        """As `Client.known`."""
        return self._client().known(ids)

    def request(self, op: Op, params: Any, timeout: float | None = None) -> Any:
        """As `Client.request`."""
        return self._client().request(op, params, timeout)

    def tell(self, op: Op, params: Any) -> None:
        """As `Client.tell`."""
        self._client().tell(op, params)

    def close(self) -> None:
        """The world's clients are the world's."""


def keeps_the_contract(client: RoutedClient) -> Client:
    """A client is a client: checked by the type checkers."""
    return client
