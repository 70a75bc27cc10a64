"""The contract of a client: what an application needs of its link to the brokers.

`transport.wire.client.Client` keeps it over ZeroMQ, and tests keep it in memory. A client is used by any thread.
It never blocks without a bound: what waits is a `Promise`, and every promise is kept or broken in the end. It
survives a fork (the child has a link of its own), and flushes and closes itself at the exit of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ..message import Envelope
from ..verbs import Known, Op

T_co = TypeVar("T_co", covariant=True)


class Promise(Protocol[T_co]):
    """Something that will be there later: the part of `concurrent.futures.Future` that is relied upon."""

    def result(self, timeout: float | None = None) -> T_co:
        """Wait and return it, or raise why it will never be there; TimeoutError after `timeout` seconds."""
        ...

    def done(self) -> bool:
        """Tell whether it is there, or is known never to be."""
        ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call `fn` with this promise once it is done, in whatever thread finds out; at once if it is."""
        ...


class Client(Protocol):
    """One application's link to its brokers."""

    def publish(
        self, mailbox: str, envelopes: Sequence[Envelope], *, deadline_seconds: float | None = None
    ) -> Promise[object]:
        """Send messages to one mailbox, in order, and promise that a broker has accepted all of them.

        The promise is broken with MailboxFull, StoreFull or NotAllowed when a broker refused, BrokerUnavailable
        when none was reached within its connection timeout, and UnknownOutcome when nobody can tell, also because
        `deadline_seconds` are over.
        """
        ...

    def give_up(self, promise: Any) -> None:
        """Wait no longer for a publish: its promise is broken, and what was not sent yet never will be.

        What was sent may be accepted all the same.
        """
        ...

    def publish_nowait(self, mailbox: str, envelopes: Sequence[Envelope]) -> Promise[object]:
        """Send without a deadline; blocks only while more is unconfirmed than a broker grants."""
        ...

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was published has been confirmed or refused.

        Raises the first refusal since the last flush, and TimeoutError after `timeout` seconds.
        """
        ...

    def result_future(self, id: str) -> Promise[Known]:
        """Promise the terminal state of a message."""
        ...

    def result_futures(self, ids: Sequence[str]) -> Sequence[Promise[Known]]:
        """Promise the terminal states of many messages, in the order of `ids`."""
        ...

    def known(self, ids: Sequence[str]) -> list[Known]:
        """Return what is kept of these ids now, an entry an id of which anything is known; waits for the answer."""
        ...

    def request(self, op: Op, params: Any, timeout: float | None = None) -> Any:
        """Ask a broker; return the answer as its struct in `requests.py`. Raises what the broker's error says."""
        ...

    def tell(self, op: Op, params: Any) -> None:
        """Ask a broker without waiting, before whatever is published after it; nobody hears the answer."""
        ...

    def close(self) -> None:
        """End the session in order. Unconfirmed messages are given up; `flush` first to keep them."""
        ...
