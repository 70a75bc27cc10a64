"""The errors that tasks and actors raise and see.

Owns Celery's names, with the bases that a Celery user's `except` clauses rely on, and ours for actors.
Three groups are raised for control rather than for failure: `Retry`, `Ignore` and `Reject` by a task, the
two time limits into a task, `WorkerShutdown` and `WorkerTerminate` into a worker. All but these last two,
which are `SystemExit` so that no task swallows them, and the warnings descend from `GreenroomError`.

Differences from Celery: `TimeoutError` is also Python's own, so that either is caught by either name, and
`CeleryCommandException` does not depend on a command line library.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

from ..transport.errors import (
    BrokerUnavailable,
    ContentDisallowed,
    DecodeError,
    EncodeError,
    GreenroomError,
    MailboxFull,
    OperationalError,
    SecurityError,
    UnknownOutcome,
)

__all__ = [
    "ActorFailed",
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "BrokerUnavailable",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryCommandException",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "FixupWarning",
    "GreenroomError",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MailboxFull",
    "MaxRetriesExceededError",
    "NotConfigured",
    "NotRegistered",
    "NotSupported",
    "OperationalError",
    "PoisonMessage",
    "QueueNotFound",
    "Reject",
    "RemoteError",
    "Retry",
    "RetryTaskError",
    "SecurityError",
    "SecurityWarning",
    "SoftTimeLimitExceeded",
    "StaleRef",
    "SystemTerminate",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnknownOutcome",
    "UnpickleableExceptionWrapper",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
]


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise `value` with the traceback `tb`; `tp` is not needed and stands for Celery's signature."""
    raise value if value.__traceback__ is tb else value.with_traceback(tb)


class CeleryError(GreenroomError):
    """Raised when something goes wrong under one of Celery's names; what `except CeleryError` catches."""


class ImproperlyConfigured(CeleryError):
    """Raised when a setting is missing, unknown or contradicts another one."""


class NotSupported(CeleryError, NotImplementedError):
    """Raised when a part of Celery is used that Greenroom does not have; it says what to use instead."""


# ---- what a task raises to say what should become of it ----


class TaskPredicate(CeleryError):
    """Raised when a task says by an exception what should become of it, which is no failure."""


class Retry(TaskPredicate):
    """Raised when a task is to run again later.

    `message` explains, `exc` is the exception behind it and `excs` its text, `when` is the due time or a
    number of seconds, `is_eager` says that the task runs in the caller, and `sig` is what will run.
    `next_form` is a `transport.message.Retry` with the same in the form that a worker settles with, or None.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: datetime | float | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.exc = None if isinstance(exc, str) else exc
        self.excs = exc if isinstance(exc, str) else _safe_repr(exc) if exc is not None else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        self.next_form: Any = None
        super().__init__(message, self.exc, when, **kwargs)

    def humanize(self) -> str:
        """Return when the task runs again, in words."""
        return f"in {self.when}s" if isinstance(self.when, (int, float)) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}: {self.excs}" if self.excs else f"Retry {self.humanize()}"


#: Celery's older name.
RetryTaskError = Retry


class Ignore(TaskPredicate):
    """Raised when a task wants its message acknowledged and no state recorded."""


class Reject(TaskPredicate):
    """Raised when a task refuses its message, which ends as FAILURE with this exception and is no dead letter.

    With `requeue`, and a late ack, the message comes back instead, after a delay that grows.
    """

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


# ---- tasks and their results ----


class TaskError(CeleryError):
    """Raised when a task cannot be called, found or finished."""


class QueueNotFound(KeyError, TaskError):
    """Raised when a call names a queue that `task_queues` does not have and that may not be created."""


class IncompleteStream(TaskError):
    """Raised when a stream ends before its data is complete."""


class NotRegistered(KeyError, TaskError):
    """Raised when a worker has no task of this name; the module that defines it was not imported there."""

    def __repr__(self) -> str:
        return f"Task of kind {self} never registered, please make sure it's imported."


class AlreadyRegistered(TaskError):
    """Raised when the name is taken by another task."""


class TimeoutError(TaskError, builtins.TimeoutError):
    """Raised when a result is not there within the caller's timeout; the task goes on."""


class MaxRetriesExceededError(TaskError):
    """Raised when a task asks for a retry and has none left.

    `task_args` and `task_kwargs` are the task's arguments.
    """

    def __init__(self, *args: Any, task_args: Sequence[Any] = (), task_kwargs: Mapping[str, Any] | None = None) -> None:
        self.task_args = task_args
        self.task_kwargs = dict(task_kwargs or {})
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """Raised when a task was revoked, so that it has no result."""


class InvalidTaskError(TaskError):
    """Raised when a task's message is not what a task's message must be."""


class ChordError(TaskError):
    """Raised when a member of a chord failed, so that its body does not run."""


class BackendError(GreenroomError):
    """Raised when results cannot be read or written."""


class BackendGetMetaError(BackendError):
    """Raised when a result cannot be read. `task_id` says whose."""

    def __init__(self, *args: Any, task_id: str = "") -> None:
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """Raised when a result cannot be written. `task_id` says whose, `state` which state."""

    def __init__(self, *args: Any, state: str = "", task_id: str = "") -> None:
        self.state = state
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


# ---- processes and time limits ----


