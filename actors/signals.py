"""Signals: named moments at which an application's own functions are called.

Owns `Signal` and Celery's signals under Celery's names. A receiver is a callable that takes `**kwargs`; it is
called in the thread and process where the moment is, one after the other in the order of connecting, and what it
raises is logged and never reaches the sender. `signal.receivers` is empty while nobody listens, and that is all
that a hot path looks at.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, overload

_F = TypeVar("_F", bound=Callable[..., Any])

logger = logging.getLogger(__name__)


class _Receiver(NamedTuple):
    """A connected function: what it was connected under, for whom it listens, and how to get at it."""

    key: object
    sender: object
    #: Returns the function, or None once it is gone.
    resolve: Callable[[], Callable[..., Any] | None]


class Signal:
    """One moment. `name` is what it is imported as; `provides` are the arguments that its receivers get."""

    #: Grows when anything is connected anywhere or taken away: until then who found nobody need not look again.
    changes: ClassVar[int] = 0

    def __init__(self, name: str, provides: tuple[str, ...] = ()) -> None:
        self.name = name
        self.provides = provides
        #: The connected functions. Replaced whole when one comes or goes, so that a send may walk it unlocked.
        self.receivers: tuple[_Receiver, ...] = ()
        self._lock = threading.Lock()

    @property
    def has_receivers(self) -> bool:
        """Whether anybody listens, to whatever sender."""
        return bool(self.receivers)

    @overload
    def connect(
        self,
        receiver: _F,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: object = None,
        retry: bool = False,
    ) -> _F: ...

    @overload
    def connect(
        self,
        receiver: None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: object = None,
        retry: bool = False,
    ) -> Callable[[_F], _F]: ...

    def connect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: object = None,
        retry: bool = False,
    ) -> Any:
        """Call `receiver` at this moment; without a receiver, return a decorator that does this.

        `sender`: only when this object (or this text) is the sender. `weak`: forget the receiver when nobody else
        holds it. A receiver is connected once for each `dispatch_uid`, or without one once for each sender.
        `retry` is taken for the sake of Celery's callers and changes nothing: a receiver is called once.
        Raises TypeError for what cannot be called, and ValueError for what does not take `**kwargs`.
        """
        if receiver is None:

            def decorate(function: Callable[..., Any]) -> Any:
                return self.connect(function, sender, weak, dispatch_uid, retry)

            return decorate
        if not callable(receiver):
            raise TypeError(f"signal {self.name}: a receiver must be callable, not {receiver!r}")
        if not _takes_keywords(receiver):
            raise ValueError(
                f"signal {self.name}: receiver {receiver!r} must take **kwargs, since signals may get more arguments"
            )
        key = dispatch_uid if dispatch_uid is not None else (_identity(receiver), _sender_identity(sender))
        with self._lock:
            if all(known.key != key or known.resolve() is None for known in self.receivers):
                entry = _Receiver(key, _sender_identity(sender), _reference(receiver, weak))
                self.receivers = (*(r for r in self.receivers if r.resolve() is not None), entry)
                Signal.changes += 1
        return receiver

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: Any = None,
        weak: bool | None = None,
        dispatch_uid: object = None,
    ) -> None:
        """Undo a `connect` with the same receiver and sender, or the same `dispatch_uid`."""
        key = dispatch_uid if dispatch_uid is not None else (_identity(receiver), _sender_identity(sender))
        with self._lock:
            self.receivers = tuple(
                known for known in self.receivers if known.key != key and known.resolve() is not None
            )
            Signal.changes += 1

    def has_listeners(self, sender: Any = None) -> bool:
        """Tell whether a receiver would be called for this sender."""
        return bool(self._live(sender))

    def send(self, sender: Any = None, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call the receivers for this sender; return (receiver, what it returned or raised) for each.

        An exception of a receiver is logged here and returned in its place.
        """
        if not self.receivers:
            return []
        answers: list[tuple[Callable[..., Any], Any]] = []
        for receiver in self._live(sender):
            answer: Any
            try:
                answer = receiver(signal=self, sender=sender, **named)
            except Exception as error:
                # A listener's fault is no fault of the work that it listens to; the log tells who failed.
                logger.exception("signal %s: receiver %r raised %r", self.name, receiver, error)
                answer = error
            answers.append((receiver, answer))
        return answers

    send_robust = send

    def _live(self, sender: Any) -> list[Callable[..., Any]]:
        identity = _sender_identity(sender)
        found: list[Callable[..., Any]] = []
        for known in self.receivers:
            if known.sender is None or known.sender == identity:
                receiver = known.resolve()
                if receiver is not None:
                    found.append(receiver)
        return found

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={set(self.provides)!r}>"


