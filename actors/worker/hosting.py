"""Actors in this child: one instance a named actor, made at its first message, gone with its first exception.

A durable actor (`Actor.durable`) has a state that outlives its instances (`states.py`). It is asked for when this child
gets the actor, restored before `on_start`, and taken anew after each message; where it has changed it is settled with
the message's end. After a crash the next instance has the state that was there before the message.

Owns the instances, by mailbox, and the running of messages of kind ACTOR. The consumer gives the messages of one actor
one at a time and in order. `on_start` is called before an instance's first message, `on_stop` before it goes away in
order. An exception of either, of the constructor or of a handler is the actor's crash: whoever asked gets
`ActorFailed` with the cause, the instance is dropped, and the next message makes a new one; a supervisor is told
through `crashed`. A message for a method that is none, or that cannot be decoded, is its sender's mistake and no crash.

Limit: `instances_max` live instances; beyond it the one that was idle for longest is stopped, since nobody else will.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...transport.clock import Now
from ...transport.errors import EncodeError, GreenroomError
from ...transport.message import Outcome, State
from ..actor import methods_of
from ..current import Frame, set_top_frame
from ..errors import ActorFailed, NotRegistered, Terminated
from ..results.failure import describe
from ..tasks.task import Task
from . import states
from .coroutines import CONFIRM_SECONDS, coroutine_runner, done
from .events import Held
from .outcomes import OUTCOME_BYTES_MAX
from .states import Fetch, Living

if TYPE_CHECKING:
    from ..tasks.request import Context
    from .execute import Executor

logger = logging.getLogger("greenroom.worker")

INSTANCES_MAX: Final = 10_000

#: Told of a crash: the mailbox, the actor's registered class, and what was raised.
Crashed = Callable[[str, str, BaseException], None]


def _nobody(mailbox: str, actor_class: str, error: BaseException) -> None:
    """Nobody supervises: the log has it."""


class _Handler(msgspec.Struct):
    """What one message calls."""

    cls: type[Any]
    task: Task[..., Any]
    method: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    durable: bool


class Hosting:
    """The actors of one child. `classes`: the application's actor classes by their registered names."""

    def __init__(
        self,
        executor: Executor,
        classes: Mapping[str, type[Any]],
        clock: Callable[[], Now],
        crashed: Crashed = _nobody,
        instances_max: int = INSTANCES_MAX,
        *,
        fetch: Fetch,
    ) -> None:
        self._executor = executor
        self._classes = classes
        self._clock = clock
        self._crashed = crashed
        self._instances_max = instances_max
        self._fetch = fetch
        self._accept = frozenset([*executor.app.conf.accept_content, executor.outcomes.content.serializer])
        #: By registered name, the classes that were met, each with what its messages log and send as.
        self._known: dict[str, tuple[type[Any], Task[..., Any]]] = {}
        #: By mailbox, the one that was used last at the end. One that handles a message is not in it, so that
        #: a crash need not take it out, and nobody stops it meanwhile.
        self._instances: dict[str, Living] = {}
        self._lock = threading.Lock()
        executor.replaced = self._forget

    @property
    def mailboxes(self) -> list[str]:
        """The actors that live here and have nothing to do, the longest idle first."""
        return list(self._instances)

    def run(self, held: Held) -> Outcome:
        """Handle one message and return what became of it. Raises SystemExit alone."""
        handler = self._handler(held)
        if isinstance(handler, Outcome):
            return handler
        request = self._enter(held, handler)
        living = self._take(held)
        try:
            if handler.durable and living.since != held.since:
                living.learn(held.since, states.wait_for(self._fetch(held.delivery.mailbox)))
            instance = living.instance
            if instance is None:
                instance = living.instance = self._make(held, handler, living.state)
                _finish(instance.on_start())
            value = _finish(handler.method(instance, *handler.args, **handler.kwargs))
            state = self._state_of(held, living) if handler.durable else None
        except SystemExit:
            raise
        except BaseException as error:
            # The actor's crash: the asker and the supervisor learn of it.
            return self._crash(held, handler, living, error)
        finally:
            set_top_frame(None)
            if request.unconfirmed is not None:
                self._executor.wait_for_confirms(request, held.delivery.envelope)
        idle = self._put_back(held, living, state)
        if idle is not None:
            self._let_go(*idle)
        return self._answer(held, value, state)

    async def run_async(self, held: Held) -> Outcome:
        """The same in a loop: other actors' handlers may run while this one waits."""
        handler = self._handler(held)
        if isinstance(handler, Outcome):
            return handler
        request = self._enter(held, handler)
        living = self._take(held)
        try:
            if handler.durable and living.since != held.since:
                living.learn(held.since, await states.waited_for(self._fetch(held.delivery.mailbox)))
            instance = living.instance
            if instance is None:
                instance = living.instance = self._make(held, handler, living.state)
                await _finished(instance.on_start())
            value = await _finished(handler.method(instance, *handler.args, **handler.kwargs))
            state = self._state_of(held, living) if handler.durable else None
        except SystemExit:
            raise
        except BaseException as error:
            # As above.
            return self._crash(held, handler, living, error)
        finally:
            set_top_frame(None)
            if request.unconfirmed is not None:
                # Not in the loop's way; what was refused is told by the executor.
                await done(request.unconfirmed, CONFIRM_SECONDS)
                self._executor.wait_for_confirms(request, held.delivery.envelope)
        idle = self._put_back(held, living, state)
        if idle is not None and idle[1] is not None:
            try:
                await _finished(idle[1].on_stop(self._crowded))
            except Exception:
                # It goes anyway, and nobody waits for an answer: the log tells of it.
                logger.exception("actor %s raised while it stopped", idle[0])
        return self._answer(held, value, state)

    def stop(self, reason: str) -> None:
        """Let every actor go, in order. Outside of any loop."""
        while self._instances:
            mailbox = next(iter(self._instances))
            self._let_go(mailbox, self._instances.pop(mailbox).instance, reason)

    # --- one message ---------------------------------------------------------------------------------------------

    def _handler(self, held: Held) -> _Handler | Outcome:
        """What this message calls, or what becomes of one that calls nothing."""
        executor, envelope = self._executor, held.delivery.envelope
        more = envelope.more
        actor_class = more.actor_class if more is not None else ""
        known = self._find(actor_class)
        if known is None:
            executor.log.unknown(envelope)
            return self._refuse(held, NotRegistered(actor_class))
        cls, task = known
        if held.expired or (more is not None and 0 < more.deadline <= self._clock().wall):
            # Nobody waits for the answer any more, and the asker was told that nobody starts on it.
            executor.log.revoked(envelope, "expired")
            return executor.outcomes.revoked(held, "expired")
        method = methods_of(cls).get(envelope.name)
        if method is None:
            have = ", ".join(methods_of(cls)) or "none"
            text = f"actors of {actor_class} have no method {envelope.name!r} for messages; they have {have}"
            return self._refuse(held, TypeError(text))
        try:
            args, kwargs = executor.arguments_of(envelope)
        except GreenroomError as error:
            return executor.undecodable(held, error)
        return _Handler(cls, task, method, args, kwargs, bool(cls.durable))

    def _find(self, actor_class: str) -> tuple[type[Any], Task[..., Any]] | None:
        known = self._known.get(actor_class)
        if known is None and actor_class in self._classes:
            task: Task[..., Any] = Task()
            task.name = actor_class
            known = self._known[actor_class] = (self._classes[actor_class], task)
        return known

    def _enter(self, held: Held, handler: _Handler) -> Context:
        """Make this message the parent of whatever the handler sends; its outcome waits for the broker's word on that.

        Else what it told others would be lost with this process, and the message, being done, would not be handled
        again to tell it anew.
        """
        request = self._executor.request_of(held, handler.args, handler.kwargs)
        set_top_frame(Frame(handler.task, request, None))
        return request

    def _answer(self, held: Held, value: object, state: bytes | None) -> Outcome:
        try:
            outcome = self._executor.outcomes.succeeded(held, value, None, None)
            if state is not None and len(outcome.result) + len(state) > OUTCOME_BYTES_MAX:
                mailbox, size = held.delivery.mailbox, len(outcome.result)
                raise EncodeError(
                    f"the answer of actor {mailbox!r} has {size} bytes and its state {len(state)}, together more than "
                    f"the {OUTCOME_BYTES_MAX} that can be settled at once; keep large data elsewhere"
                )
        except GreenroomError as error:
            # What it answered cannot be sent. It has worked, so this is no crash.
            outcome = self._refuse(held, error)
        outcome.snapshot = state
        return outcome

    def _refuse(self, held: Held, error: BaseException) -> Outcome:
        return self._executor.outcomes.failed(held, describe(error, ""))

    def _crash(self, held: Held, handler: _Handler, living: Living, error: BaseException) -> Outcome:
        if handler.durable and living.since == held.since:
            # What it was before this message is what its next instance begins with.
            self._put_back(held, Living(None, living.since, living.state), None)
        mailbox, envelope = held.delivery.mailbox, held.delivery.envelope
        if isinstance(error, Terminated):
            return self._executor.outcomes.revoked(held, "terminated")
        shown = _shown(error)
        logger.error("actor %s crashed in %s[%s]: %s", mailbox, envelope.name, envelope.id, shown, exc_info=error)
        self._crashed(mailbox, envelope.more.actor_class if envelope.more is not None else "", error)
        failed = ActorFailed(f"actor {mailbox!r} raised {shown} in {envelope.name}", actor=mailbox)
        failed.__cause__ = error
        return self._executor.outcomes.failed(held, describe(failed), state=State.FAILURE)

    # --- instances -----------------------------------------------------------------------------------------------

    def _take(self, held: Held) -> Living:
        with self._lock:
            return self._instances.pop(held.delivery.mailbox, None) or Living()

    def _forget(self, held: Held) -> None:
        """What the message left is not settled: whoever handles the next one asks what the state is."""
        with self._lock:
            living = self._instances.get(held.delivery.mailbox)
            if living is not None and living.since:
                del self._instances[held.delivery.mailbox]

    def _make(self, held: Held, handler: _Handler, state: bytes) -> Any:
        """Return an instance, with the state that it had if there is one."""
        instance = handler.cls()
        if state:
            app, mailbox = self._executor.app, held.delivery.mailbox
            instance.restore(states.unpack(state, mailbox, accept=self._accept, key=app.signing_key))
        return instance

    def _state_of(self, held: Held, living: Living) -> bytes | None:
        """Return the state that this message has left; None: it is as before."""
        state = states.pack(living.instance.snapshot(), held.delivery.mailbox, self._executor.outcomes.content)
        return None if state == living.state else state

    def _put_back(self, held: Held, living: Living, state: bytes | None) -> tuple[str, Any] | None:
        """Keep an instance; return the mailbox and the instance of one that must make room."""
        if state is not None:
            living.state = state
        with self._lock:
            self._instances[held.delivery.mailbox] = living
            if len(self._instances) <= self._instances_max:
                return None
            idle = next(iter(self._instances))
            return idle, self._instances.pop(idle).instance

    def _let_go(self, mailbox: str, instance: Any, reason: str = "") -> None:
        if instance is None:
            return
        try:
            _finish(instance.on_stop(reason or self._crowded))
        except Exception:
            # As above.
            logger.exception("actor %s raised while it stopped", mailbox)

    @property
    def _crowded(self) -> str:
        return f"more than {self._instances_max} actors live in one process"


def _shown(error: BaseException) -> str:
    """An exception in words, also one whose own words fail."""
    try:
        return repr(error)
    except Exception:
        return f"a {type(error).__qualname__} that cannot be printed"


def _finish(value: Any) -> Any:
    return coroutine_runner().run(value) if inspect.isawaitable(value) else value


async def _finished(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
