"""What runs of a user's code after a body has ended: hooks, signals, and errbacks that take the exception itself.

The order, which is Celery's: the body; its outcome is settled, which stores its state; links and old-style errbacks
go out in that same commit; then, in the child that ran the body and with the request still in place,

    success   on_success, the signal task_success
    retry     on_retry, the signal task_retry
    failure   errbacks that take (request, exc, traceback), on_failure, the signal task_failure
    always    after_return (not for Ignore and Reject), the signal task_postrun

Where a task overrides one of the hooks that are due, the child waits for the broker's word that the state is stored
before it calls any of this. Signals alone are sent once the outcome has been handed to the link. An exception here is
logged and changes nothing: the outcome is settled already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ...transport.message import Outcome
from .. import signals
from ..current import Frame, set_top_frame
from ..results import states
from ..results.failure import ExceptionInfo
from ..tasks.signature import Signature
from .handling import Handling

if TYPE_CHECKING:
    from ..tasks.request import Context

logger = logging.getLogger("greenroom.worker")


class Afterwards(msgspec.Struct, gc=False):
    """An outcome, and what runs once it is on its way. `wait`: only when the broker has stored it."""

    outcome: Outcome
    wait: bool
    run: Callable[[], None]


class Ending(msgspec.Struct):
    """How a body ended, for those who are told of it. `state` is Celery's name."""

    handling: Handling
    request: Context
    state: str
    #: What it returned, or the exception.
    value: Any
    info: ExceptionInfo | None = None
    #: Errbacks to be called here.
    errbacks: list[Signature[Any]] = []

    @property
    def has_hooks(self) -> bool:
        """Whether a hook that is due is overridden: then the state is stored first."""
        handling = self.handling
        due = {
            states.SUCCESS: handling.on_success,
            states.FAILURE: handling.on_failure,
            states.RETRY: handling.on_retry,
        }
        return due.get(self.state, False) or (handling.after_return and self.state in _RETURNING)

    @property
    def is_noticed(self) -> bool:
        """Whether anything at all has to run."""
        told = _SIGNALS.get(self.state)
        return bool(
            self.has_hooks or self.errbacks or signals.task_postrun.receivers or (told is not None and told.receivers)
        )

    def run(self) -> None:
        """Call what is due, with the request in place."""
        frame = Frame(self.handling.task, self.request, None)
        frame.entered = True
        set_top_frame(frame)
        try:
            for errback in self.errbacks:
                assert self.info is not None
                _call(errback, self.request, self.value, self.info.traceback)
            self._hook()
            self._signal()
            self._last()
        finally:
            set_top_frame(None)

    def _hook(self) -> None:
        handling, request = self.handling, self.request
        task, id, args, kwargs = handling.task, request.id or "", request.args, request.kwargs
        if self.state == states.SUCCESS:
            if handling.on_success:
                _call(task.on_success, self.value, id, args, kwargs)
        elif self.info is not None and self.state == states.RETRY:
            if handling.on_retry:
                _call(task.on_retry, self.value.exc, id, args, kwargs, self.info)
        elif self.info is not None and self.state == states.FAILURE and handling.on_failure:
            _call(task.on_failure, self.value, id, args, kwargs, self.info)

    def _signal(self) -> None:
        task, request, info = self.handling.task, self.request, self.info
        if self.state == states.SUCCESS:
            signals.task_success.send(sender=task, result=self.value)
        elif self.state == states.RETRY:
            signals.task_retry.send(sender=task, request=request, reason=self.value, einfo=info)
        elif self.state == states.FAILURE:
            signals.task_failure.send(
                sender=task,
                task_id=request.id,
                exception=self.value,
                args=request.args,
                kwargs=request.kwargs,
                traceback=getattr(self.value, "__traceback__", None),
                einfo=info,
            )
        elif self.state == states.REJECTED:
            signals.task_rejected.send(sender=task, message=request.delivery, exc=self.value)

    def _last(self) -> None:
        task, request = self.handling.task, self.request
        if self.handling.after_return and self.state in _RETURNING:
            value = self.value.exc if self.state == states.RETRY else self.value
            _call(task.after_return, self.state, value, request.id or "", request.args, request.kwargs, self.info)
        signals.task_postrun.send(
            sender=task,
            task_id=request.id,
            task=task,
            args=request.args,
            kwargs=request.kwargs,
            retval=self.value,
            state=self.state,
        )


_SIGNALS = {
    states.SUCCESS: signals.task_success,
    states.RETRY: signals.task_retry,
    states.FAILURE: signals.task_failure,
    states.REJECTED: signals.task_rejected,
}
_RETURNING = frozenset({states.SUCCESS, states.RETRY, states.FAILURE})


def _call(hook: Callable[..., object], *args: Any) -> None:
    try:
        hook(*args)
    except Exception:
        # A hook's own fault: the task's outcome stands, and the log tells of it.
        logger.exception("%r raised after its task had ended", getattr(hook, "__qualname__", hook))
