"""A client that needs no broker, and apps that use it."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from greenroom.actors.app import App
from greenroom.actors.bodies import PLAIN, pack_value, unpack_call
from greenroom.actors.results.failure import describe
from greenroom.actors.results.result import encode_children
from greenroom.transport.message import TERMINAL, Envelope, Flag, Result, State
from greenroom.transport.verbs import Known, Op

_encode = msgspec.msgpack.Encoder().encode


class FakeClient:
    """Records what is published, and knows the results that a test gives it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Envelope]] = []
        self.batches: list[tuple[str, int]] = []
        self.deadlines: list[float | None] = []
        self.background = 0
        self.flushes = 0
        self.closed = False
        self.requests: list[tuple[Op, Any]] = []
        self.given_up: list[Any] = []
        #: What was said without waiting, after so many messages.
        self.told: list[tuple[int, Op, Any]] = []
        self.answers: dict[Op, Any] = {}
        self.asked: list[list[str]] = []
        #: What publishes are refused with.
        self.refusal: Exception | None = None
        #: Promises of publishes are kept by hand.
        self.hold = False
        self.held: list[Future[None]] = []
        self.on_publish: Callable[[Envelope], object] | None = None
        self._known: dict[str, Known] = {}
        self._waiting: dict[str, list[Future[Known]]] = {}

    # --- the contract

    def publish(
        self, mailbox: str, envelopes: Sequence[Envelope], *, deadline_seconds: float | None = None
    ) -> Future[None]:
        self.deadlines.append(deadline_seconds)
        self.batches.append((mailbox, len(envelopes)))
        future: Future[None] = Future()
        if self.refusal is not None:
            future.set_exception(self.refusal)
            return future
        self.published.extend((mailbox, envelope) for envelope in envelopes)
        if self.hold:
            self.held.append(future)
        else:
            future.set_result(None)
        if self.on_publish is not None:
            for envelope in envelopes:
                self.on_publish(envelope)
        return future

    def give_up(self, promise: Any) -> None:
        self.given_up.append(promise)

    def publish_nowait(self, mailbox: str, envelopes: Sequence[Envelope]) -> Future[None]:
        self.background += 1
        return self.publish(mailbox, envelopes)

    def flush(self, timeout: float | None = None) -> None:
        self.flushes += 1

    def result_future(self, id: str) -> Future[Known]:
        return self.result_futures([id])[0]

    def result_futures(self, ids: Sequence[str]) -> list[Future[Known]]:
        futures: list[Future[Known]] = []
        for id in ids:
            future: Future[Known] = Future()
            known = self._known.get(id)
            if known is not None and known.state in TERMINAL:
                future.set_result(known)
            else:
                self._waiting.setdefault(id, []).append(future)
            futures.append(future)
        return futures

    def known(self, ids: Sequence[str]) -> list[Known]:
        self.asked.append(list(ids))
        return [self._known[id] for id in ids if id in self._known]

    def request(self, op: Op, params: Any, timeout: float | None = None) -> Any:
        self.requests.append((op, params))
        return self.answers.get(op)

    def tell(self, op: Op, params: Any) -> None:
        self.told.append((len(self.published), op, params))

    def close(self) -> None:
        self.closed = True

    # --- what a test says

    @property
    def envelope(self) -> Envelope:
        """The last message."""
        return self.published[-1][1]

    @property
    def mailbox(self) -> str:
        """Where the last message went."""
        return self.published[-1][0]

    def settle(self, id: str, state: int, **fields: Any) -> None:
        """Let a message have a state, with the fields of a `Result`."""
        self._known[id] = known = Known(id, state, _encode(Result(state, **fields)))
        if state in TERMINAL:
            for future in self._waiting.pop(id, []):
                future.set_result(known)

    def succeed(self, id: str, value: object, **fields: Any) -> None:
        """Let a message succeed with this value."""
        content, body = pack_value(value, PLAIN, id)
        self.settle(id, State.SUCCESS, content=content, body=body, done_at=1_700_000_000_000_000, **fields)

    def fail(self, id: str, error: Exception, state: int = State.FAILURE) -> None:
        """Let a message fail with this exception."""
        self.settle(id, state, failure=describe(error))

    def say_nothing_more(self, id: str, state: int) -> None:
        """Let a message end without a word."""
        self._known[id] = Known(id, state, b"")

    def work_for(self, app: App) -> None:
        """Run each published task at once, as a worker would, and settle it."""

        def run(envelope: Envelope) -> None:
            args, kwargs = unpack_call(envelope, accept=app.conf.accept_content, key=app.signing_key)
            try:
                value = app.tasks[envelope.name].body(*args, **kwargs)
            except Exception as error:
                # The task's own: its caller learns of it.
                self.fail(envelope.id, error)
            else:
                if not envelope.flags & Flag.IGNORE_RESULT:
                    self.succeed(envelope.id, value, children=encode_children(None))

        self.on_publish = run


@pytest.fixture
def client() -> FakeClient:
    """The client of `app`."""
    return FakeClient()


@pytest.fixture
def make_app(client: FakeClient) -> Iterator[Callable[..., App]]:
    """Makes apps that use `client`, and forgets them at the end."""
    made: list[App] = []

    def make(*args: Any, **kwargs: Any) -> App:
        app = App(*args, **kwargs)
        app.client_factory = lambda _app: client
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app: Callable[..., App]) -> App:
    """An app without a name."""
    return make_app()


@pytest.fixture
def deadline() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so, at most five seconds."""

    def wait_until(so: Callable[[], bool]) -> None:
        until = time.monotonic() + 5
        while not so():
            assert time.monotonic() < until, "it did not come to pass within 5 s"
            time.sleep(0)

    return wait_until
