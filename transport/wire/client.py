"""The client: an application's link to its brokers, for any number of threads and event loops at once.

Owns the public calls, what may be unconfirmed before a caller must wait, and what happens at a fork and at the exit of
the process. The link itself lives in a background thread (client_thread.py) that starts at the first call, ends with
its session, and is started again by the next call after a broker turned it away.

A fork: the child has none of its parent's threads, so it forgets the session and whatever its parent waited for, and
opens a link and a session of its own with its first call. Calls that wait fail at the child's side by their timeout.

Nothing blocks without a bound. `publish` and `publish_nowait` encode in the caller's thread and then wait for room, at
most so long: `publish` while QUEUE_BYTES_MAX are underway, `publish_nowait` while more than a broker grants is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final

import msgspec
import uuid_utils

from ..clock import MICROSECONDS, Clock, system_now
from ..errors import GreenroomError, LocalProtocolError, OperationalError
from ..message import Envelope, Flag
from ..peer.contract import Promise
from ..peer.publisher import GRANT_DEFAULT, Submission, cut
from ..peer.refusals import unavailable
from ..requests import LIST_MAX, SHAPES, Fetched, FetchResults
from ..verbs import Known, Op, Reply
from .address import parse_address
from .answers import Kept
from .client_thread import ClientThread

CONNECT_TIMEOUT_SECONDS: Final = 4.0
#: Bytes of publishes that wait to be confirmed: from here on `publish` waits too.
QUEUE_BYTES_MAX: Final = 64 << 20
#: How long `publish_nowait` waits for room before it gives up.
ROOM_SECONDS: Final = 60.0
#: How long a request may take once a broker could have been reached.
ANSWER_SECONDS: Final = 30.0
#: How long the exit of the process waits for what was published in the background.
EXIT_SECONDS: Final = 10.0

_WATCHED: Final = int(Flag.WATCHED)
_encoder = msgspec.msgpack.Encoder()
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """A client of one broker, known under one or several addresses."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        origin: str,
        connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
        token: bytes | None = None,
        clock: Clock = system_now,
    ) -> None:
        """`origin` names this program to the broker. `connect_timeout`: seconds to reach a broker.

        `token` is found by the address if not given. Connects at the first call. Raises AddressError.
        """
        self._addresses = tuple(
            str(parse_address(text)) for text in ([address] if isinstance(address, str) else address)
        )
        if not self._addresses:
            raise LocalProtocolError("a client needs the address of a broker, none was given")
        self._origin = origin
        self._connect_timeout = connect_timeout
        self._token = token
        self._clock = clock
        self._forget()
        _clients.add(self)

    def _forget(self) -> None:
        """Begin anew, with locks that nobody holds: at the start, and in the child of a fork."""
        self._lock = threading.Lock()
        self._room = threading.Condition(threading.Lock())
        self._bytes = 0
        self._thread: ClientThread | None = None
        #: Publishes that are not confirmed.
        self._open: dict[Future[None], None] = {}
        #: The first failure of a publish that nobody waited for.
        self._background_error: BaseException | None = None

    # --- publishing ----------------------------------------------------------------------------------------------

    def publish(
        self, mailbox: str, envelopes: Sequence[Envelope], *, deadline_seconds: float | None = None
    ) -> Future[None]:
        """Send messages to one mailbox, in order; the future is done when a broker has accepted all of them.

        It fails with MailboxFull, StoreFull or NotAllowed when the broker refused, BrokerUnavailable when none was
        reached within `connect_timeout` or `deadline_seconds`, and UnknownOutcome when nobody can tell. Raises
        FrameTooLarge or LocalProtocolError for messages that cannot be sent at all.
        """
        patience = self._connect_timeout if deadline_seconds is None else deadline_seconds
        return self._publish(mailbox, envelopes, deadline_seconds, QUEUE_BYTES_MAX, patience, patient=False)

    def give_up(self, promise: Future[None]) -> None:
        """Wait no longer for a publish: its future fails, and what was not sent yet never will be.

        What was sent may be accepted all the same.
        """
        if self._thread is not None:
            self._thread.drop(promise)

    def publish_nowait(self, mailbox: str, envelopes: Sequence[Envelope]) -> Future[None]:
        """Send without waiting for a broker; blocks while more is unconfirmed than a broker grants.

        The future may be ignored: `flush` raises the first failure. Raises BrokerUnavailable or OperationalError
        after ROOM_SECONDS without room, FrameTooLarge or LocalProtocolError as `publish` does.
        """
        future = self._publish(mailbox, envelopes, None, GRANT_DEFAULT, ROOM_SECONDS, patient=True)
        future.add_done_callback(self._note_failure)
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was published so far has been confirmed or refused.

        Raises the first failure since the last flush of what was sent with `publish_nowait`, and TimeoutError after
        `timeout` seconds.
        """
        pending = list(self._open)
        if pending:
            if self._thread is not None:
                self._thread.stand_in.look()
            _, late = wait(pending, timeout)
            if late:
                raise TimeoutError(f"{len(late)} of {len(pending)} publishes were not confirmed within {timeout:g} s")
        error, self._background_error = self._background_error, None
        if error is not None:
            raise error

    def _publish(
        self,
        mailbox: str,
        envelopes: Sequence[Envelope],
        deadline_seconds: float | None,
        bytes_max: int,
        patience_seconds: float,
        *,
        patient: bool,
    ) -> Future[None]:
        chunks = cut(mailbox, envelopes)
        if not chunks:
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        deadline = 0
        if deadline_seconds is not None:
            deadline = self._clock().boot + round(deadline_seconds * MICROSECONDS)
        watched = [envelope.id for envelope in envelopes if envelope.flags & _WATCHED]
        self._reserve(sum([chunk.size for chunk in chunks]), bytes_max, patience_seconds)
        thread = self._running()
        future = thread.promise()
        self._open[future] = None
        future.add_done_callback(self._close_publish)
        thread.submit(Submission(future, deadline=deadline), chunks, watched, patient)
        return future

    def _reserve(self, size: int, bytes_max: int, patience_seconds: float) -> None:
        """Wait until so many bytes may be underway; one publish alone always may."""
        with self._room:
            if self._bytes and self._bytes + size > bytes_max:
                until = time.monotonic() + patience_seconds
                while self._bytes and self._bytes + size > bytes_max:
                    if not self._room.wait(until - time.monotonic()):
                        raise OperationalError(
                            f"{self._bytes} bytes of publishes are unconfirmed, {bytes_max} may be, and there was no "
                            f"room for {patience_seconds:g} s; is the broker at {' or '.join(self._addresses)} up, and "
                            "its disk fast enough?"
                        )
            self._bytes += size

    def _release(self, size: int) -> None:
        with self._room:
            self._bytes -= size
            self._room.notify_all()

    def _close_publish(self, future: Future[None]) -> None:
        self._open.pop(future, None)

    def _note_failure(self, future: Future[None]) -> None:
        if not future.cancelled() and self._background_error is None:
            self._background_error = future.exception()

    # --- results -------------------------------------------------------------------------------------------------

    def result_future(self, id: str) -> Promise[Known]:
        """Return a promise of the terminal state of a message; the same one while it is pending."""
        thread = self._running()
        known = thread.kept(id)
        return thread.result_futures((id,))[0] if known is None else Kept(known)

    def result_futures(self, ids: Sequence[str]) -> list[Promise[Known]]:
        """Return promises of the terminal states of many messages, in the order of `ids`."""
        return self._running().result_futures(ids)

    def on_result(self, id: str, callback: Callable[[Known], object]) -> None:
        """Call `callback` with each state of a message that becomes known, the last one terminal.

        It runs in the client's own thread: it must be short, and must not wait for this client.
        """
        self._running().on_result(id, callback)

    def unwatch(self, id: str) -> None:
        """Stop waiting for a message: its future fails with UnknownOutcome, its callbacks are dropped."""
        self._running().unwatch(id)

    def known(self, ids: Sequence[str]) -> list[Known]:
        """Return what is kept of these ids now, an entry for each of which anything is known.

        Raises as `request` does.
        """
        found: list[Known] = []
        for start in range(0, len(ids), LIST_MAX):
            fetched = self.request(Op.RESULTS, FetchResults(list(ids[start : start + LIST_MAX])))
            assert isinstance(fetched, Fetched)
            found += [Known(id, state, result) for id, state, result in fetched.results]
        return found

    # --- requests ------------------------------------------------------------------------------------------------

    def request(self, op: Op, params: msgspec.Struct, timeout: float | None = None) -> Any:
        """Ask the broker and wait; return the answer as its struct in `requests.py`.

        Raises RequestRefused with the broker's words, BrokerUnavailable when nothing was heard from a broker within
        `timeout` seconds (default: the time to connect and ANSWER_SECONDS).
        """
        thread = self._running()
        future = thread.request(op, _encoder.encode(params))
        seconds = self._connect_timeout + ANSWER_SECONDS if timeout is None else timeout
        try:
            reply = self._await_reply(thread, future, seconds)
        except BaseException:
            thread.drop(future)
            raise
        return msgspec.msgpack.decode(reply.value, type=SHAPES[op][1])

    def tell(self, op: Op, params: msgspec.Struct) -> None:
        """Ask the broker and go on; it hears it before what is published after this. Nobody hears the answer."""
        self._running().request(op, _encoder.encode(params))

    def _await_reply(self, thread: ClientThread, future: Future[Reply], seconds: float) -> Reply:
        first = min(seconds, self._connect_timeout)
        with contextlib.suppress(TimeoutError):
            return future.result(first)
        if not thread.attached:
            raise unavailable(self._addresses, first, thread.why)
        try:
            return future.result(seconds - first)
        except TimeoutError:
            raise OperationalError(
                f"the broker at {' or '.join(self._addresses)} did not answer a request within {seconds:g} s"
            ) from None

    # --- the session ---------------------------------------------------------------------------------------------

    def close(self, timeout: float = 1.0) -> None:
        """End the session in order, waiting at most `timeout` seconds. What is unconfirmed fails with UnknownOutcome.

        `flush` first to keep it. A later call begins a new session.
        """
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.leave()
            thread.join(timeout)

    def _running(self) -> ClientThread:
        """The thread of the present session, started if there is none."""
        thread = self._thread
        if thread is not None and not thread.ended:
            return thread
        with self._lock:
            if self._thread is None or self._thread.ended:
                self._thread = ClientThread(
                    addresses=self._addresses,
                    origin=self._origin,
                    session=str(uuid_utils.uuid7()),
                    connect_timeout_seconds=self._connect_timeout,
                    token=self._token,
                    clock=self._clock,
                    released=self._release,
                )
                self._thread.start()
            return self._thread

    def _leave_at_exit(self) -> None:
        if self._thread is None:
            return
        # The process ends either way; what could not be confirmed in time is in nobody's hands any more.
        with contextlib.suppress(GreenroomError, TimeoutError):
            self.flush(EXIT_SECONDS)
        self.close()

    def _forget_parent(self) -> None:
        thread = self._thread
        self._forget()
        if thread is not None:
            thread.forget()


def _at_exit() -> None:
    for client in list(_clients):
        client._leave_at_exit()  # pyright: ignore[reportPrivateUsage]


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._forget_parent()  # pyright: ignore[reportPrivateUsage]


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