def _identity(target: Any) -> object:
    """Return what two mentions of one receiver have in common; a bound method is new at each mention."""
    if hasattr(target, "__func__"):
        return id(target.__self__), id(target.__func__)
    return id(target)


def _sender_identity(sender: Any) -> object:
    """Return what a sender is known by: names by their text, None for anybody, objects by identity."""
    if sender is None or isinstance(sender, str | bytes):
        return sender
    return id(sender)


def _reference(receiver: Callable[..., Any], weak: bool) -> Callable[[], Callable[..., Any] | None]:
    if not weak:
        return lambda: receiver
    if hasattr(receiver, "__func__"):
        return weakref.WeakMethod(receiver)
    return weakref.ref(receiver)


def _takes_keywords(receiver: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        # Some builtins tell nothing about themselves.
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


# --- sending a task -----------------------------------------------------------------------------------------

before_task_publish: Final = Signal(
    "before_task_publish",
    ("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"),
)
after_task_publish: Final = Signal("after_task_publish", ("body", "exchange", "routing_key", "headers"))
#: Celery's older name for after_task_publish, with other arguments.
task_sent: Final = Signal("task_sent", ("task_id", "task", "args", "kwargs", "eta", "taskset"))

# --- running a task -----------------------------------------------------------------------------------------

task_received: Final = Signal("task_received", ("request",))
task_prerun: Final = Signal("task_prerun", ("task_id", "task", "args", "kwargs"))
task_postrun: Final = Signal("task_postrun", ("task_id", "task", "args", "kwargs", "retval", "state"))
task_success: Final = Signal("task_success", ("result",))
task_retry: Final = Signal("task_retry", ("request", "reason", "einfo"))
task_failure: Final = Signal("task_failure", ("task_id", "exception", "args", "kwargs", "traceback", "einfo"))
task_internal_error: Final = Signal(
    "task_internal_error", ("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo")
)
task_revoked: Final = Signal("task_revoked", ("request", "terminated", "signum", "expired"))
task_rejected: Final = Signal("task_rejected", ("message", "exc"))
task_unknown: Final = Signal("task_unknown", ("message", "exc", "name", "id"))

# --- the life of a program ----------------------------------------------------------------------------------

import_modules: Final = Signal("import_modules")
celeryd_init: Final = Signal("celeryd_init", ("instance", "conf", "options"))
celeryd_after_setup: Final = Signal("celeryd_after_setup", ("instance", "conf"))
worker_init: Final = Signal("worker_init")
worker_ready: Final = Signal("worker_ready")
heartbeat_sent: Final = Signal("heartbeat_sent")
worker_shutting_down: Final = Signal("worker_shutting_down", ("sig", "how", "exitcode"))
worker_process_init: Final = Signal("worker_process_init")
worker_process_shutdown: Final = Signal("worker_process_shutdown", ("pid", "exitcode"))
worker_before_create_process: Final = Signal("worker_before_create_process")
worker_shutdown: Final = Signal("worker_shutdown")
beat_init: Final = Signal("beat_init")
beat_embedded_init: Final = Signal("beat_embedded_init")
setup_logging: Final = Signal("setup_logging", ("loglevel", "logfile", "format", "colorize"))
after_setup_logger: Final = Signal("after_setup_logger", ("logger", "loglevel", "logfile", "format", "colorize"))
after_setup_task_logger: Final = Signal(
    "after_setup_task_logger", ("logger", "loglevel", "logfile", "format", "colorize")
)
user_preload_options: Final = Signal("user_preload_options", ("app", "options"))
eventlet_pool_started: Final = Signal("eventlet_pool_started")
eventlet_pool_preshutdown: Final = Signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown: Final = Signal("eventlet_pool_postshutdown")
eventlet_pool_apply: Final = Signal("eventlet_pool_apply", ("target", "args", "kwargs"))

#: Every signal of the module by its name.
ALL: Final[dict[str, Signal]] = {
    signal.name: signal for signal in list(globals().values()) if isinstance(signal, Signal)
}
