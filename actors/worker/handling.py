"""How this worker runs one type of task: everything about it that does not change from call to call.

Computed once a task, so that a task with nothing around its body pays for nothing: no hooks, no limits, no signals.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from ...transport.message import Flag
from ..tasks.task import Task

#: Flags of a message for which more is done than calling the body.
BUSY_FLAGS: Final = int(Flag.TRACK_STARTED | Flag.DEDUPLICATE)


class Handling:
    """One task, as this worker runs it."""

    __slots__ = (
        "acks_late",
        "after_return",
        "before_start",
        "body",
        "deduplicates",
        "is_coroutine",
        "name",
        "on_failure",
        "on_retry",
        "on_success",
        "plain",
        "task",
        "throws",
    )

    def __init__(self, task: Task[..., Any], *, deduplicates: bool) -> None:
        self.task = task
        self.name = task.name
        self.body: Callable[..., Any] = task.body
        self.is_coroutine = inspect.iscoroutinefunction(self.body) or inspect.iscoroutinefunction(task.run)
        self.before_start = task.overrides("before_start")
        self.on_success = task.overrides("on_success")
        self.on_failure = task.overrides("on_failure")
        self.on_retry = task.overrides("on_retry")
        self.after_return = task.overrides("after_return")
        self.acks_late = bool(task.acks_late)
        self.deduplicates = deduplicates
        throws = task.throws
        self.throws: tuple[type[BaseException], ...] = throws if isinstance(throws, tuple) else (throws,)
        #: Nothing happens before a body, nor around one that returns.
        self.plain = not (
            self.is_coroutine or self.before_start or self.on_success or self.after_return or deduplicates
        )