class SoftTimeLimitExceeded(GreenroomError):
    """Raised when a task has run for its soft time limit, inside the task, so that it can clean up."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args}"


class TimeLimitExceeded(GreenroomError):
    """Raised when a task ran beyond its hard time limit and its process was killed."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args}"


class WorkerLostError(GreenroomError):
    """Raised when the process that ran a task ended before the task did."""


class PoisonMessage(WorkerLostError):
    """Raised when every start of a message ended in the death of its process, as often as is allowed.

    The message is a dead letter. `task` is its name, `deliveries` how often it was started, `last_cause`
    how the last process ended, as far as the broker told.
    """

    # Here as well as in the constructor: a broker tells the text alone, and that comes back without it.
    task: str = ""
    deliveries: int | None = None
    last_cause: str = ""

    def __init__(
        self, message: str = "", *, task: str = "", deliveries: int | None = None, last_cause: str = ""
    ) -> None:
        self.task = task
        self.deliveries = deliveries
        self.last_cause = last_cause
        if not message:
            often = "as often as it may" if deliveries is None else f"{deliveries} times"
            died = f"{often} and each time its process died, the last time" if deliveries != 1 else "once and died"
            message = (
                f"{task or 'a message'} was started {died} by {last_cause or 'an unknown cause'}; it is a dead letter "
                "now, see `greenroom dead show`, and `greenroom dead redrive` once the cause is mended"
            )
        super().__init__(message)


class Terminated(GreenroomError):
    """Raised when a task's process was ended at a user's request."""


class WorkerTerminate(SystemExit):
    """Raised when a worker must end at once."""


#: Celery's older name.
SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """Raised when a worker must finish what it runs and then end."""


class CeleryCommandException(GreenroomError):
    """Raised when a command of the command line fails; it ends with `exit_code`."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.message = message
        self.exit_code = exit_code
        super().__init__(message)


# ---- actors ----


class ActorFailed(GreenroomError):
    """Raised when an actor's handler raised while it worked on a question.

    `actor` is the actor's name; the handler's exception, as far as it can be rebuilt here, is the cause.
    """

    def __init__(self, message: str = "", *, actor: str = "") -> None:
        self.actor = actor
        super().__init__(message or f"actor {actor!r} failed while it answered; the cause is above")


class StaleRef(GreenroomError):
    """Raised when a ref points to an incarnation of an actor that is gone.

    `actor` is the actor's name, `incarnation` the one that the ref means, `current` the one that lives, or
    None where there is none.
    """

    def __init__(
        self,
        message: str = "",
        *,
        actor: str = "",
        incarnation: int | None = None,
        current: int | None = None,
    ) -> None:
        self.actor = actor
        self.incarnation = incarnation
        self.current = current
        if not message:
            now = "none lives now" if current is None else f"now lives {current}"
            message = f"the ref means incarnation {incarnation} of actor {actor!r}, {now}; ask for a new ref"
        super().__init__(message)


# ---- exceptions from elsewhere ----


class RemoteError(GreenroomError):
    """Raised when work failed elsewhere with an exception whose class is not known here.

    What is raised is a subclass that bears the original's name. `exc_module` and `exc_type` name the
    original, `exc_args` are its arguments, and `str()` is its text.
    """

    def __init__(
        self, text: str = "", *, exc_module: str = "", exc_type: str = "", exc_args: tuple[Any, ...] = ()
    ) -> None:
        self.text = text
        self.exc_module = exc_module
        self.exc_type = exc_type
        self.exc_args = exc_args
        super().__init__(*exc_args)

    def __str__(self) -> str:
        return self.text


class UnpickleableExceptionWrapper(GreenroomError):
    """Raised when an exception stands for one that could not be sent; Celery's name for it.

    `exc_module`, `exc_cls_name` and `exc_args` describe the original, and `str()` is its text.
    """

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: tuple[Any, ...], text: str | None = None) -> None:
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = tuple(item if isinstance(item, _PLAIN) else _safe_repr(item) for item in exc_args)
        self.text = text
        super().__init__(exc_module, exc_cls_name, self.exc_args, text)

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Return the wrapper of an exception, with its traceback."""
        wrapper = cls(type(exc).__module__, type(exc).__name__, exc.args, _safe_repr(exc))
        return wrapper.with_traceback(exc.__traceback__)

    def restore(self) -> Exception:
        """Return an exception of a new class with the original's name and module."""
        made: type[Exception] = type(self.exc_cls_name, (Exception,), {"__module__": self.exc_module})
        return made(*self.exc_args)

    def __str__(self) -> str:
        return self.text or f"{self.exc_module}.{self.exc_cls_name}{self.exc_args}"


_PLAIN = (type(None), bool, int, float, str, bytes)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        # A class whose repr fails is still to be named; this text is all that anybody learns of it.
        return f"<{type(value).__qualname__}, whose repr raised {type(error).__name__}>"


# ---- warnings ----


class CeleryWarning(UserWarning):
    """Warned when something is probably not as meant; the root of the warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """Warned when `send_task` sends although `task_always_eager` is set."""


class DuplicateNodenameWarning(CeleryWarning):
    """Warned when two workers have the same name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Warned when two callables are registered as the same task."""


class FixupWarning(CeleryWarning):
    """Warned when an adaptation to a framework could not be made."""


class NotConfigured(CeleryWarning):
    """Warned when no configuration was found."""


class SecurityWarning(CeleryWarning):
    """Warned when something is possible that is not safe."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Warned when something will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Warned when something is deprecated."""
