"""The thread behind a client: one link, one machine, and the futures of those who wait.

Owns the socket and the ClientMachine, under one lock. Callers put orders into an intake. Whoever publishes and waits,
or asks for a result, sees to it himself when the lock is free and the link is up, and may then receive the answer
himself (stand_in.py), which spares changes of threads; all else wakes the thread, once a burst. The thread receives,
connects and keeps time. Futures are completed and callbacks called with no lock held. Nothing is decided here: what
to send and when to connect is the machine's.

A thread serves one session and ends with it: at `leave`, or when the broker will not have this client. Then everybody
who waits is told, and `ended` is true; the client starts another for the next call.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import zmq

from ..clock import Clock, Now
from ..codec import decode_from_broker
from ..errors import GreenroomError, UnknownOutcome
from ..peer import attachment as links
from ..peer import client as machines
from ..peer.client import ClientMachine, RequestRefused
from ..peer.contract import Promise
from ..peer.publisher import Chunk, Submission
from ..verbs import Known, Op, Reply
from .answers import Answer, Awaited, Kept, ResultCallback, complete, end, fail, tell_of_blocked
from .link import Link
from .stand_in import StandIn
from .wakeup import Wakeup

#: What was said last may take this long to leave.
FAREWELL_MILLISECONDS: Final = 500

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
        #: Returns the terminal result of an id, if it came lately and is final. For any thread.
        self.kept = self._machine.book.kept
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
        #: What is published next leaves with a confirm, which wakes the thread anyway.
        self._holding = False
        #: Held by whoever touches the machine or the link.
        self._lock = threading.Lock()
        #: What is to be done when the lock has been given back: completions and callbacks, in order.
        self._told: deque[Callable[[], object]] = deque()
        #: What whoever stands in waits for next, and for how long (milliseconds).
        self._attended: tuple[Link | None, int | None] = (None, None)
        #: Until when the thread sleeps (boot); 0: not at all, or until it is woken.
        self._sleeps_until = 0
        #: Set when the session is over; nothing that is put in afterwards is answered except by failure.
        self.ended = False
        self._finished = False
        self._error: GreenroomError | None = None
        self._requests: dict[int, Future[Reply]] = {}
        self._submissions: dict[Submission, None] = {}
        #: What a caller may carry out himself: these open and close no link while there is one.
        self._simple = (self._submit, self._ask)
        #: Who receives: callers who wait in other ways than by their futures must have it `look`.
        self.stand_in = StandIn(self)
        self._idle.register(self.stand_in.fileno(), select.POLLIN)
        self._awaited = Awaited(self.stand_in)
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
        self.stand_in.close()

    @property
    def attached(self) -> bool:
        """Whether a broker has welcomed the session on the present link."""
        return self._machine.attached

    @property
    def why(self) -> str:
        """Why there is no link, if there is none."""
        return self._machine.why

    # --- orders --------------------------------------------------------------------------------------------------

    def promise(self) -> Future[None]:
        """Return the future of a submission."""
        return Answer(self.stand_in)

    def submit(self, submission: Submission, chunks: Sequence[Chunk], watched: Sequence[str], patient: bool) -> None:
        """Publish; the submission's token is the future that is completed at its end."""
        self._order(self._submit, submission, chunks, watched, patient, serve=not patient, may_wait=True)

    def result_futures(self, ids: Sequence[str]) -> list[Promise[Known]]:
        """Return a promise of each id's terminal state; the same one for the same id while it is pending."""
        futures: list[Promise[Known]] = []
        new: list[str] = []
        for id in ids:
            known = self.kept(id)
            futures.append(self._awaited.future(id, new) if known is None else Kept(known))
        if new:
            self._order(self._ask, new, serve=True)
        return futures

    def on_result(self, id: str, callback: ResultCallback) -> None:
        """Call `callback` with each state of the id that becomes known, in this thread, until a terminal one."""
        self._order(self._subscribe, id, callback)

    def unwatch(self, id: str) -> None:
        """Let nobody wait for this id any more; its future fails."""
        self._order(self._forget, id)

    def request(self, op: Op, params: bytes) -> Future[Reply]:
        """Ask the broker."""
        future: Future[Reply] = Answer(self.stand_in)
        self._order(self._request, op, params, future)
        return future

    def drop(self, future: Future[Any]) -> None:
        """Nobody waits for this request, or this submission, any more."""
        self._order(self._drop, future)

    def leave(self) -> None:
        """Say goodbye and end."""
        self._order(self._leave)

    def _order(self, method: Callable[..., None], *arguments: Any, serve: bool = False, may_wait: bool = False) -> None:
        self._intake.append((method, arguments))
        if not (serve and self._serve()):
            # The thread takes the flag back before it empties the intake, so whoever finds it set will be served.
            if not self._signalled or (self._holding and not may_wait):
                self._signalled = True
                self._wakeup.wake()
                self.stand_in.look()
            if self._finished:
                self._refuse_orders()

    def _serve(self) -> bool:
        """Carry out simple orders in the caller's thread; False if the thread must do it, or something after it.

        Whoever finds the lock taken leaves: the one who holds it looks at the intake again after giving it back.
        """
        while self._intake:
            if not self._lock.acquire(blocking=False):
                return True
            try:
                served = self._serve_locked()
            finally:
                self._lock.release()
            self._tell()
            if not served:
                return False
        return True

    def _serve_locked(self) -> bool:
        link = self._link
        machine = self._machine
        if link is None or link.closed or not machine.attached:
            return False
        if self.stand_in.nobody_is_on_duty:
            # Nobody has looked for a moment: the connection may be over, and then nothing more should be sent there.
            link.suspect()
            if link.closed or link.pending():
                return False
        intake = self._intake
        while intake:
            method, arguments = intake[0]
            if method not in self._simple:
                return False
            intake.popleft()
            method(*arguments)
        now = self._clock()
        for message in machine.flush(now):
            if not link.send(message):
                # What was not sent is unconfirmed: it is said again on the next link, which the thread opens.
                self._intake.append((self._lose_choked, (machine.attachment.link,)))
                return False
        # The send may have taken in what the thread waits for; and it may sleep past a limit that was set just now.
        if link.pending():
            return False
        wake = machine.wake_at()
        return not wake or 0 < self._sleeps_until <= wake

    # --- for whoever is on duty ----------------------------------------------------------------------------------

    def waiting(self) -> int:
        """Return how many answers are waited for."""
        return len(self._submissions) + len(self._awaited) + len(self._requests)

    def has_orders(self) -> bool:
        """Tell whether something was ordered that nobody has begun with, or the session is over."""
        return bool(self._intake) or self.ended

    def attend(self) -> None:
        """Do all that is ready, in place of the thread, which may wait for input at the same time."""
        with self._lock:
            if self.ended:
                return
            link = self._link
            if link is not None:
                link.suspect()
            try:
                timeout = self._pass()
            except BaseException as error:
                # Half of it is done, perhaps: a KeyboardInterrupt may come anywhere. The next call starts anew.
                self._error = UnknownOutcome(f"the client was interrupted in its work: {type(error).__name__}: {error}")
                self.ended = True
                raise
            self._attended = self._link, timeout
        self._tell()

    def sleep(self, seconds: float) -> bool:
        """Wait for input in place of the thread; False if the link is not there, or is closing."""
        link, timeout = self._attended
        if link is None or link.closed or self.ended:
            return False
        if self._intake:
            return True
        milliseconds = -int(-seconds * 1_000 // 1)
        ready = link.wait_beside(milliseconds if timeout is None else min(milliseconds, timeout))
        self._note_wakeup(ready or ())
        return ready is not None

    def _note_wakeup(self, ready: Sequence[int]) -> None:
        """Whoever orders sets the flag first, and the pass that takes the flag back may come in between."""
        if self._wakeup.fileno() in ready:
            self._signalled = True

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.ended:
                if self.stand_in.rests():
                    self.stand_in.rest()
                    continue
                with self._lock:
                    timeout = self._pass()
                    link = self._link
                self._tell()
                if self._intake or self.ended:
                    continue
                if link is None:
                    self._idle.poll(timeout)
                else:
                    self._note_wakeup(link.wait(timeout))
        except Exception as error:  # everybody who waits learns of it, and the next call starts anew
            _logger.exception("the client's thread failed")
            self._error = GreenroomError(f"the client failed unexpectedly: {type(error).__name__}: {error}")
        finally:
            self._finish()

    def _pass(self) -> int | None:
        """Do all that is ready; return for how long there is nothing to do, in milliseconds, or None for ever."""
        machine = self._machine
        self._take_orders()
        if self._link is not None:
            self._receive(self._link)
        now = self._clock()
        wake = machine.wake_at()
        if wake and now.boot >= wake:
            self._act(machine.apply(links.Tick(), now))
        self._send_what_waits(now)
        if self._link is not None and self._link.pending():
            return 0
        wake = machine.wake_at()
        self._sleeps_until = wake
        self._holding = machine.publisher.holding
        if self._holding:
            self._signalled = True
        return max(0, -(-(wake - now.boot) // 1_000)) if wake else None

    def _take_orders(self) -> None:
        if self._signalled:
            self._wakeup.clear()
            self._signalled = self._holding = False
        intake = self._intake
        while intake:
            method, arguments = intake.popleft()
            method(*arguments)

    def _receive(self, link: Link) -> None:
        for message in link.receive():
            verbs = decode_from_broker(message)
            self._act(self._machine.apply(links.Heard(self._machine.attachment.link, verbs), self._clock()))
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

    def _lose_choked(self, number: int) -> None:
        self._act(self._machine.apply(links.LinkLost(number, "it takes no more frames"), self._clock()))

    def _lose(self, reason: str, now: Now) -> None:
        self._act(self._machine.apply(links.LinkLost(self._machine.attachment.link, reason), now))

    def _act(self, effects: list[machines.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, machines.Ended):
                for ending in effect.endings:
                    self._end(ending.submission, ending.error)
            elif isinstance(effect, machines.Learned):
                for known in effect.results:
                    self._awaited.learn(known, self._told)
            elif isinstance(effect, machines.Answered):
                self._answer(effect.reply)
            elif isinstance(effect, machines.Waiting):
                self._told.append(partial(tell_of_blocked, effect.blocked))
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
                    # The thread may be waiting at that link, while somebody stands in.
                    self.stand_in.call()
            else:
                self.ended = True
                self._error = effect.error

    def _open(self, effect: links.OpenLink) -> None:
        try:
            link = Link(effect.address, self._context, token=self._token)
        except (GreenroomError, OSError) as error:
            # The machine tries again, and says why to those whose time is up.
            self._act(self._machine.apply(links.LinkLost(effect.link, str(error)), self._clock()))
            return
        link.watch(self._wakeup.fileno(), beside=True)
        link.watch(self.stand_in.fileno())
        self._link = link
        # The thread may be waiting where there was no link, while somebody stands in.
        self.stand_in.call()
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
                self._break(self._awaited.take(id), error)
            return
        self._act(effects)

    def _subscribe(self, id: str, callback: ResultCallback) -> None:
        self._awaited.subscribe(id, callback)
        self._act(self._machine.ask([id], self._clock()))

    def _forget(self, id: str) -> None:
        self._break(self._awaited.forget(id), UnknownOutcome(f"nobody waits for the result of {id} any more"))
        self._machine.forget([id])

    def _request(self, op: Op, params: bytes, future: Future[Reply]) -> None:
        try:
            number, effects = self._machine.request(op, params, self._clock())
        except GreenroomError as error:
            self._told.append(partial(fail, future, error))
            return
        self._requests[number] = future
        self._act(effects)

    def _drop(self, future: Future[Any]) -> None:
        for number in [number for number, waiting in self._requests.items() if waiting is future]:
            del self._requests[number]
            self._machine.drop_request(number)
        for submission in [submission for submission in self._submissions if submission.token is future]:
            self._act(self._machine.give_up(submission, self._clock()))

    def _leave(self) -> None:
        self._send_what_waits(self._clock())
        self._act(self._machine.leave(self._clock()))

    # --- answers -------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Complete futures and call callbacks. The lock must not be held: whoever hears may call this client."""
        while self._told:
            try:
                tell = self._told.popleft()
            except IndexError:  # another thread took it
                return
            tell()

    def _end(self, submission: Submission, error: GreenroomError | None) -> None:
        self._submissions.pop(submission, None)
        self._told.append(partial(end, submission, error, self._released))

    def _answer(self, reply: Reply) -> None:
        future = self._requests.pop(reply.number, None)
        if future is not None:
            refused = partial(fail, future, RequestRefused(reply.error))
            self._told.append(refused if reply.error else partial(complete, future, reply))

    def _break(self, future: Future[Known] | None, error: GreenroomError) -> None:
        if future is not None:
            self._told.append(partial(fail, future, error))

    def _finish(self) -> None:
        """Tell everybody who still waits, and give everything back."""
        with self._lock:
            self.ended = True
            if self._link is not None:
                self._link.close()
                self._link = None
            error = self._why_over()
            for submission in list(self._submissions):
                self._end(submission, error)
            self._told.extend(partial(fail, future, error) for future in self._requests.values())
            self._finished = True  # from here on a caller whose order comes too late refuses it himself
        self._refuse_orders()
        self._context.term()
        self._wakeup.close()
        self.stand_in.close()

    def _refuse_orders(self) -> None:
        error = self._why_over()
        while self._intake:
            try:
                method, arguments = self._intake.popleft()
            except IndexError:  # another thread took it
                break
            if method == self._submit:
                self._end(arguments[0], error)
            elif method == self._request:
                self._told.append(partial(fail, arguments[2], error))
        self._told.extend(partial(fail, future, error) for future in self._awaited.take_all())
        self._tell()

    def _why_over(self) -> GreenroomError:
        return self._error or UnknownOutcome("the client was closed before the answer came")
