"""What a task says about itself: its options and its hooks, which classes of tasks override.

Owns `TaskAttributes`, the part of `Task` that is there to be overridden and does nothing by itself. An option that is
None here and stands in `options.FROM_SETTINGS` has the value of its setting until a task says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .options import FROM_SETTINGS, FromSettings

if TYPE_CHECKING:
    from ..app import App
    from ..results.failure import ExceptionInfo

_FROM_SETTINGS: Any = None


class TaskAttributes:
    """The options and hooks of a task."""

    #: The name that messages carry; generated from the module and the function where it is not given.
    name: str = ""
    #: A base class for tasks, no task itself.
    abstract: bool = True
    #: The body gets the task as its first argument.
    bind: bool = False
    #: Calls are checked against the body's parameters where they are made.
    typing: bool = True
    #: Retries after the first run, and the seconds before each; None: for ever.
    max_retries: int | None = 3
    default_retry_delay: float = 180
    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | int | float = False
    retry_backoff_max: int = 600
    retry_jitter: bool = True
    #: Exceptions that are expected: a failure all the same, but logged in one line.
    throws: tuple[type[BaseException], ...] | type[BaseException] = ()
    time_limit: float | None = None
    soft_time_limit: float | None = None
    expires: float | datetime | None = None
    queue: Any = None
    exchange: Any = None
    routing_key: str | None = None
    send_events: bool = True
    trail: bool = True
    backend: Any = None
    resultrepr_maxsize: int = 1024
    #: Celery's request class and execution strategy: they belong to its workers.
    Request: Any = None
    Strategy: Any = None

    rate_limit: str | float | None = _FROM_SETTINGS
    serializer: str = _FROM_SETTINGS
    compression: str | None = _FROM_SETTINGS
    priority: int | None = _FROM_SETTINGS
    track_started: bool = _FROM_SETTINGS
    acks_late: bool = _FROM_SETTINGS
    acks_on_failure_or_timeout: bool = _FROM_SETTINGS
    acks_on_failure: bool = _FROM_SETTINGS
    acks_on_timeout: bool = _FROM_SETTINGS
    reject_on_worker_lost: bool | None = _FROM_SETTINGS
    retry_on_worker_lost: bool = _FROM_SETTINGS
    ignore_result: bool = _FROM_SETTINGS
    store_eager_result: bool = _FROM_SETTINGS
    store_errors_even_if_ignored: bool = _FROM_SETTINGS
    #: Starts that may end in the death of their process, before the message is a dead letter. -1: no bound.
    max_deliveries: int | None = _FROM_SETTINGS

    # --- hooks: defined by a task's class, called by whoever runs it

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the body."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called after the body returned."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo) -> None:
        """Called after the body asked for a retry."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo) -> None:
        """Called after the body raised, or its process died."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> None:
        """Called at the end, whatever it was."""

    def on_replace(self, sig: Any) -> Any:
        """Called when the body replaced itself by a signature."""

    def on_bound(self, app: App) -> None:
        """Called when the task has joined an app."""

    def shadow_name(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
        """Return the name that logs show in place of the task's, or None."""
        return None


for _option, _setting in FROM_SETTINGS.items():
    # A descriptor in place of the None above, where type checkers should see the kind of the value.
    setattr(TaskAttributes, _option, FromSettings(_setting))
