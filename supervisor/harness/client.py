"""A simulated client: the production machine, and the contract of a client for tasks and tests to use.

Owns one session's link and the promises of those who wait. Whoever waits gives his turn back, or, if he is the test
itself, lets the world go on meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from ...transport.clock import Now
from ...transport.codec import decode_from_broker
from ...transport.errors import GreenroomError, OperationalError, UnknownOutcome
from ...transport.message import Envelope, Flag, State
from ...transport.peer import attachment as links
from ...transport.peer import client as machines
from ...transport.peer.client import ClientMachine, RequestRefused
from ...transport.peer.publisher import Submission, cut
from ...transport.peer.results import is_terminal
from ...transport.requests import LIST_MAX, SHAPES, Fetched, FetchResults
from ...transport.sim.network import SimLink
from ...transport.verbs import Known, Op, Reply
from .clockwork import Fiber, Process
from .trace import Kind, Trace

T = TypeVar("T")

SECOND = 1_000_000
#: How long one waits who names no time: simulated time is cheap, and somebody who waits for ever is a finding.
FOREVER = 10 * 365 * 24 * 3600 * SECOND
ANSWER_TIME = 34 * SECOND
_WATCHED = int(Flag.WATCHED)
_encode = msgspec.msgpack.Encoder().encode


class SimPromise(Generic[T]):
    """What `concurrent.futures.Future` is in production."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._value: T | None = None
        self._error: BaseException | None = None
        self._done = False
        self._callbacks: list[Callable[[Any], object]] = []
        self._waiters: dict[Fiber, None] = {}

    def done(self) -> bool:
        """Tell whether it is kept or broken."""
        return self._done

    def result(self, timeout: float | None = None) -> T:
        """Wait and return it, or raise why it will never be there; TimeoutError after `timeout` seconds."""
        clockwork = self._process.clockwork
        # Rounded up: who asks again for what is left of his time would ask for nothing, for ever.
        limit = FOREVER if timeout is None else math.ceil(timeout * SECOND)
        if not clockwork.wait(self.done, limit, self._enter):
            raise TimeoutError(f"nothing came within {timeout} simulated seconds")
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call `fn` with this once it is done; at once if it is."""
        if self._done:
            fn(self)
        else:
            self._callbacks.append(fn)

    def keep(self, value: T) -> None:
        """It is there."""
        self._value = value
        self._finish()

    def break_(self, error: BaseException) -> None:
        """It will never be there."""
        self._error = error
        self._finish()

    def _enter(self, fiber: Fiber) -> None:
        self._waiters[fiber] = None

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        waiters, self._waiters = self._waiters, {}
        for fiber in waiters:
            fiber.wake()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class SimClient:
    """One process's link to its broker. Keeps `transport.peer.contract.Client`."""

    def __init__(self, process: Process, trace: Trace, addresses: Sequence[str], session: str) -> None:
        self.process = process
        self.session = session
        self._trace = trace
        self._machine = ClientMachine(
            addresses=addresses, origin=process.lane, session=session, host=process.lane, pid=1
        )
        self._link: SimLink | None = None
        self._results: dict[str, SimPromise[Known]] = {}
        self._requests: dict[int, SimPromise[Reply]] = {}
        self._submissions: dict[Submission, tuple[SimPromise[None], list[str]]] = {}
        self._background: BaseException | None = None
        self._left = False
        self._fiber = process.fiber(self._run, f"{process.lane}'s client")

    @property
    def link(self) -> SimLink | None:
        """The connection of the moment."""
        return self._link

    @property
    def awaited(self) -> list[str]:
        """Ids whose results were asked for here and have not come; who asked may have given up."""
        return list(self._results)

    def is_idle(self) -> bool:
        """Whether everything that was said here is answered, but for results."""
        return not (self._submissions or self._requests)

    # --- the contract --------------------------------------------------------------------------------------------

    def publish(
        self, mailbox: str, envelopes: Sequence[Envelope], *, deadline_seconds: float | None = None
    ) -> SimPromise[None]:
        """Send messages to one mailbox, in order, and promise that a broker has accepted all of them."""
        return self._publish(mailbox, envelopes, deadline_seconds, patient=False)

    def publish_nowait(self, mailbox: str, envelopes: Sequence[Envelope]) -> SimPromise[None]:
        """Send without a deadline."""
        promise = self._publish(mailbox, envelopes, None, patient=True)
        promise.add_done_callback(self._note_failure)
        return promise

    def give_up(self, promise: Any) -> None:
        """Wait no longer for a publish: its promise is broken, and what was not sent yet never will be."""
        for submission, (made, _) in list(self._submissions.items()):
            if made is promise:
                self._act(self._machine.give_up(submission, self._now()))

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was published has been confirmed or refused."""
        for promise, _ in list(self._submissions.values()):
            try:
                promise.result(timeout)
            except GreenroomError:
                # Raised below, if nobody was told before.
                continue
        error, self._background = self._background, None
        if error is not None:
            raise error

    def result_future(self, id: str) -> SimPromise[Known]:
        """Promise the terminal state of a message."""
        return self.result_futures((id,))[0]

    def result_futures(self, ids: Sequence[str]) -> list[SimPromise[Known]]:
        """Promise the terminal states of many messages, in the order of `ids`."""
        new = [id for id in dict.fromkeys(ids) if id not in self._results]
        for id in new:
            self._results[id] = SimPromise(self.process)
        promises = [self._results[id] for id in ids]
        if new:
            self._act(self._machine.ask(new, self._now()))
            self._fiber.wake()
        return promises

    def forget(self, id: str) -> None:
        """Nobody waits for this result here any more: its promise is broken, if there was one."""
        promise = self._results.pop(id, None)
        if promise is not None:
            promise.break_(UnknownOutcome(f"nobody waits for the result of {id} any more"))
            self._machine.forget([id])
            self._fiber.wake()

    def known(self, ids: Sequence[str]) -> list[Known]:
        """Return what is kept of these ids now."""
        found: list[Known] = []
        for start in range(0, len(ids), LIST_MAX):
            fetched = self.request(Op.RESULTS, FetchResults(list(ids[start : start + LIST_MAX])))
            assert isinstance(fetched, Fetched)
            found += [Known(id, state, result) for id, state, result in fetched.results]
        return found

    def tell(self, op: Op, params: Any) -> None:
        """Ask the broker and go on."""
        self._ask(op, params)

    def ask(self, op: Op, params: Any) -> SimPromise[Reply]:
        """Ask the broker and go on; return the promise of its answer."""
        return self._ask(op, params)[1]

    def request(self, op: Op, params: Any, timeout: float | None = None) -> Any:
        """Ask the broker; return the answer as its struct."""
        number, promise = self._ask(op, params)
        seconds = ANSWER_TIME / SECOND if timeout is None else timeout
        try:
            reply = promise.result(seconds)
        except TimeoutError:
            self._requests.pop(number, None)
            self._machine.drop_request(number)
            raise OperationalError(f"the broker did not answer a request within {seconds:g} s") from None
        return msgspec.msgpack.decode(reply.value, type=SHAPES[op][1])

    def kill(self) -> None:
        """SIGKILL. Of what it waited for, nobody will ever know here."""
        if self.process.alive:
            self._trace.note(Kind.DEATH, self.process.lane, how="signal 9")
            if self._link is not None:
                self._link.close()
            self._break_all(UnknownOutcome("the client was killed before the answer came"))
            self.process.die()

    def close(self) -> None:
        """End the session in order."""
        if not self._left:
            self._left = True
            self._act(self._machine.leave(self._now()))
            self._break_all(UnknownOutcome("the client was closed before the answer came"))
            self._fiber.wake()

    def _ask(self, op: Op, params: Any) -> tuple[int, SimPromise[Reply]]:
        promise: SimPromise[Reply] = SimPromise(self.process)
        number, effects = self._machine.request(op, _encode(params), self._now())
        self._requests[number] = promise
        self._act(effects)
        self._fiber.wake()
        return number, promise

    # --- publishing ----------------------------------------------------------------------------------------------

    def _publish(
        self, mailbox: str, envelopes: Sequence[Envelope], deadline_seconds: float | None, *, patient: bool
    ) -> SimPromise[None]:
        chunks = cut(mailbox, envelopes)
        promise: SimPromise[None] = SimPromise(self.process)
        if not chunks:
            promise.keep(None)
            return promise
        now = self._now()
        deadline = 0 if deadline_seconds is None else now.boot + round(deadline_seconds * SECOND)
        ids = [envelope.id for envelope in envelopes]
        watched = [envelope.id for envelope in envelopes if envelope.flags & _WATCHED]
        submission = Submission(promise, deadline=deadline)
        self._submissions[submission] = promise, ids
        self._trace.note(
            Kind.PUBLISH,
            self.process.lane,
            mailbox=mailbox,
            tasks=[envelope.name for envelope in envelopes],
            ids=ids,
            flags=[envelope.flags for envelope in envelopes],
            bounds=[0 if envelope.more is None else envelope.more.max_deliveries for envelope in envelopes],
        )
        self._act(self._machine.submit(submission, chunks, now, watched=watched, patient=patient))
        self._fiber.wake()
        return promise

    def _note_failure(self, promise: SimPromise[None]) -> None:
        try:
            promise.result(0)
        except GreenroomError as error:
            self._background = self._background or error

    # --- the driver ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            machine = self._machine
            if self._link is not None:
                self._receive(self._link)
            now = self._now()
            wake = machine.wake_at()
            if wake and now.boot >= wake:
                self._act(machine.apply(links.Tick(), now))
            self._send()
            self._fiber.sleep(machine.wake_at())

    def _receive(self, link: SimLink) -> None:
        for message in link.receive():
            verbs = decode_from_broker(message)
            self._act(self._machine.apply(links.Heard(self._machine.attachment.link, verbs), self._now()))
            if link is not self._link:
                return
        if link.closed:
            self._act(self._machine.apply(links.LinkLost(self._machine.attachment.link), self._now()))

    def _send(self) -> None:
        link = self._link
        if link is None:
            return
        for message in self._machine.flush(self._now()):
            if not link.send(message):
                lost = links.LinkLost(self._machine.attachment.link, "it takes no more frames")
                self._act(self._machine.apply(lost, self._now()))
                return

    def _act(self, effects: list[machines.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, machines.Ended):
                for ending in effect.endings:
                    self._end(ending.submission, ending.error)
            elif isinstance(effect, machines.Learned):
                for known in effect.results:
                    self._learn(known)
            elif isinstance(effect, machines.Answered):
                self._answer(effect.reply)
            elif isinstance(effect, links.Transmit):
                link = self._link
                if link is not None:
                    for message in effect.messages:
                        link.send(message)
            elif isinstance(effect, links.OpenLink):
                self._open(effect)
            elif isinstance(effect, links.CloseLink):
                if self._link is not None:
                    self._link.close()
                    self._link = None
            elif isinstance(effect, machines.Closed):
                self._break_all(effect.error or UnknownOutcome("the client was closed before the answer came"))

    def _open(self, effect: links.OpenLink) -> None:
        link = self._link = self.process.clockwork.network.connect(effect.address, self.process.host)
        link.on_news(self._fiber.wake)
        self._act(self._machine.apply(links.LinkOpened(effect.link, link.token), self._now()))

    def _end(self, submission: Submission, error: GreenroomError | None) -> None:
        promise, ids = self._submissions[submission]
        refused = {} if error is None else {"error": type(error).__name__}
        # Whoever is killed here has not got it: until then it is among what he waits for.
        self._trace.note(Kind.CONFIRM, self.process.lane, ids=ids, **refused)
        self._submissions.pop(submission, None)
        if error is None:
            promise.keep(None)
        else:
            promise.break_(error)

    def _learn(self, known: Known) -> None:
        self._trace.note(Kind.RESULT, self.process.lane, id=known.id, state=State(known.state).name)
        if is_terminal(known):
            promise = self._results.pop(known.id, None)
            if promise is not None:
                promise.keep(known)

    def _answer(self, reply: Reply) -> None:
        promise = self._requests.pop(reply.number, None)
        if promise is not None:
            if reply.error:
                promise.break_(RequestRefused(reply.error))
            else:
                promise.keep(reply)

    def _break_all(self, error: GreenroomError) -> None:
        open_promises: list[SimPromise[Any]] = [
            *self._results.values(),
            *self._requests.values(),
            *(promise for promise, _ in self._submissions.values()),
        ]
        self._results.clear()
        self._requests.clear()
        self._submissions.clear()
        for promise in open_promises:
            promise.break_(error)

    def _now(self) -> Now:
        return self.process.now
