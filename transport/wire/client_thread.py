"""The thread behind a client: one link, one machine, and the futures of those who wait.

Owns everything that only this thread may touch: the socket, the ClientMachine. Callers put orders into an intake and
wake the thread, once a burst; it answers by completing futures and calling callbacks, with no lock held. It decides
nothing: what to send and when to connect is the machine's.

A thread serves one session and ends with it: at `leave`, or when the broker will not have this client. Then everybody
who waits is told, and `ended` is true; the client starts another for the next call.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, cast

import zmq

from ..clock import Clock, Now
from ..codec import decode_from_broker
from ..errors import GreenroomError, UnknownOutcome
from ..peer import attachment as links
from ..peer import client as machines
from ..peer.client import ClientMachine, RequestRefused
from ..peer.publisher import Chunk, Submission
from ..peer.results import is_terminal
from ..verbs import Known, Op, Reply
from .link import Link
from .wakeup import Wakeup

#: What was said last may take this long to leave.
FAREWELL_MILLISECONDS: Final = 500

ResultCallback = Callable[[Known], object]
_Order = tuple[Callable[..., None], tuple[Any, ...]]
_logger = logging.getLogger("greenroom.client")


class ClientThread:
    """Runs one session. Methods without an underscore may be called by any thread."""

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        origin: str,
        session: str,
        connect_timeout_seconds: float,
        token: bytes | None,
        clock: Clock,
        released: Callable[[int], None],
    ) -> None:
        """`released(bytes)` is called when a submission of so many bytes has ended."""
        self._machine = ClientMachine(
            addresses=addresses,
            origin=origin,
            session=session,
            host=socket.gethostname(),
            pid=os.getpid(),
            connect_timeout=round(connect_timeout_seconds * 1_000_000),
        )
        self._token = token
        self._clock = clock
        self._released = released
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wakeup = Wakeup()
        self._idle = select.poll()
        self._idle.register(self._wakeup.fileno(), select.POLLIN)
        self._link: Link | None = None
        self._intake: deque[_Order] = deque()
        self._signalled = False
        #: Set when the session is over; nothing that is put in afterwards is answered except by failure.
        self.ended = False
        self._finished = False
        self._error: GreenroomError | None = None
        self._results: dict[str, Future[Known]] = {}
        self._results_lock = threading.Lock()
        self._callbacks: dict[str, list[ResultCallback]] = {}
        self._requests: dict[int, Future[Reply]] = {}
        self._submissions: dict[Submission, None] = {}
        self._thread = threading.Thread(target=self._run, name="greenroom-client", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def join(self, timeout_seconds: float) -> bool:
        """Wait until the session is over; False if it is not in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def forget(self) -> None:
        """In the child of a fork: this thread does not exist here. libzmq's sockets are the parent's to close."""
        self.ended = True
        self._wakeup.close()

    @property
    def attached(self) -> bool:
        """Whether a broker has welcomed the session on the present link."""
        return self._machine.attached

    @property
    def why(self) -> str:
        """Why there is no link, if there is none."""
        return self._machine.why

    # --- orders --------------------------------------------------------------------------------------------------

    def submit(self, submission: Submission, chunks: Sequence[Chunk], watched: Sequence[str], patient: bool) -> None:
        """Publish; the submission's token is the future that is completed at its end."""
        self._order(self._submit, submission, chunks, watched, patient)

    def result_futures(self, ids: Sequence[str]) -> list[Future[Known]]:
        """Return a future of each id's terminal state; the same one for the same id while it is pending."""
        futures: list[Future[Known]] = []
        new: list[str] = []
        kept = self._machine.book.kept
        for id in ids:
            known = kept(id)
            if known is not None:
                future: Future[Known] = Future()
                future.set_result(known)
                futures.append(future)
                continue
            with self._results_lock:
                pending = self._results.get(id)
                if pending is None:
                    pending = self._results[id] = Future()
                    # Several may wait for it, so that no one of them can cancel it for the others.
                    pending.set_running_or_notify_cancel()
                    new.append(id)
            futures.append(pending)
        if new:
            self._order(self._ask, new)
        return futures

    def on_result(self, id: str, callback: ResultCallback) -> None:
        """Call `callback` with each state of the id that becomes known, in this thread, until a terminal one."""
        self._order(self._subscribe, id, callback)

    def unwatch(self, id: str) -> None:
        """Let nobody wait for this id any more; its future fails."""
        self._order(self._forget, id)

    def request(self, op: Op, params: bytes) -> Future[Reply]:
        """Ask the broker."""
        future: Future[Reply] = Future()
        self._order(self._request, op, params, future)
        return future

    def drop_request(self, future: Future[Reply]) -> None:
        """Nobody waits for this answer any more."""
        self._order(self._drop_request, future)

    def leave(self) -> None:
        """Say goodbye and end."""
        self._order(self._leave)

    def _order(self, method: Callable[..., None], *arguments: Any) -> None:
        self._intake.append((method, arguments))
        # The thread takes the flag back before it empties the intake, so whoever finds it set will be served.
        if not self._signalled:
            self._signalled = True
            self._wakeup.wake()
        if self._finished:
            self._refuse_orders()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.ended:
                self._wait()
                self._take_orders()
                link = self._link
                if link is not None:
                    self._receive(link)
                now = self._clock()
                wake = self._machine.wake_at()
                if wake and now.boot >= wake:
                    self._act(self._machine.apply(links.Tick(), now))
                self._send_what_waits(now)
        except Exception as error:  # everybody who waits learns of it, and the next call starts anew
            _logger.exception("the client's thread failed")
            self._error = GreenroomError(f"the client failed unexpectedly: {type(error).__name__}: {error}")
        finally:
            self._finish()

    def _wait(self) -> None:
        wake = self._machine.wake_at()
        timeout = max(0, -(-(wake - self._clock().boot) // 1_000)) if wake else None
        if self._intake:
            timeout = 0
        link = self._link
        if link is None:
            self._idle.poll(timeout)
        else:
            link.poll(timeout)

    def _take_orders(self) -> None:
        if self._signalled:
            self._wakeup.clear()
            self._signalled = False
        intake = self._intake
        while intake:
            method, arguments = intake.popleft()
            method(*arguments)

    def _receive(self, link: Link) -> None:
        for message in link.receive():
            now = self._clock()
            self._act(self._machine.apply(links.Heard(self._machine.attachment.link, decode_from_broker(message)), now))
            if link is not self._link:
                return
        if link.closed:
            self._act(self._machine.apply(links.LinkLost(self._machine.attachment.link), self._clock()))

    def _send_what_waits(self, now: Now) -> None:
        link = self._link
        if link is None:
            return
        for message in self._machine.flush(now):
            if not link.send(message):
                self._lose("it takes no more frames", now)
                return

    def _lose(self, reason: str, now: Now) -> None:
        self._act(self._machine.apply(links.LinkLost(self._machine.attachment.link, reason), now))

    def _act(self, effects: list[machines.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, machines.Ended):
                for ending in effect.endings:
                    self._end(ending.submission, ending.error)
            elif isinstance(effect, machines.Learned):
                self._learn(effect.results)
            elif isinstance(effect, machines.Answered):
                self._answer(effect.reply)
            elif isinstance(effect, links.Transmit):
                link = self._link
                if link is not None and not all(map(link.send, effect.messages)):
                    self._lose("it takes no more frames", self._clock())
            elif isinstance(effect, links.OpenLink):
                self._open(effect)
            elif isinstance(effect, links.CloseLink):
                if self._link is not None:
                    self._link.close(FAREWELL_MILLISECONDS if effect.orderly else 0)
                    self._link = None
            else:
                self.ended = True
                self._error = effect.error

    def _open(self, effect: links.OpenLink) -> None:
        try:
            link = Link(effect.address, self._context, token=self._token)
        except (GreenroomError, zmq.ZMQError, OSError) as error:
            # The machine tries again, and says why to those whose time is up.
            self._act(self._machine.apply(links.LinkLost(effect.link, str(error)), self._clock()))
            return
        link.watch(self._wakeup.fileno())
        self._link = link
        self._act(self._machine.apply(links.LinkOpened(effect.link, link.token), self._clock()))

    # --- orders, in the thread -----------------------------------------------------------------------------------

    def _submit(self, submission: Submission, chunks: Sequence[Chunk], watched: Sequence[str], patient: bool) -> None:
        self._submissions[submission] = None
        now = self._clock()
        self._act(self._machine.submit(submission, chunks, now, watched=watched, patient=patient))

    def _ask(self, ids: Sequence[str]) -> None:
        try:
            effects = self._machine.ask(ids, self._clock())
        except GreenroomError as error:
            for id in ids:
                self._break_promise(id, error)
            return
        self._act(effects)

    def _subscribe(self, id: str, callback: ResultCallback) -> None:
        self._callbacks.setdefault(id, []).append(callback)
        self._act(self._machine.ask([id], self._clock()))

    def _forget(self, id: str) -> None:
        self._callbacks.pop(id, None)
        self._break_promise(id, UnknownOutcome(f"nobody waits for the result of {id} any more"))
        self._machine.forget([id])

    def _request(self, op: Op, params: bytes, future: Future[Reply]) -> None:
        try:
            number, effects = self._machine.request(op, params, self._clock())
        except GreenroomError as error:
            _fail(future, error)
            return
        self._requests[number] = future
        self._act(effects)

    def _drop_request(self, future: Future[Reply]) -> None:
        for number, waiting in self._requests.items():
            if waiting is future:
                del self._requests[number]
                self._machine.drop_request(number)
                return

    def _leave(self) -> None:
        self._send_what_waits(self._clock())
        self._act(self._machine.leave(self._clock()))

    # --- answers -------------------------------------------------------------------------------------------------

    def _end(self, submission: Submission, error: GreenroomError | None) -> None:
        self._submissions.pop(submission, None)
        future = cast("Future[None]", submission.token)
        self._released(submission.size)
        if error is None:
            _complete(future, None)
        else:
            _fail(future, error)

    def _learn(self, results: list[Known]) -> None:
        for known in results:
            terminal = is_terminal(known)
            callbacks = self._callbacks.get(known.id)
            if callbacks is not None:
                for callback in list(callbacks):
                    self._call(callback, known)
                if terminal:
                    self._callbacks.pop(known.id, None)
            if terminal:
                with self._results_lock:
                    future = self._results.pop(known.id, None)
                if future is not None:
                    _complete(future, known)

    def _call(self, callback: ResultCallback, known: Known) -> None:
        try:
            callback(known)
        except Exception:  # the user's code; the log tells, and the others are served all the same
            _logger.exception("the callback for the result of %s failed", known.id)

    def _answer(self, reply: Reply) -> None:
        future = self._requests.pop(reply.number, None)
        if future is None:
            return
        if reply.error:
            _fail(future, RequestRefused(reply.error))
        else:
            _complete(future, reply)

    def _break_promise(self, id: str, error: GreenroomError) -> None:
        with self._results_lock:
            future = self._results.pop(id, None)
        if future is not None:
            _fail(future, error)

    def _finish(self) -> None:
        """Tell everybody who still waits, and give everything back."""
        self.ended = True
        error = self._why_over()
        for submission in list(self._submissions):
            self._end(submission, error)
        for future in self._requests.values():
            _fail(future, error)
        self._finished = True  # from here on a caller whose order comes too late refuses it himself
        self._refuse_orders()
        if self._link is not None:
            self._link.close()
            self._link = None
        self._context.term()
        self._wakeup.close()

    def _refuse_orders(self) -> None:
        error = self._why_over()
        while True:
            try:
                method, arguments = self._intake.popleft()
            except IndexError:
                break
            if method == self._submit:
                self._end(arguments[0], error)
            elif method == self._request:
                _fail(arguments[2], error)
        with self._results_lock:
            results, self._results = self._results, {}
        for future in results.values():
            _fail(future, error)

    def _why_over(self) -> GreenroomError:
        return self._error or UnknownOutcome("the client was closed before the answer came")


def _complete(future: Future[Any], value: object) -> None:
    with contextlib.suppress(InvalidStateError):  # its owner cancelled it; there is nobody to tell
        future.set_result(value)


def _fail(future: Future[Any], error: GreenroomError) -> None:
    with contextlib.suppress(InvalidStateError):  # as above
        future.set_exception(error)
