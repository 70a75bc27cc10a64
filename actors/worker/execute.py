"""Running one delivery: from the message to its outcome.

Owns the way through a task: decode the body, find the task, put the request in place, call the body, and say what
became of it. A pool calls `run` (or `run_async`) in the thread that has marked the delivery as started in the page,
and gets an `Outcome`, or `Afterwards`: an outcome and what is to run once it is on its way.

Whatever is wrong with a message is an outcome in words: a body that cannot be decoded or may not be, an unknown task,
arguments that do not fit, a result that cannot be sent. Only SystemExit leaves `run`: a body that calls sys.exit ends
its process, and what follows is the broker's judgement on a lost worker.

A task without hooks, limits, links and listeners takes the short way through `run`. The long way has the same steps,
with all that may stand around a body: `_begin`, the body, then `_returned` or `_raised`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from ...transport import payload_msgpack
from ...transport.errors import DecodeError, GreenroomError, SecurityError
from ...transport.message import Envelope, Flag, Kind, More, Outcome, State
from .. import signals
from ..bodies import unpack_call
from ..current import Frame, set_top_frame
from ..errors import Ignore, NotRegistered, Reject, Retry, Terminated
from ..results import states
from ..results.failure import ExceptionInfo, describe
from ..tasks.request import Context
from .afterwards import Afterwards, Ending
from .coroutines import CONFIRM_SECONDS, coroutine_runner, done
from .events import Held
from .follows import after_failure, after_success
from .handling import BUSY_FLAGS, Handling
from .hands import Limits, Reporter
from .outcomes import Outcomes
from .tasklog import TaskLog

if TYPE_CHECKING:
    from ..app import App

Done = Outcome | Afterwards

_NO_MORE: Final = More()
_TASK: Final = int(Kind.TASK)
_DEDUPLICATE: Final = int(Flag.DEDUPLICATE)
_TRACK_STARTED: Final = int(Flag.TRACK_STARTED)
_Signal: Final = signals.Signal
_AROUND_BODIES: Final = (signals.task_received, signals.task_prerun, signals.task_success, signals.task_postrun)
_loads: Final[Callable[[bytes], Any]] = payload_msgpack.loads_quickly


class OtherKind(Protocol):
    """How messages that are no tasks are run."""

    def run(self, held: Held) -> Done:
        """Return what became of this delivery."""
        ...


class Call(msgspec.Struct):
    """One call of a task on its way through `Executor`."""

    held: Held
    handling: Handling
    request: Context
    args: list[Any]
    kwargs: dict[str, Any]
    limited: bool
    began: float


class Executor:
    """Runs the deliveries of one child process."""

    def __init__(
        self,
        app: App,
        outcomes: Outcomes,
        limits: Limits,
        reporter: Reporter,
        *,
        hostname: str,
        loglevel: int = 0,
        time_limit: int = 0,
        soft_time_limit: int = 0,
    ) -> None:
        self.app = app
        self.outcomes = outcomes
        self.log = TaskLog()
        #: How messages of kinds other than TASK are run.
        self.others: dict[int, OtherKind] = {}
        #: Told of a delivery whose outcome is not what came of its run.
        self.replaced: Callable[[Held], None] = lambda _: None
        self._limits = limits
        self._reporter = reporter
        self._time_limit = time_limit
        self._soft_time_limit = soft_time_limit
        self._handlings: dict[str, Handling] = {}
        self._accept: frozenset[str] = frozenset(app.conf.accept_content)
        self._deduplicates = bool(app.conf.worker_deduplicate_successful_tasks)
        executor = self

        class Request(Context):
            """The context of a delivery in this worker: the body's states go to the broker."""

            held: Held  # pyright: ignore[reportIncompatibleVariableOverride] - never None here

            def report_state(  # pyright: ignore[reportIncompatibleVariableOverride] - a method in place of None
                self, state: str | None, meta: Any
            ) -> None:
                executor.report(self.held, state or "", meta)

        Request.hostname = hostname
        Request.loglevel = loglevel
        Request.called_directly = False
        self._request: type[Context] = Request
        self._new_request: Callable[..., Any] = Request.__new__
        self.refresh()

    # --- the short way -------------------------------------------------------------------------------------------

    def run(self, held: Held) -> Done:
        """Run one delivery in this thread. Raises SystemExit, and nothing else."""
        if self._changes != _Signal.changes:
            self.refresh()
        envelope = held.delivery.envelope
        handling = self._handlings.get(envelope.name)
        if (
            handling is None
            or not handling.plain
            or envelope.kind != _TASK
            or envelope.more is not None
            or envelope.content != "msgpack"
            or envelope.flags & BUSY_FLAGS
            or held.expired
            or self._always_in_full
        ):
            return self._run_in_full(held)
        try:
            call: Any = _loads(envelope.body)
            args, kwargs = cast("tuple[list[Any], dict[str, Any]]", call)
            if type(kwargs) is not dict or type(args) is not list:
                return self._run_in_full(held)
            request = self._new_request(self._request)
            request.delivery = held.delivery
            request.args = args
            request.kwargs = kwargs
            request.held = held
        except Exception:
            # Not a plain [args, kwargs]: the long way finds out what it is, or says what is wrong with it.
            return self._run_in_full(held)
        set_top_frame(Frame(handling.task, request, None))
        try:
            value = handling.body(*args, **kwargs)
            if request.retried is None and request._children is None and request.unconfirmed is None:
                return self.outcomes.returned(held, value)
            return self._returned(Call(held, handling, request, args, kwargs, False, 0.0), value)
        except SystemExit:
            raise
        except BaseException as error:
            # The task's own failure: whoever asked for the result learns of it, and so does the log.
            return self._raised(Call(held, handling, request, args, kwargs, False, 0.0), error)
        # The frame stays until the next body puts its own in place, or `refresh` takes it away: between bodies
        # no code runs that could see it.

    # --- the long way --------------------------------------------------------------------------------------------

    def _run_in_full(self, held: Held) -> Done:
        call = self._begin(held)
        if not isinstance(call, Call):
            return call
        try:
            try:
                self._start(call)
                value = call.handling.body(*call.args, **call.kwargs)
                if call.handling.is_coroutine:
                    value = self.run_coroutine(value)
            finally:
                self._stop(call)
            return self._returned(call, value)
        except SystemExit:
            raise
        except BaseException as error:
            # As above.
            return self._raised(call, error)
        finally:
            set_top_frame(None)

    async def run_async(self, held: Held) -> Done:
        """Run one delivery in this coroutine; only for tasks whose body is a coroutine function."""
        call = self._begin(held)
        if not isinstance(call, Call):
            return call
        try:
            try:
                self._start(call)
                value = await call.handling.body(*call.args, **call.kwargs)
            finally:
                self._stop(call)
            if call.request.unconfirmed is not None:
                # Not in the loop's way; what is refused is told by `_returned`.
                await done(call.request.unconfirmed, CONFIRM_SECONDS)
            return self._returned(call, value)
        except SystemExit:
            raise
        except BaseException as error:
            # As above.
            return self._raised(call, error)
        finally:
            set_top_frame(None)

    def is_coroutine(self, held: Held) -> bool:
        """Whether `run_async` is for this delivery."""
        handling = self._handling(held.delivery.envelope.name)
        return held.delivery.envelope.kind == _TASK and handling is not None and handling.is_coroutine

    def run_coroutine(self, coroutine: Any) -> Any:
        """Run a coroutine task to its end in a thread that has no loop of its own."""
        return coroutine_runner().run(coroutine)

    def _begin(self, held: Held) -> Call | Done:
        """Everything before the body: a call that is ready to run, or why there is none."""
        envelope = held.delivery.envelope
        if envelope.kind != _TASK:
            other = self.others.get(envelope.kind)
            if other is None:
                text = f"message {envelope.id} is of kind {envelope.kind}, which this worker does not know"
                return self.undecodable(held, DecodeError(text))
            return other.run(held)
        handling = self._handling(envelope.name)
        if handling is None:
            return self._unknown(held)
        try:
            args, kwargs = unpack_call(envelope, accept=self._accept, key=self.app.signing_key)
            request = self.request_of(held, args, kwargs)
            request.embed  # noqa: B018 - what is nested must be readable before the body runs
        except GreenroomError as error:
            return self.undecodable(held, error)
        if self.log.is_verbose:
            self.log.received(envelope)
        if signals.task_received.receivers:
            signals.task_received.send(sender=self.app, request=request)
        if held.expired:
            return self._expired(held, request, handling)
        if held.delivery.redelivered and self._is_done_already(envelope, handling):
            self.log.skipped(envelope)
            return self.outcomes.plain(held, State.SUCCESS)
        set_top_frame(Frame(handling.task, request, None))
        if envelope.flags & _TRACK_STARTED:
            self.report(held, states.STARTED, {"hostname": self.outcomes.worker})
        return Call(held, handling, request, args, kwargs, False, time.perf_counter())

    def _start(self, call: Call) -> None:
        """The last steps before the body, whose exceptions are the task's."""
        handling, request = call.handling, call.request
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=handling.task, task_id=request.id, task=handling.task, args=call.args, kwargs=call.kwargs
            )
        more = call.held.delivery.envelope.more or _NO_MORE
        soft = more.soft_time_limit or self._soft_time_limit
        hard = more.time_limit or self._time_limit
        if soft or hard:
            call.limited = True
            self._limits.begin(call.held, soft, hard)
        if handling.before_start:
            handling.task.before_start(request.id or "", call.args, call.kwargs)

    def _stop(self, call: Call) -> None:
        if call.limited:
            self._limits.end(call.held)

    # --- endings -------------------------------------------------------------------------------------------------

    def wait_for_confirms(self, request: Context, envelope: Envelope) -> None:
        """Wait until brokers have what the body sent without waiting: after its outcome nobody would send it again."""
        unconfirmed, request.unconfirmed = request.unconfirmed, None
        for promise in unconfirmed or ():
            try:
                promise.result(CONFIRM_SECONDS)
            except Exception as error:
                # The body asked not to wait for this: the log is who learns of it.
                self.log.unconfirmed(envelope, error)

    def _returned(self, call: Call, value: object) -> Done:
        held, handling, request = call.held, call.handling, call.request
        envelope = held.delivery.envelope
        if request.unconfirmed is not None:
            self.wait_for_confirms(request, envelope)
        if request.retried is not None:
            # retry(throw=False): it takes place now that the body has returned.
            return self._retry(call, request.retried)
        follows = after_success(self.app, request, value) if envelope.more is not None else None
        outcome = self.outcomes.succeeded(held, value, request.sent_children, follows)
        if self.log.is_verbose:
            seconds = time.perf_counter() - call.began
            self.log.succeeded(envelope, value, seconds, handling.task.resultrepr_maxsize)
        return _with(outcome, Ending(handling, request, states.SUCCESS, value))

    def _raised(self, call: Call, error: BaseException) -> Done:
        held, handling, request = call.held, call.handling, call.request
        envelope = held.delivery.envelope
        if request.unconfirmed is not None:
            self.wait_for_confirms(request, envelope)
        if isinstance(error, Ignore):
            self.log.ignored(envelope)
            return _with(self.outcomes.plain(held, State.IGNORED), Ending(handling, request, states.IGNORED, error))
        if isinstance(error, Reject):
            return self._reject(call, error)
        if isinstance(error, Retry):
            return self._retry(call, error)
        if isinstance(error, Terminated):
            return self.revoked(held, request, handling, "terminated")
        return self._fail(call, error)

    def _fail(self, call: Call, error: BaseException) -> Done:
        held, handling, request = call.held, call.handling, call.request
        info = ExceptionInfo(error)
        self.log.failed(held.delivery.envelope, handling, error, info)
        failure = describe(error, info.traceback)
        ending = Ending(handling, request, states.FAILURE, error, info)
        follows = None
        if held.delivery.envelope.more is not None:
            try:
                follows, ending.errbacks = after_failure(self.app, request)
            except Exception:
                # An errback that cannot be sent must not hide the failure that it was to tell of.
                self.log.failed(held.delivery.envelope, None, error, info)
        return _with(self.outcomes.failed(held, failure, request.sent_children, follows), ending)

    def _reject(self, call: Call, reject: Reject) -> Done:
        held, handling, request = call.held, call.handling, call.request
        self.log.rejected(held.delivery.envelope, reject)
        ending = Ending(handling, request, states.REJECTED, reject)
        if reject.requeue and handling.acks_late:
            return _with(self.outcomes.plain(held, State.REQUEUED), ending)
        # With an early ack the message was taken when it began: it cannot go back, so that no body runs twice.
        outcome = self.outcomes.failed(held, describe(reject), state=State.REJECTED)
        return _with(outcome, ending)

    def _retry(self, call: Call, retry: Retry) -> Done:
        held, handling, request = call.held, call.handling, call.request
        try:
            if retry.next_form is None:
                # Raised by hand: the same as what `task.retry` would have raised.
                seconds = retry.when if isinstance(retry.when, int | float) else None
                retry = handling.task.retry(exc=retry.exc, countdown=seconds, throw=False)
            cause = retry.exc or retry
            info = ExceptionInfo(cause)
            outcome = self.outcomes.retried(held, retry.next_form, describe(cause, info.traceback))
        except Exception as error:
            # No retries left, or a next form that cannot be sent: then this is the task's failure.
            return self._fail(call, error)
        self.log.retried(held.delivery.envelope, retry)
        return _with(outcome, Ending(handling, request, states.RETRY, retry, info))

    def _expired(self, held: Held, request: Context, handling: Handling) -> Done:
        return self.revoked(held, request, handling, "expired")

    def revoked(self, held: Held, request: Context, handling: Handling, reason: str) -> Done:
        """REVOKED, with the signal task_revoked afterwards."""
        self.log.revoked(held.delivery.envelope, reason)
        outcome = self.outcomes.revoked(held, reason)
        if not signals.task_revoked.receivers:
            return outcome
        return Afterwards(outcome, False, lambda: _tell_revoked(request, handling, reason))

    def _unknown(self, held: Held) -> Done:
        envelope = held.delivery.envelope
        self.log.unknown(envelope)
        error = NotRegistered(envelope.name)
        outcome = self.outcomes.failed(held, describe(error, ""))
        if not signals.task_unknown.receivers:
            return outcome
        name, id = envelope.name, envelope.id

        def tell() -> None:
            signals.task_unknown.send(sender=self.app, message=held.delivery, exc=error, name=name, id=id)

        return Afterwards(outcome, False, tell)

    def undecodable(self, held: Held, error: GreenroomError) -> Outcome:
        """The outcome of a delivery whose body cannot be read, or may not be: without its signature nobody loads it."""
        self.log.undecodable(held.delivery.envelope, error)
        failure = describe(error, "")
        if isinstance(error, SecurityError):
            return self.outcomes.refused(held, failure)
        return self.outcomes.failed(held, failure)

    def broken(self, held: Held, error: Exception) -> Outcome:
        """The outcome of a delivery that raised where nothing should: the process has others to run."""
        self.replaced(held)
        with contextlib.suppress(Exception):
            # It may be the application's log that raises.
            self.log.failed(held.delivery.envelope, None, error, ExceptionInfo(error))
        return self.outcomes.failed(held, describe(error))

    def interrupted(self, held: Held, error: BaseException) -> Outcome:
        """The outcome of a delivery whose body was interrupted just before or after its own code."""
        self.replaced(held)
        if isinstance(error, Terminated):
            return self.outcomes.revoked(held, "terminated")
        info = ExceptionInfo(error)
        self.log.failed(held.delivery.envelope, None, error, info)
        return self.outcomes.failed(held, describe(error, info.traceback))

    # --- what bodies and others ask for --------------------------------------------------------------------------

    def report(self, held: Held, state: str, meta: object) -> None:
        """Send a state that a body has named. Raises EncodeError for a meta that cannot be sent."""
        self._reporter.progress(held, self.outcomes.progress(held, state, meta))

    def request_of(self, held: Held, args: list[Any], kwargs: dict[str, Any]) -> Context:
        """Return the request of a delivery in this worker."""
        request = self._request.delivered(held.delivery, args, kwargs)
        cast("Any", request).held = held
        return request

    def handling_of(self, name: str) -> Handling | None:
        """How a task is run here; None if there is none of this name."""
        return self._handling(name)

    def arguments_of(self, envelope: Envelope) -> tuple[list[Any], dict[str, Any]]:
        """Decode a call. Raises ContentDisallowed, SecurityError or DecodeError."""
        return unpack_call(envelope, accept=self._accept, key=self.app.signing_key)

    def set_limits(self, time_limit: int, soft_time_limit: int) -> None:
        """Change the defaults for bodies that begin from now on, in microseconds; 0: none."""
        self._time_limit = time_limit
        self._soft_time_limit = soft_time_limit
        self.refresh()

    def refresh(self) -> None:
        """Between bodies, now and then: look again at what may have changed, and let go of the last body's call."""
        set_top_frame(None)
        self.log.refresh()
        # Counted first: whoever begins to listen while this looks is seen by the next body.
        self._changes = _Signal.changes
        is_heard = any(signal.receivers for signal in _AROUND_BODIES)
        self._always_in_full = is_heard or bool(
            self._time_limit or self._soft_time_limit or self.log.is_verbose or "msgpack" not in self._accept
        )

    def _handling(self, name: str) -> Handling | None:
        handling = self._handlings.get(name)
        if handling is None:
            tasks: Mapping[str, Any] = self.app.tasks
            task = tasks.get(name)
            if task is None:
                return None
            handling = self._handlings[name] = Handling(task, deduplicates=self._deduplicates)
        return handling

    def _is_done_already(self, envelope: Envelope, handling: Handling) -> bool:
        """Whether a redelivered message need not run: its task asks for that, and succeeded before."""
        if not handling.deduplicates and not envelope.flags & _DEDUPLICATE:
            return False
        try:
            return any(
                known.id == envelope.id and known.state == State.SUCCESS
                for known in self.app.client.known([envelope.id])
            )
        except GreenroomError:
            # Nobody can say: at least once is what was promised.
            return False


def _with(outcome: Outcome, ending: Ending) -> Done:
    return Afterwards(outcome, ending.has_hooks, ending.run) if ending.is_noticed else outcome


def _tell_revoked(request: Context, handling: Handling, reason: str) -> None:
    signals.task_revoked.send(
        sender=handling.task,
        request=request,
        terminated=reason == "terminated",
        signum=None,
        expired=reason == "expired",
    )
