"""Refs: how to speak to an actor, wherever it lives and whether it lives yet.

Owns `ActorRef` and `AskResult`. A ref is a value: the registered name of a class and a key. It can be sent in a
message, compared, used as a key and printed, and it needs no class: a text in place of a method serves callers
that have none.
"""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, overload

from ..transport.clock import system_now
from ..transport.message import NAME_CHARACTERS_MAX, Envelope, Flag, Kind, More
from ..transport.payload import register_type
from .actor import Actor, methods_of
from .bodies import pack_call
from .current import get_current_app, remember_unconfirmed, worker_frame
from .errors import ActorFailed, TimeoutError, UnknownOutcome
from .identity import new_id, origin
from .results.meta import Meta, read_known
from .results.states import PROPAGATE_STATES
from .results.waiting import wait, wait_async
from .tasks.check import Check, compile_check

if TYPE_CHECKING:
    from .app import App

A = TypeVar("A", bound=Actor)
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

SECOND: Final = 1_000_000
_DURABLE: Final = (Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST).value


def mailbox_of(actor: str, key: str) -> str:
    """Return the mailbox of a named actor."""
    return f"actor:{actor}:{key}"


class ActorRef(Generic[A]):
    """Speaks to one named actor. Made by `app.ref(Counter, "home")`."""

    __slots__ = ("_app", "_cls", "_seconds", "actor", "key")

    def __init__(
        self,
        actor: str,
        key: str,
        *,
        app: App | None = None,
        cls: type[A] | None = None,
        seconds: float | None = None,
    ) -> None:
        if not key or len(mailbox_of(actor, key)) > NAME_CHARACTERS_MAX:
            raise ValueError(
                f"the key of an actor is a text of 1 to {NAME_CHARACTERS_MAX - len(mailbox_of(actor, ''))} "
                f"characters, not {key!r}"
            )
        #: The registered name of its class.
        self.actor = actor
        self.key = key
        self._app = app
        self._cls = cls
        self._seconds = seconds

    @property
    def app(self) -> App:
        """The app whose brokers know the actor: the one that made the ref, else the current one."""
        return self._app or get_current_app()

    @property
    def mailbox(self) -> str:
        """The name of the actor's mailbox."""
        return mailbox_of(self.actor, self.key)

    def within(self, seconds: float) -> ActorRef[A]:
        """Return a ref to the same actor whose questions are void after this time: then nobody starts on them."""
        return ActorRef(self.actor, self.key, app=self._app, cls=self._cls, seconds=seconds)

    @overload
    def tell(self, method: Callable[Concatenate[A, P], Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def tell(self, method: str, /, *args: Any, **kwargs: Any) -> None: ...
    def tell(self, method: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> None:
        """Send a message and do not wait: neither for a broker's word nor for an answer.

        `method` is a method of the actor's class, as in `tell(Counter.bump, 2)`, or its name. Raises TypeError when
        the arguments do not fit, EncodeError when they cannot be sent.
        """
        envelope = self._envelope(method, args, kwargs, Flag.IGNORE_RESULT)
        remember_unconfirmed(self.app.client.publish_nowait(self.mailbox, [envelope]))

    @overload
    def ask(
        self,
        method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AskResult[R]: ...
    @overload
    def ask(self, method: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs) -> AskResult[R]: ...
    @overload
    def ask(self, method: str, /, *args: Any, **kwargs: Any) -> AskResult[Any]: ...
    def ask(self, method: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> AskResult[Any]:
        """Send a question; return its answer to come, to `get()` or to `await`. Raises as `tell`."""
        envelope = self._envelope(method, args, kwargs, Flag.WATCHED)
        app = self.app
        remember_unconfirmed(app.client.publish_nowait(self.mailbox, [envelope]))
        return AskResult(envelope.id, self, envelope.name, app, self._seconds)

    def _envelope(
        self, method: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], flag: Flag
    ) -> Envelope:
        name = method if isinstance(method, str) else method.__name__
        cls: type[Any] | None = self._cls or self.app.actors.get(self.actor)
        if cls is not None:
            function = methods_of(cls).get(name)
            if function is None:
                messages = ", ".join(methods_of(cls)) or "none"
                raise TypeError(f"actors of {self.actor} have no method {name!r} for messages; they have {messages}")
            check = _check_of(function)
            if check is not None:
                check(*args, **kwargs)
        app = self.app
        id = new_id()
        content, body = pack_call(args, kwargs, app.content(None, None), id)
        more = More(actor_class=self.actor)
        if self._seconds is not None:
            more.deadline = system_now().wall + round(self._seconds * SECOND)
        frame = worker_frame()
        if frame is not None:
            more.parent_id = frame.request.id or ""
            more.root_id = frame.request.root_id or ""
        flags = flag.value | (_DURABLE if cls is not None and cls.durable else 0)
        return Envelope(id, name, content, body, flags, 0, Kind.ACTOR.value, origin(), more)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ActorRef):
            ref = cast("ActorRef[Actor]", other)
            return (self.actor, self.key) == (ref.actor, ref.key)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.actor, self.key))

    def __str__(self) -> str:
        return self.mailbox

    def __repr__(self) -> str:
        return f"<ActorRef {self.actor} {self.key!r}>"

    def __reduce__(self) -> Any:
        return _restore_ref, ([self.actor, self.key],)


def _restore_ref(plain: list[str]) -> ActorRef[Any]:
    actor, key = plain
    return ActorRef(actor, key, cls=get_current_app().actors.get(actor))


def _plain_ref(ref: ActorRef[Any]) -> list[str]:
    return [ref.actor, ref.key]


register_type(ActorRef, "greenroom.ref", _plain_ref, _restore_ref)


@functools.cache
def _check_of(function: types.FunctionType) -> Check | None:
    return compile_check(types.MethodType(function, object()), name=function.__qualname__)


class AskResult(Generic[R_co]):
    """The answer of an actor to one question, here or to come."""

    __slots__ = ("_app", "_deadline", "_meta", "_seconds", "id", "method", "ref")

    def __init__(self, id: str, ref: ActorRef[Any], method: str, app: App, seconds: float | None) -> None:
        #: The id of the message.
        self.id = id
        self.ref = ref
        self.method = method
        self._app = app
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._meta: Meta | None = None

    def get(self, timeout: float | None = None) -> R_co:
        """Wait for the answer.

        Raises ActorFailed, with the cause, when the actor crashed over the question; UnknownOutcome after
        `timeout` seconds, or after the ref's `within`: it may or may not have been worked on.
        """
        if self._meta is None:
            seconds = self._left(timeout)
            try:
                known = wait(self._app.client.result_future(self.id), seconds, what=self)
            except TimeoutError:
                raise self._unknown(timeout) from None
            self._meta = read_known(known, self._app)
        return self._answer()

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None) -> R_co:
        """Wait for the answer in asyncio. Raises as `get`."""
        if self._meta is None:
            promise = self._app.client.result_future(self.id)
            try:
                known = await wait_async(promise, self._left(timeout), what=self)
            except TimeoutError:
                raise self._unknown(timeout) from None
            self._meta = read_known(known, self._app)
        return self._answer()

    def _left(self, timeout: float | None) -> float | None:
        if self._deadline is None:
            return timeout
        left = max(0.0, self._deadline - time.monotonic())
        return left if timeout is None else min(left, timeout)

    def _unknown(self, timeout: float | None) -> UnknownOutcome:
        seconds = min(value for value in (timeout, self._seconds) if value is not None)
        return UnknownOutcome(
            f"{self.ref.mailbox} has not answered {self.method!r} within {seconds:g} s; it may or may not have done "
            f"it. The message is {self.id}"
        )

    def _answer(self) -> R_co:
        meta = cast("Meta", self._meta)
        if meta.state not in PROPAGATE_STATES:
            return cast("R_co", meta.value)
        if isinstance(meta.value, ActorFailed | UnknownOutcome):
            raise meta.value
        error = ActorFailed(
            f"{self.ref.mailbox} failed over {self.method!r}: {type(meta.value).__name__}: {meta.value}",
            actor=self.ref.mailbox,
        )
        raise error from cast("BaseException", meta.value)

    def __repr__(self) -> str:
        return f"<AskResult: {self.method} of {self.ref.mailbox} [{self.id}]>"
