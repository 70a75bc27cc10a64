"""The application's link in a simulated world: calls go over the link of whoever makes them.

Calls of the test itself go over the first client, or the one that it names (`speaking_as`). Then they do not wait for
their confirm either, so that many are underway at once, and a fault may come before the broker has heard of them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from ...transport.peer.contract import Client, Promise
from ...transport.verbs import Known, Op
from .child_process import ChildProcess
from .client import SimClient
from .world import World


class Unawaited:
    """The promise of a call whose confirm nobody waits for."""

    def done(self) -> bool:
        """It counts as kept."""
        return True

    def result(self, timeout: float | None = None) -> None:
        """Return at once."""

    def add_done_callback(self, fn: Any, /) -> None:
        """Call it now."""
        fn(self)


class RoutedClient:
    """The application's link in a simulated world: of whoever makes the call."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: As which client the test speaks without waiting; None: as the first, and it waits.
        self._speaker: int | None = None

    @contextmanager
    def speaking_as(self, number: int) -> Generator[None]:
        """Let the test be this client for a moment, and not wait for confirms."""
        before, self._speaker = self._speaker, number
        try:
            yield
        finally:
            self._speaker = before

    def _client(self) -> SimClient:
        fiber = self._world.clockwork.current
        if fiber is not None and isinstance(fiber.process, ChildProcess):
            return fiber.process.own_client()
        return self._world.client(self._speaker or 0)

    def publish(
        self, mailbox: str, envelopes: Sequence[Any], *, deadline_seconds: float | None = None
    ) -> Promise[object]:
        """As `Client.publish`."""
        if self._speaker is not None and self._world.clockwork.current is None:
            self._client().publish_nowait(mailbox, envelopes)
            return Unawaited()
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
