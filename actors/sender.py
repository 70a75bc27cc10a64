"""An application's link to its brokers, and how calls go out on it.

Owns the one client of an app, made at the first need. A call either waits until its message is confirmed, or
(`background`) returns a promise of that. Where the settings have a word on the bound of mailboxes, each is declared
before its first message.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ..transport.message import Envelope
from ..transport.peer.contract import Client, Promise
from ..transport.requests import Declare
from ..transport.verbs import Bounds, Op
from .current import remember_unconfirmed
from .settings.bounds import bounds_of

if TYPE_CHECKING:
    from .app import App
    from .tasks.call import Prepared

#: Mailboxes of which it is remembered that they were declared; after that many all are declared again.
BOUNDED_MAX: Final = 10_000

ClientFactory = Callable[["App"], Client]


class Sender:
    """Sends the messages of one app."""

    def __init__(self, app: App, make_client: ClientFactory) -> None:
        self._app = weakref.ref(app)
        self.make_client = make_client
        self._client: Client | None = None
        self._lock = threading.Lock()
        #: What the settings say of mailboxes, the version of the settings that says so, and who was told of which.
        self._bounds: Bounds | None = None
        self._version = -1
        self._bounded: dict[str, None] = {}

    @property
    def client(self) -> Client:
        """The client. Making it connects to nothing yet."""
        client = self._client
        if client is None:
            with self._lock:
                client = self._client
                if client is None:
                    app = self._app()
                    if app is None:
                        raise RuntimeError("the app of this link is gone")
                    client = self._client = self.make_client(app)
        return client

    def send(self, prepared: Prepared, *, deadline_seconds: float | None, background: bool) -> Promise[object] | None:
        """Send one message. Raises what a broker refused it with, unless in the background."""
        client = self._client or self.client
        self._declare(client, prepared.mailbox)
        if background:
            promise = client.publish_nowait(prepared.mailbox, [prepared.envelope])
            remember_unconfirmed(promise)
            return promise
        promise = client.publish(prepared.mailbox, [prepared.envelope], deadline_seconds=deadline_seconds)
        try:
            promise.result()
        except BaseException:
            _give_up(client, [promise])
            raise
        return None

    def send_batches(
        self, batches: Mapping[str, Sequence[Envelope]], *, deadline_seconds: float | None, background: bool
    ) -> dict[str, Promise[object]]:
        """Send messages to several mailboxes; wait for all confirms, or return the promise of each mailbox.

        Raises the first refusal, after all answers are in.
        """
        client = self._client or self.client
        for mailbox in batches:
            self._declare(client, mailbox)
        if background:
            sent = {
                mailbox: client.publish_nowait(mailbox, envelopes)
                for mailbox, envelopes in batches.items()
                if envelopes
            }
            for promise in sent.values():
                remember_unconfirmed(promise)
            return sent
        promises = [
            client.publish(mailbox, envelopes, deadline_seconds=deadline_seconds)
            for mailbox, envelopes in batches.items()
            if envelopes
        ]
        refusals: list[Exception] = []
        try:
            for promise in promises:
                try:
                    promise.result()
                except Exception as error:
                    # Raised below, once it is known what became of the others.
                    refusals.append(error)
        except BaseException:
            _give_up(client, promises)
            raise
        if refusals:
            raise refusals[0]
        return {}

    def _declare(self, client: Client, mailbox: str) -> None:
        """Before the first message to a mailbox: say what the settings say of it, if they do. Raises as `bounds_of`."""
        app = self._app()
        if app is None:
            return
        conf = app.conf
        if conf.version != self._version:
            self._bounds = bounds_of(conf)
            self._bounded.clear()
            # Reading them may have loaded them, which is a change.
            self._version = conf.version
        bounds = self._bounds
        if bounds is None or mailbox in self._bounded:
            return
        if len(self._bounded) >= BOUNDED_MAX:
            self._bounded.clear()
        self._bounded[mailbox] = None
        client.tell(Op.DECLARE, Declare(mailbox, bounds.max_messages or None, bounds.on_full or None))

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was sent is confirmed. Raises the first refusal, and TimeoutError."""
        if self._client is not None:
            self._client.flush(timeout)

    def close(self) -> None:
        """End the link. The next call makes a new one."""
        with self._lock:
            client, self._client = self._client, None
            self._bounded.clear()
        if client is not None:
            client.close()


def _give_up(client: Client, promises: Sequence[Promise[object]]) -> None:
    """Whoever waited was interrupted (Ctrl-C at a full mailbox, say): leave nothing to be sent later."""
    for promise in promises:
        if not promise.done():
            client.give_up(promise)
